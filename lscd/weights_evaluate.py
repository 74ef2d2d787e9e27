"""`lscd weights evaluate`: how well a model, pruned or not, foretells a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lscd.errors import InputError
from lscd.printing import digits, headline, progress, say
from lscd.weights_files import AsJson

if TYPE_CHECKING:
    from kernels_numba.decoder.perplexity import Evaluation


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A folder with config.json, weights and tokenizer.json; a GGUF file; or smollm2.")
    ],
    text: Annotated[
        Path | None,
        typer.Option(help="Text file; by default the half of Python's help topics that calibrates nothing."),
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens of a window; windows do not overlap.")] = 512,
    tokens: Annotated[
        int, typer.Option(help="Most tokens to read: of a longer text so many windows, evenly spread.")
    ] = 16_384,
    as_json: AsJson = False,
) -> None:
    """Measure a model's perplexity on a text, on the CPU in float32, with its standard error."""
    from kernels_numba.checkpoints.tokenizer import load_tokenizer
    from kernels_numba.decoder import perplexity
    from kernels_numba.decoder.load import load_decoder, open_model
    from kernels_numba.decoder.texts import read_text, sequences

    chosen = read_text(text, calibrating=False)
    config = open_model(model).config
    if not 2 <= length <= config.positions:
        raise InputError(f"--length is {length}, allowed are 2 to {config.positions} tokens for this model")
    if tokens < length:
        raise InputError(f"--tokens is {tokens}, allowed is at least the {length} tokens of a window")
    windows = sequences(chosen, load_tokenizer(model), length, tokens // length)
    decoder = load_decoder(model)
    with progress("evaluating", len(windows)) as step:
        found = perplexity.evaluate(decoder, windows, step)
    if as_json:
        print(json.dumps(as_dict(found) | {"model": model, "text": chosen.origin}, indent=2))
    else:
        _print(found, chosen.origin)


def as_dict(found: Evaluation) -> dict[str, float | int | None]:
    """Everything an evaluation says, by name."""
    errors = {"perplexity_error": found.perplexity_error, "standard_error": found.standard_error}
    counts = {"tokens": found.tokens, "windows": found.windows, "length": found.length, "seconds": found.seconds}
    return {"perplexity": found.perplexity, "mean_log_likelihood": found.mean, **errors, **counts}


def _print(found: Evaluation, origin: str) -> None:
    known = found.perplexity_error is not None
    error = f" ± {digits(found.perplexity_error, 2)}" if found.perplexity_error is not None else ""
    headline(f"Perplexity {digits(found.perplexity, 4)}{error} on {origin}.")
    spread = f" ± {digits(found.standard_error, 2)}" if found.standard_error is not None else ""
    say(
        f"{found.tokens:,} tokens scored, mean log-likelihood {found.mean:.4f}{spread} (natural logarithm): "
        f"{found.windows} windows of {found.length} tokens that do not overlap, the first of each not scored; "
        f"{digits(found.seconds)} s."
    )
    say(
        "± is one standard error, from how much the windows differ."
        if known
        else "A single window: no standard error; more --tokens or a shorter --length give one."
    )
