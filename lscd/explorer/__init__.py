"""The interactive page of `lscd explore`: state, tables, charts, and a thin app that shows them."""
