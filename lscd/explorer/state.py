"""What the page is about: the reader's choices, as a record that fits into a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from urllib.parse import parse_qsl, urlencode

from perfmodel.catalog import gpu_names, has_gpu, has_model, model_names
from perfmodel.catalog.names import unknown_name
from perfmodel.serving.contenders import hosted_systems
from perfmodel.serving.systems import ENGINES, HOST, SYSTEMS, VLLM, load_system

MOST = 2**40  # the models' largest whole number
LONGEST_NAME = 100  # characters
SHOWN = 40  # characters that a sentence repeats of what it does not know
HOST_KEYS = {"file", "session_id", "access_token", "view-as", "show-chrome", "kiosk"}  # marimo's own in the address
BOUNDS = ("coo", "int4-2:4", "gqsa-w4s50")  # formats whose kernel nobody modelled: as if cuBLAS read their bytes
DENSE = "dense"
PAPERS = "flash-llm"  # the paper's kernel, and its system: FasterTransformer with it
LARGEST = "largest"  # matrix of a layer that can be pruned
CARD = ("bandwidth", "sms", "clock", "l2", "memory", "price")  # factors on the card's own numbers
LEAST_FACTOR, MOST_FACTOR = 0.25, 4.0
LIMITS = ("ttft_ms", "tpot_ms")
YES_NO = {"true": True, "false": False}


def engine_names() -> tuple[str, ...]:
    """Engines the page offers, those of today first."""
    return (*ENGINES, *(name for name in SYSTEMS if name != PAPERS))


def format_names(*, unmeasured: bool = False) -> tuple[str, ...]:
    """Kernels and formats that any engine may read weights with; those that nobody wrote or measured only if asked."""
    return (DENSE, *hosted_systems(VLLM, unmeasured).values(), *BOUNDS * unmeasured)


def joined(engine: str, name: str) -> str:
    """The system of an engine and what it reads weights with."""
    if name == DENSE:
        return engine
    return PAPERS if (engine, name) == (HOST, PAPERS) else f"{engine}+{name}"


def parted(system: str) -> tuple[str, str]:
    """Engine of a system, and what it reads weights with."""
    engine, _, name = system.partition("+")
    return (HOST, PAPERS) if system == PAPERS else (engine, name or DENSE)


@dataclass(frozen=True)
class State:
    """One question to the models.

    Attributes
    ----------
    model, gpu, system : str
        Names in the catalogue, and of `load_system`.
    gpus : int
        GPUs that share the model (tensor parallelism).
    sparsity : float
        Fraction of zeros in the pruned matrices.
    batch : int
        Sequences decoded together; the N of every matrix product.
    input_len, output_len : int
        Tokens of each prompt, tokens generated for it.
    matrix : str
        The weight matrix of a layer whose kernel times are shown; `LARGEST` for the largest that can be pruned.
    unmeasured : bool
        Whether kernels and formats are shown that nobody has written or measured.
    served : bool
        Whether throughput against latency is that of a loaded server, the batch being its users.
    ttft_ms, tpot_ms : int
        Milliseconds to the first token and between tokens that count as good, at most.
    bandwidth, sms, clock, l2, memory, price : float
        Factors on the card's own numbers (`perfmodel.catalog.altered`).
    """

    model: str = "opt-30b"
    gpu: str = "a100-80gb"
    gpus: int = 1
    system: str = "flash-llm"
    sparsity: float = 0.8
    batch: int = 16
    input_len: int = 64
    output_len: int = 512
    matrix: str = LARGEST
    unmeasured: bool = False
    served: bool = False
    ttft_ms: int = 10_000
    tpot_ms: int = 200
    bandwidth: float = 1.0
    sms: float = 1.0
    clock: float = 1.0
    l2: float = 1.0
    memory: float = 1.0
    price: float = 1.0

    def __post_init__(self) -> None:
        """Refuse unknown names and numbers out of range; the models check what goes together."""
        for field in fields(self):
            _check(field.name, getattr(self, field.name), type(field.default))
        load_system(self.system)
        if not has_model(self.model):
            raise ValueError(unknown_name("model", self.model, model_names()))
        if not has_gpu(self.gpu):
            raise ValueError(unknown_name("gpu", self.gpu, gpu_names()))

    @classmethod
    def from_query(cls, query: str | Mapping[str, str]) -> State:
        """State of a URL query; what is left out keeps its default.

        Parameters
        ----------
        query
            ``"gpu=h100&batch=32"``, with or without ``?``, or the same as a mapping.

        Raises
        ------
        ValueError
            Unknown keys or names (the nearest is offered), values that are no numbers.
        """
        pairs = dict(parse_qsl(query.lstrip("?"), keep_blank_values=True)) if isinstance(query, str) else query
        defaults = asdict(cls())
        values: dict[str, object] = {}
        for key, text in pairs.items():
            if key not in defaults:
                raise ValueError(unknown_name("setting", _short(key), defaults))
            values[key] = _parse(key, text, type(defaults[key]))
        return cls(**{**defaults, **values})

    def to_query(self) -> str:
        """The state as a URL query, every setting spelled out so that a link outlives a change of defaults."""
        return urlencode({field.name: _spelled(getattr(self, field.name)) for field in fields(self)})

    @property
    def factors(self) -> dict[str, float]:
        """Those on the card's own numbers."""
        return {name: getattr(self, name) for name in CARD}


def _spelled(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _parse(key: str, text: str, kind: type) -> object:
    if kind is str:
        return text.replace(" ", "+")  # a plus that somebody typed reads as a space in a URL; no name has one
    if kind is bool:
        if text.lower() not in YES_NO:
            raise ValueError(f"{key} must be {' or '.join(YES_NO)}, got {_short(text)!r}")
        return YES_NO[text.lower()]
    try:
        return kind(text)
    except ValueError:
        allowed = "a whole number" if kind is int else "a number"
        raise ValueError(f"{key} must be {allowed}, got {_short(text)!r}") from None


def _check(name: str, value: object, kind: type) -> None:
    """Refuse what no page can show: another type, a number out of range, a text longer than any name."""
    if kind is str:
        good, allowed = isinstance(value, str) and len(value) <= LONGEST_NAME, "be a name"
    elif kind is bool:
        good, allowed = isinstance(value, bool), "be true or false"
    elif kind is int:
        good = isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= MOST
        allowed = f"be a whole number from 1 to {MOST:,}"
    else:
        low, high = (LEAST_FACTOR, MOST_FACTOR) if name in CARD else (0, 1)
        good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        allowed = f"lie in [{low:g}, {high:g}]"
    if not good:
        raise ValueError(f"{name} must {allowed}, got {_short(repr(value))}")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


PINNED = "pinned"  # key of the address that holds the state compared with, as a query of its own


@dataclass(frozen=True)
class Address:
    """What a link holds: a state, the one it is compared with, and why another could not be used."""

    state: State
    pinned: State | None = None
    remark: str = ""


def linked(query: Mapping[str, str | list[str]]) -> Address:
    """Of a page's address: `opening` if it asks nothing, the default where it is unusable, and why.

    Of a repeated key the last value counts.
    """
    own = {key: v if isinstance(v, str) else v[-1] for key, v in query.items() if key not in HOST_KEYS}
    if not own:
        return Address(opening())
    pinned = own.pop(PINNED, "")
    try:
        return Address(State.from_query(own), State.from_query(pinned) if pinned else None)
    except ValueError as error:
        return Address(State(), remark=f"The link cannot be used: {error}. Defaults are shown.")


@dataclass(frozen=True)
class Preset:
    """A state worth looking at, with a title that says why."""

    title: str
    state: State


PRESETS: dict[str, Preset] = {
    "llama-70b-h100": Preset(
        "Llama 70B on two H100",
        State("llama-3.1-70b", "h100", 2, "vllm+two-four", sparsity=0.5, input_len=1024, output_len=256),
    ),
    "llama-8b-at-home": Preset(
        "Llama 8B on your RTX 4090",
        State("llama-3.1-8b", "rtx-4090", 1, "vllm+int4", sparsity=0.5, batch=1, input_len=512),
    ),
    "experts-h200": Preset(
        "Experts: Qwen3 30B on an H200",
        State("qwen3-30b-a3b", "h200", 1, "vllm+fp8", sparsity=0.5, batch=32, input_len=1024, output_len=256),
    ),
    "deepseek-h200": Preset(
        "DeepSeek-V3 on eight H200",
        State("deepseek-v3", "h200", 8, "vllm+fp8-block", sparsity=0.5, batch=64, input_len=1024),
    ),
    "opt-30b-one-gpu": Preset("The paper: OPT-30B on one A100", State()),
    "opt-66b-two-gpus": Preset("OPT-66B on two A100", State(model="opt-66b", gpus=2, batch=64)),
    "opt-175b-four-gpus": Preset("OPT-175B on four A100", State(model="opt-175b", gpus=4, batch=32)),
    "too-big": Preset(
        "Too big: OPT-66B, dense, on one A100", State(model="opt-66b", system="fastertransformer", sparsity=0.0)
    ),
}  # fmt: skip


def opening() -> State:
    """What is shown where nothing is asked."""
    return next(iter(PRESETS.values())).state


def preset(name_or_query: str) -> State:
    """State of a preset's name, or of a URL query.

    Raises
    ------
    ValueError
        If it is neither; a name without ``=`` is looked up among the presets.
    """
    if "=" in name_or_query:
        return State.from_query(name_or_query)
    if name_or_query not in PRESETS:
        raise ValueError(unknown_name("preset", name_or_query, PRESETS))
    return PRESETS[name_or_query].state
