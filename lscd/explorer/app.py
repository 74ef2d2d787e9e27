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
    kept = page.Memory(start)
    pinned, pin = mo.state(start.pinned and (start.pinned, page.NOTHING))
    page.header(start)
    return kept, pin, pinned, start


@app.cell
def _(page, start):
    # Each in a name of its own: of widgets in one dictionary, marimo keeps the last that changes while it is busy.
    model = page.model_box(start.state)
    asked = page.setting_boxes(start.state)
    gpu, gpus, engine, sparsity, batch, input_len, output_len = asked.values()
    page.controls({"model": model, **asked}, "question")
    return batch, engine, gpu, gpus, input_len, model, output_len, sparsity


@app.cell
def _(files, kept, model, page, unmeasured):
    choices = page.choice_boxes(kept, model.value, files, unmeasured.value)
    weights, matrix = choices.values()
    page.controls(choices, "weights")
    return matrix, weights


@app.cell
def _(page, start):
    more = page.more_boxes(start.state)
    bandwidth, sms, clock, l2, memory, price, ttft_ms, tpot_ms, served, unmeasured = more.values()
    uploads = page.uploads()
    model_file, zeros_file = uploads.values()
    page.folded("More: limits and load, another card, your own model, kernels nobody measured", {**more, **uploads})
    return (
        bandwidth,
        clock,
        l2,
        memory,
        model_file,
        price,
        served,
        sms,
        tpot_ms,
        ttft_ms,
        unmeasured,
        zeros_file,
    )


@app.cell
def _(model_file, page, zeros_file):
    files, upload_error = page.brought({"model_file": model_file.value, "zeros_file": zeros_file.value})
    page.brought_words(files, upload_error)
    return (files,)


@app.cell
def _(
    bandwidth,
    batch,
    clock,
    engine,
    files,
    gpu,
    gpus,
    input_len,
    kept,
    l2,
    matrix,
    memory,
    model,
    output_len,
    page,
    price,
    served,
    sms,
    sparsity,
    tpot_ms,
    ttft_ms,
    unmeasured,
    weights,
):
    boxes = {
        "model": model,
        "gpu": gpu,
        "gpus": gpus,
        "engine": engine,
        "format": weights,
        "sparsity": sparsity,
        "batch": batch,
        "input_len": input_len,
        "output_len": output_len,
        "matrix": matrix,
        "unmeasured": unmeasured,
        "served": served,
        "ttft_ms": ttft_ms,
        "tpot_ms": tpot_ms,
        "bandwidth": bandwidth,
        "sms": sms,
        "clock": clock,
        "l2": l2,
        "memory": memory,
        "price": price,
    }
    result, error = page.answer(kept, {name: box.value for name, box in boxes.items()}, files)
    page.verdict(result, error, kept.last)
    return (result,)


@app.cell
def _(page, result, shared):
    page.needs(result) if shared else None  # takes longest, so it waits for all else
    return


@app.cell
def _(kept, page, result):
    page.facts(result, kept.last)
    return


@app.cell
def _(page):
    panel = page.panel_box()
    page.region("panels", panel)
    return (panel,)


@app.cell
def _(kept, mo, page, pin):
    pin_button = mo.ui.button(label="Pin this answer as A", on_click=lambda _: pin((kept.last.state, kept.last.files)))
    page.region("comparison", pin_button)
    return


@app.cell
def _(kept, page, panel, pinned, result):
    drawn = True
    page.figures(result, kept.last, page.TABS[panel.value], pinned())
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
