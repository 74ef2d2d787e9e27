"""`lscd generate`: text from a real model, with weights in any format, and how fast it came."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernels_numba.bench.threads import BLAS_THREADS, usable_cores
from lscd.asking import AsJson
from lscd.errors import InputError, refuse_idle
from lscd.printing import digits, headline, say

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from kernels_numba.decoder.generate import Step
    from kernels_numba.decoder.model import Decoder
    from lscd.decoding import Speed

CHAT_START, CHAT_END = "<|im_start|>", "<|im_end|>"  # ChatML


def generate(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="A folder with config.json, weights and tokenizer.json; a GGUF file; or smollm2.")
    ],
    prompt: Annotated[str, typer.Option(help="Text to go on with.")],
    tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 64,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format", help="Encode the matrices: dense, panel-csr, bitmap ...; by default as stored, in float32."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    gpu: Annotated[
        str | None, typer.Option(help="This machine as `lscd measure --out this.toml` found it: predicts the speed.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Copies of the prompt that are decoded together.")] = 1,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt as a user's question to an instructed model.")
    ] = False,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token; 1 draws as the model says.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Another seed, other draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Generate text on the CPU; prints it as it comes, then tokens per second, beside their prediction."""
    if temperature == 0:
        refuse_idle(context, "without --temperature", "seed")
    used = _use_threads(threads)
    from kernels_numba.checkpoints.tokenizer import load_tokenizer, tokens_of
    from kernels_numba.decoder import generate as decoding
    from kernels_numba.decoder.load import load_decoder, open_model
    from lscd.decoding import predicted, this_cpu

    cpu = None if gpu is None else this_cpu(gpu, used)
    tokenizer = load_tokenizer(model)
    ids = tokens_of(tokenizer, _as_chat(tokenizer, model, prompt) if chat else prompt)
    if not ids:
        raise InputError("--prompt is empty; allowed is a text of at least one token")
    request = decoding.Request(ids, tokens, batch, temperature, seed)
    request.check(open_model(model).config)  # before the weights are read
    decoder = load_decoder(model, format=format_name, joined=True)
    speed = None if cpu is None else predicted(decoder, cpu, batch, len(ids) + tokens / 2)
    if cpu is not None and not as_json:
        say(_foretold(speed, batch))
    steps: list[Step] = []
    text = ""
    for piece in _pieces(tokenizer, decoding.generate(decoder, request), steps):
        text += piece
        if not as_json:
            typer.echo(piece, nl=False)
    found = {
        "model": model, "format": format_name or _formats(decoder), "threads": used, "batch": batch,
        "prompt_tokens": len(ids), "tokens": [int(step.tokens[0]) for step in steps], "text": text,
        **_speed(decoder, steps, batch, speed),
    }  # fmt: skip
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        typer.echo()
        _print_speed(found)


def _use_threads(threads: int | None) -> int:
    """Let NumPy's BLAS and Numba use this many threads; the former reads it once, when NumPy is imported."""
    most = usable_cores()
    if threads is not None and not 1 <= threads <= most:
        raise InputError(f"--threads is {threads}, allowed are 1 to {most} on this machine")
    count = threads or most
    os.environ.update(dict.fromkeys(BLAS_THREADS, str(count)))
    from numba import set_num_threads

    set_num_threads(count)
    return count


def _as_chat(tokenizer: Tokenizer, model: str, prompt: str) -> str:
    if tokenizer.token_to_id(CHAT_START) is None or tokenizer.token_to_id(CHAT_END) is None:
        raise InputError(f"--chat: the tokenizer of {model} has no {CHAT_START}; drop --chat")
    return f"{CHAT_START}user\n{prompt}{CHAT_END}\n{CHAT_START}assistant\n"


def _pieces(tokenizer: Tokenizer, steps: Iterable[Step], kept: list[Step]) -> Iterator[str]:
    """Text of the first sequence, in whole characters, as its tokens come; the steps are kept."""
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(skip_special_tokens=True)
    for step in steps:
        kept.append(step)
        if piece := stream.step(tokenizer, int(step.tokens[0])):
            yield piece


def _formats(decoder: Decoder) -> str:
    """How the matrices of the layers are stored."""
    kinds = {type(decoder.weights[name]).__name__ for name in decoder.config.stored(decoder.weights)}
    return ", ".join(sorted("float32" if kind == "ndarray" else kind for kind in kinds))


def _speed(decoder: Decoder, steps: list[Step], batch: int, speed: Speed | None) -> dict[str, Any]:
    """What the steps after the prompt took, and what they were predicted to take."""
    later = [step.seconds for step in steps[1:]]
    step_s = median(later) if later else None
    return {
        "prompt_s": steps[0].seconds,
        "step_s": step_s,
        "tokens_per_s": batch / step_s if step_s else None,
        "predicted_tokens_per_s": None if speed is None else batch / speed.step_s,
        "predicted_tokens_per_s_lo": None if speed is None else batch / speed.hi_s,
        "predicted_tokens_per_s_hi": None if speed is None else batch / speed.lo_s,
        "predicted_kernel": None if speed is None else speed.kernel,
        "step_bytes": decoder.step_bytes,
    }


def _foretold(speed: Speed | None, batch: int) -> str:
    """The prediction, before a token is there."""
    if speed is None:
        return "Not predicted: no CPU kernel multiplies this format, its weights are decoded at every product."
    low, middle, high = (digits(batch / seconds) for seconds in (speed.hi_s, speed.step_s, speed.lo_s))
    doubt = "" if speed.measured else ", fitted on another machine"
    return f"Predicted: {middle} tokens/s ({low} - {high}{doubt}) with {speed.kernel}."


def _print_speed(found: dict[str, Any]) -> None:
    read = f"{found['step_bytes'] / 1e6:,.0f} MB of weights a step as {found['format']}"
    if found["tokens_per_s"] is None:
        headline(f"One token in {digits(found['prompt_s'])} s, prompt included; reads {read}.")
        return
    threads = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
    headline(f"{digits(found['tokens_per_s'])} tokens/s on {threads}, batch {found['batch']}; reads {read}.")
    if found["predicted_tokens_per_s"] is not None:
        error = found["predicted_tokens_per_s"] / found["tokens_per_s"] - 1
        say(f"Predicted were {digits(found['predicted_tokens_per_s'])} tokens/s, {error:+.0%} of what was measured.")
    steps, prompt = len(found["tokens"]) - 1, found["prompt_tokens"]
    say(
        f"Median of {steps} steps of one token: {digits(found['step_s'] * 1e3)} ms; "
        f"the prompt's {prompt} tokens took {digits(found['prompt_s'])} s."
    )
