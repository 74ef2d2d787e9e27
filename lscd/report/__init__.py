"""Builds the report: one function per figure or table, one page that shows them."""
