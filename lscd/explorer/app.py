"""The page: a marimo app that reads widgets into a `State`, asks `view` and shows what comes back.

Run it with ``lscd explore``; ``marimo edit lscd/explorer/app.py`` opens the same page as a notebook. Widgets are shown
where they are made: a cell is not run again by its own widgets.
"""

import marimo

app = marimo.App(
    width="full", app_title="Flash-LLM lab: explorer", css_file="explorer.css", html_head_file="explorer.html"
)


@app.cell
def _():
    import marimo as mo

    from lscd.explorer import page
    from lscd.explorer.state import linked

    return linked, mo, page


@app.cell
def _(linked, mo, page):
    request = mo.app_meta().request
    start = linked(dict(request.query_params) if request else {})
    memory = page.Memory(start)
    pinned, pin = mo.state(start.pinned and (start.pinned, page.NOTHING))
    page.header(start)
    return memory, pin, pinned, start


@app.cell
def _(page, start):
    model = page.model_box(start.state)
    settings = page.setting_boxes(start.state)
    page.controls({"model": model, **settings.elements}, "question")
    return model, settings


@app.cell
def _(files, memory, model, page, unmeasured):
    choices = page.choice_boxes(memory, model.value, files, unmeasured.value)
    page.controls(choices.elements, "weights")
    return (choices,)


@app.cell
def _(page, start):
    unmeasured = page.switch("unmeasured", start.state.unmeasured)
    uploads = page.uploads()
    more = page.more_boxes(start.state)
    page.folded(
        "More: limits and load, another card, your own model, kernels nobody measured",
        {**more.elements, "unmeasured": unmeasured, **uploads.elements},
    )
    return more, unmeasured, uploads


@app.cell
def _(page, uploads):
    files, upload_error = page.brought(uploads.value)
    page.brought_words(files, upload_error)
    return (files,)


@app.cell
def _(choices, files, memory, model, more, page, settings, unmeasured):
    values = {"model": model.value, "unmeasured": unmeasured.value, **settings.value, **choices.value, **more.value}
    result, error = page.answer(memory, values, files)
    page.verdict(result, error, memory.last)
    return (result,)


@app.cell
def _(page, result, shared):
    page.needs(result) if shared else None  # takes longest, so it waits for all else
    return


@app.cell
def _(memory, page, result):
    page.facts(result, memory.last)
    return


@app.cell
def _(page):
    panel = page.panel_box()
    page.region("panels", panel)
    return (panel,)


@app.cell
def _(memory, mo, page, pin):
    pin_button = mo.ui.button(
        label="Pin this answer as A", on_click=lambda _: pin((memory.last.state, memory.last.files))
    )
    page.region("comparison", pin_button)
    return


@app.cell
def _(memory, page, panel, pinned, result):
    drawn = True
    page.figures(result, memory.last, page.TABS[panel.value], pinned())
    return (drawn,)


@app.cell
def _(drawn, mo, page, panel, pinned, result):
    shared = drawn
    if result is not None:
        page.share(result, pinned(), mo.query_params())
    page.downloads(result, page.TABS[panel.value])
    return (shared,)


if __name__ == "__main__":
    app.run()
