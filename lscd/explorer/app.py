"""The page: a marimo app that reads widgets into a `State`, asks `view` and shows what comes back.

Run it with ``lscd explore``; ``marimo edit lscd/explorer/app.py`` opens the same page as a notebook.
"""

import marimo

app = marimo.App(width="full", app_title="Flash-LLM lab: explorer", css_file="explorer.css")


@app.cell
def _():
    import marimo as mo

    from lscd.explorer import page
    from lscd.explorer.state import linked

    return linked, mo, page


@app.cell
def _(linked, mo, page):
    request = mo.app_meta().request
    start, link_error = linked(dict(request.query_params) if request else {})
    widgets = mo.ui.dictionary(page.widgets(start))
    page.controls(widgets, link_error)  # shown where they are made: a cell is not run again by its own widgets
    return (widgets,)


@app.cell
def _(mo, page, widgets):
    result, error = page.answer(widgets.value)
    if result is not None:
        page.share(result.state, mo.query_params())
    page.facts(result, error)
    return (result,)


@app.cell
def _(page, result):
    page.figures(result)
    return


@app.cell
def _(page, result):
    page.downloads(result)
    return


if __name__ == "__main__":
    app.run()
