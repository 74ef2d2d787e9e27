"""`lscd gpus`, `models`, `formats`, `kernels list`: what there is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lscd.asking import AsJson
from lscd.errors import InputError, refuse_idle, written_whole
from lscd.files import Lab
from lscd.printing import headline, print_table, say

if TYPE_CHECKING:
    from perfmodel.catalog.decoder import Decoder
    from perfmodel.catalog.specs import Gpu

# Titles of the table of formats in two lines, so that its rows fit 100 columns.
FORMAT_SIZES = (("", "name"), (" ", "bits/weight"), (" ", "MB"))
FORMAT_WORDS = (("smaller than", "dense from"), ("FP16", "kept"), ("", "format"))
WEIGHTS = ("lossless", "pruned", "rounded", "pruned and rounded")  # what becomes of them: groups of the formats
LARGEST = 2**40  # as perfmodel.catalog.records.LARGEST_SIZE, which is not imported just to show help

kernels = Lab(help="The kernels: list them, check, inspect and trace the real ones.", no_args_is_help=True)


def gpus(
    context: typer.Context,
    like: Annotated[str, typer.Option(help="A card to change by these factors: a name, or a TOML file.")] = "",
    bandwidth: Annotated[float, typer.Option(help="Times its DRAM bandwidth, 0.1 to 10.")] = 1.0,
    sms: Annotated[float, typer.Option(help="Times its SMs, 0.1 to 10, made a whole number.")] = 1.0,
    clock: Annotated[float, typer.Option(help="Times its clock, 0.1 to 10.")] = 1.0,
    l2: Annotated[float, typer.Option(help="Times the size of its L2, 0.1 to 10.")] = 1.0,
    memory: Annotated[float, typer.Option(help="Times the size of its DRAM, 0.1 to 10.")] = 1.0,
    price: Annotated[float, typer.Option(help="Times its price, 0.1 to 10.")] = 1.0,
    output: Annotated[
        Path | None, typer.Option(writable=True, dir_okay=False, help="TOML file to write the card to, for --gpu.")
    ] = None,
) -> None:
    """List the GPUs of the catalogue, and the CPUs, with the numbers that matter here; or make a card like one."""
    from perfmodel.catalog import cpu_names, gpu_names, load_gpu

    factors = {"bandwidth": bandwidth, "sms": sms, "clock": clock, "l2": l2, "memory": memory, "price": price}
    if like:
        _print_like(like, factors, output)
        return
    refuse_idle(context, "without --like", *factors, "output")
    _print_gpus([load_gpu(name) for name in gpu_names()])
    if names := cpu_names():
        say("CPUs, measured with all threads (name@1: with one; your own by `lscd measure`):")
        _print_cpus(names)


def _print_like(like: str, factors: dict[str, float], output: Path | None) -> None:
    """A card below the one it is like; written to ``output`` if there is one."""
    from perfmodel.catalog import load_gpu
    from perfmodel.catalog.altered import altered, toml_of

    base = load_gpu(like)
    card = altered(base, **factors)
    if output is not None:
        _check_card_name(output)
        with written_whole(output) as partial:
            partial.write_text(toml_of(card), encoding="utf-8")
    headline(f"{card.name[0].upper()}{card.name[1:]}.")
    _print_gpus(list(dict.fromkeys((base, card))))
    say("--output FILE.toml writes it, for --gpu." if output is None else f"Written, for --gpu {output}.")
    say("Nobody has measured a card of another name: every prediction on it is marked as extrapolated.")


def _check_card_name(output: Path) -> None:
    """Refuse a file that no --gpu takes, or whose card would be taken for one of the catalogue."""
    from perfmodel.catalog import has_gpu

    if output.suffix != ".toml":
        raise InputError(f"--output is {output}, allowed is a name that ends in .toml, as --gpu takes it")
    if has_gpu(output.stem):
        raise InputError(f"--output is {output}, but {output.stem} is a card of the catalogue; give another name")


def _print_gpus(cards: Sequence[Gpu]) -> None:
    """One line a GPU."""
    from perfmodel.roofline import ridge_point

    header = ("name", "SMs", "FP16 TFLOP/s", "DRAM GB/s", "DRAM GB", "L2 MB", "shared KiB/SM", "ridge FLOP/B")
    rows = []
    for gpu in cards:
        rows.append(
            (
                gpu.key,
                f"{gpu.clock.sm_count}",
                f"{gpu.peak.fp16_tensor / 1e12:.0f}",
                f"{gpu.dram.bandwidth_bytes_per_s / 1e9:.0f}",
                f"{gpu.dram.size_bytes / 1e9:.0f}",
                f"{gpu.l2.size_bytes / 1e6:.0f}",
                f"{gpu.sm.shared_memory_bytes / 1024:.0f}",
                f"{ridge_point(gpu):.0f}",
            )
        )
    print_table(header, rows, text=("name",))


def _print_cpus(names: Sequence[str]) -> None:
    """One line a CPU of the catalogue: rates of all its threads."""
    from perfmodel.catalog import load_device
    from perfmodel.catalog.cpu import Cpu

    header = ("name", "threads", "FP32 GFLOP/s", "BF16 GFLOP/s", "DRAM GB/s", "DRAM GB", "call us")
    rows = []
    for name in names:
        cpu = load_device(name)
        assert isinstance(cpu, Cpu)
        peak, place = cpu.peak, cpu.place
        brain = f"{peak.bf16_gemm[place] / 1e9:.0f}" if peak.bf16_gemm else "-"
        sizes = (f"{cpu.dram_bytes_per_s / 1e9:.1f}", f"{cpu.memory.size_bytes / 1e9:.0f}")
        calls = f"{cpu.call.seconds[place] * 1e6:.1f}"
        rows.append((cpu.key, str(cpu.in_use), f"{peak.fp32_gemm[place] / 1e9:.0f}", brain, *sizes, calls))
    print_table(header, rows, text=("name",))


def models() -> None:
    """List the language models of the catalogue."""
    from perfmodel.catalog import load_model, model_names

    header = ("name", "parameters", "active", "layers", "hidden", "heads", "MLP", "KV bytes/token", "vocabulary")
    rows = []
    for model in sorted(
        map(load_model, model_names()), key=lambda model: (model.key.rsplit("-", 1)[0], model.parameters)
    ):
        s = model.shape
        counts = (
            f"{model.parameters / 1e9:.2f} B",
            f"{s.active_parameters / 1e9:.2f} B",
            str(s.layers),
            str(s.hidden_size),
        )
        kinds = (_mixers(s), _inner(s), f"{2 * s.cached_values:,}", str(s.vocab_size))
        rows.append((model.key, *counts, *kinds))
    print_table(header, rows, text=("name", "heads", "MLP"))
    say("Heads: of queries/of keys and values, or latent values; MLP: inner values, experts visited of all.")


def _mixers(shape: Decoder) -> str:
    """What mixes tokens, the most frequent kind first."""
    from perfmodel.catalog.decoder import LatentAttention, Recurrent, SelfAttention

    words: dict[str, int] = {}
    for count, part in shape.parts:
        if isinstance(part, SelfAttention):
            name = f"{part.heads}/{part.kv_heads}"
        elif isinstance(part, LatentAttention):
            name = f"{part.heads}, latent {part.rank}+{part.rope_dim}"
        elif isinstance(part, Recurrent):
            name = "recurrent"
        else:
            continue
        words[name] = words.get(name, 0) + count
    return "; ".join(sorted(words, key=lambda name: -words[name]))


def _inner(shape: Decoder) -> str:
    """Sizes of MLPs and experts, the most frequent kind first."""
    from perfmodel.catalog.decoder import Experts, Mlp

    words: dict[str, int] = {}
    for count, part in shape.parts:
        if isinstance(part, Mlp):
            words[str(part.size)] = words.get(str(part.size), 0) + count
        elif isinstance(part, Experts):
            name = f"{part.per_token} of {part.count} x {part.size}"
            words[name] = words.get(name, 0) + count
    return "; ".join(sorted(words, key=lambda name: -words[name]))


def formats(
    context: typer.Context,
    m: Annotated[int, typer.Option(min=1, max=LARGEST, help="Rows of the matrix.")] = 12288,
    k: Annotated[int, typer.Option(min=1, max=LARGEST, help="Columns of the matrix.")] = 12288,
    sparsity: Annotated[float, typer.Option(help="Fraction of zero weights, 0 to 1.")] = 0.8,
    gpu: Annotated[
        str, typer.Option(help="Add the time that DRAM sets at least on this GPU: a name, or a TOML file.")
    ] = "",
    n: Annotated[int, typer.Option(min=1, max=LARGEST, help="Tokens of that product.")] = 8,
) -> None:
    """List the weight formats: size at a sparsity, and where each breaks even with dense FP16."""
    if not gpu:
        refuse_idle(context, "without --gpu", "n")

    from perfmodel.catalog import load_gpu
    from perfmodel.formats import break_even_sparsity
    from perfmodel.kernels.registry import FORMATS  # with those of LSCD_KERNELS
    from perfmodel.roofline import memory_time_floor

    card = load_gpu(gpu) if gpu else None
    shown = {}
    for name, fmt in FORMATS.items():
        start = break_even_sparsity(fmt, FORMATS["dense"], m, k) if fmt.depends_on_sparsity else None
        even = "-" if start is None else f"{start:.3f}"
        bits = float(fmt.bits_per_weight(m, k, sparsity))
        size = float(fmt.bytes(m, k, sparsity)) / 1e6
        floor = () if card is None else (f"{float(memory_time_floor(fmt, card, m, k, n, sparsity)) * 1e6:.1f}",)
        shown[name] = (name, f"{bits:.2f}", f"{size:.1f}", *floor, even, "yes" if fmt.lossless else "no", fmt.title)
    floors = () if card is None else (("us at least,", f"N = {n}"),)
    above, header = zip(*(*FORMAT_SIZES, *floors, *FORMAT_WORDS), strict=True)
    rows: list[tuple[str, ...]] = [header]
    for change in WEIGHTS:
        alike = [row for name, row in shown.items() if FORMATS[name].change == change]
        rows += [(f"{change}:", *[""] * (len(header) - 1)), *alike]
    print_table(above, rows, text=("", "FP16"))
    say("What becomes of the weights stands above each group. For bsr the sparsity is that of whole blocks.")


@kernels.command("list")
def list_kernels(as_json: AsJson = False) -> None:
    """List the modelled kernels, one a line, name first; those of your own file (LSCD_KERNELS) last."""
    from perfmodel.kernels import KERNELS
    from perfmodel.kernels.rivals import NOT_MEASURED, standing

    header = ("name", "format", "N", "weights", "multiplies", "measured", "kernel")
    rows = []
    for name, model in KERNELS.items():
        measured = "no" if standing(model) == NOT_MEASURED else "yes"
        about = (model.supported_n, model.format.change, model.multiplies, measured, model.title)
        rows.append((name, model.format_name, *about))
    if as_json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=2))
        return
    print_table(header, rows, text=header)
