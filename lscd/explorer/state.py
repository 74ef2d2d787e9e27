"""What the page is about: the reader's choices, as a record that fits into a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from urllib.parse import parse_qsl, urlencode

from perfmodel.catalog import gpu_names, model_names
from perfmodel.catalog.names import unknown_name
from perfmodel.serving.contenders import hosted_systems
from perfmodel.serving.systems import HOST, SYSTEMS, load_system

MATRICES = ("qkv", "attention-output", "mlp-in", "mlp-out")
MOST = 2**40  # the models' largest whole number
LONGEST_NAME = 100  # characters
SHOWN = 40  # characters that a sentence repeats of what it does not know
HOST_KEYS = {"file", "session_id", "access_token", "view-as", "show-chrome", "kiosk"}  # marimo's own in the address
BOUNDS = ("coo", "int4-2:4", "gqsa-w4s50")  # formats whose kernel nobody modelled: as if cuBLAS read their bytes


def system_names() -> tuple[str, ...]:
    """Systems the page offers: the published, FasterTransformer with each measured kernel, and `BOUNDS`.

    A link may name any other that `load_system` knows.
    """
    return (*SYSTEMS, *hosted_systems(), *(f"{HOST}+{name}" for name in BOUNDS))


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
        The weight matrix whose kernel times are shown.
    """

    model: str = "opt-30b"
    gpu: str = "a100-80gb"
    gpus: int = 1
    system: str = "flash-llm"
    sparsity: float = 0.8
    batch: int = 16
    input_len: int = 64
    output_len: int = 512
    matrix: str = "mlp-in"

    def __post_init__(self) -> None:
        """Refuse unknown names and numbers out of range; the models check what goes together."""
        for field in fields(self):
            _check(field.name, getattr(self, field.name), type(field.default))
        load_system(self.system)
        offered = {"model": model_names(), "gpu": gpu_names(), "matrix": MATRICES}
        for name, known in offered.items():
            if getattr(self, name) not in known:
                raise ValueError(unknown_name(name, getattr(self, name), known))

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
        return urlencode({field.name: getattr(self, field.name) for field in fields(self)})


def _parse(key: str, text: str, kind: type) -> object:
    if kind is str:
        return text.replace(" ", "+")  # a plus that somebody typed reads as a space in a URL; no name has one
    try:
        return kind(text)
    except ValueError:
        allowed = "a whole number" if kind is int else "a number"
        raise ValueError(f"{key} must be {allowed}, got {_short(text)!r}") from None


def _check(name: str, value: object, kind: type) -> None:
    """Refuse what no page can show: another type, a number out of range, a text longer than any name."""
    if kind is str:
        good, allowed = isinstance(value, str) and len(value) <= LONGEST_NAME, "be a name"
    elif kind is int:
        good = isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= MOST
        allowed = f"be a whole number from 1 to {MOST:,}"
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
        allowed = "lie in [0, 1]"
    if not good:
        raise ValueError(f"{name} must {allowed}, got {_short(repr(value))}")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def linked(query: Mapping[str, str | list[str]]) -> tuple[State, str]:
    """State of an address, or the default and why the address is unusable; of a repeated key the last value counts."""
    own = {key: value for key, value in query.items() if key not in HOST_KEYS}
    try:
        return State.from_query({key: v if isinstance(v, str) else v[-1] for key, v in own.items()}), ""
    except ValueError as error:
        return State(), f"The link cannot be used: {error}. Defaults are shown."


PRESETS: dict[str, State] = {
    "opt-30b-one-gpu": State(),
    "opt-66b-two-gpus": State(model="opt-66b", gpus=2, batch=64),
    "opt-175b-four-gpus": State(model="opt-175b", gpus=4, batch=32),
    "llama-70b-h100": State(model="llama-3.1-70b", gpu="h100", gpus=2, sparsity=0.5, input_len=512),
    "llama-8b-at-home": State(
        model="llama-3.1-8b", gpu="rtx-4090", system="fastertransformer+bitmap", sparsity=0.5, batch=1
    ),
    "too-big": State(model="opt-66b", system="fastertransformer", sparsity=0.0),
}


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
    return PRESETS[name_or_query]
