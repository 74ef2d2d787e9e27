"""Which matrices does a rule on module names mean? Rules of quantised checkpoints, turned into a format per matrix.

A rule names modules: plainly (``lm_head``; ``model.layers.0.self_attn`` is a whole part, ``gate`` ends a name), by
wildcards (``model.layers.*.self_attn``) or as ``re:`` and an expression that fits a name's beginning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate

from perfmodel.catalog.decoder import LM_HEAD, Decoder
from perfmodel.catalog.matrix_names import MODULES, PREFIXES, elsewhere, layer_of, matrix_counts

_EXPRESSION = re.compile(r"[\\^$|(+]")
_FLAGS = re.compile(r"^\(\?([aimsux]+)\)(.*)$", flags=re.DOTALL)


@dataclass(frozen=True)
class Names:
    """Module names that a configuration lists.

    plain : names as they stand; those in layers begin at ``layers.<i>``.
    pattern : all expressions and wildcards in one, None if there are none.
    """

    plain: frozenset[str]
    pattern: re.Pattern[str] | None

    def has(self, module: str, layer: int | None) -> bool:
        """Whether ``module`` of a ``layer``, e.g. ``mlp.down_proj``, is among them; None is outside layers."""
        words = module.split(".") if layer is None else ["layers", str(layer), *module.split(".")]
        parts = (".".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))
        if self.plain and any(part in self.plain for part in parts):
            return True
        if self.pattern is None:
            return False
        names = (module, f"language_model.{module}") if layer is None else (f"{p}{layer}.{module}" for p in PREFIXES)
        return any(self.pattern.match(name) for name in names)


@dataclass(frozen=True)
class Rules:
    """Formats by module name; None is 16 bits.

    rules : the first whose names hold a module counts.
    default : format of modules that no rule names.
    head : the same of the output head.
    """

    rules: tuple[tuple[Names, str | None], ...] = ()
    default: str | None = None
    head: str | None = None

    def explicit(self, module: str, layer: int | None) -> tuple[str | None] | None:
        """Format that a rule gives ``module``, in a tuple; None if none names it."""
        return next(((stored,) for names, stored in self.rules if names.has(module, layer)), None)


def names(listed: Iterable[str], key: str) -> Names:
    """The names of the list that stands at ``key``.

    Raises
    ------
    ValueError
        If an expression is none; the message names ``key`` and the expression.
    """
    plain, expressions = set(), []
    for name in listed:
        if name.startswith("re:"):
            expressions.append(_checked(name[3:], key))
        elif _EXPRESSION.search(name):
            expressions.append(_checked(name, key))
        elif any(sign in name for sign in "*?["):
            expressions += [translate(name), translate(f"{name}.*")]
        elif not elsewhere(name):
            plain.add(_from_layer(name.removesuffix(".weight")))
    joined = "|".join(f"(?:{expression})" for expression in expressions)
    return Names(frozenset(plain), re.compile(joined) if joined else None)


def formats_by_matrix(shape: Decoder, rules: Rules) -> dict[str, str]:
    """Format of each matrix of ``shape`` that is not stored in 16 bits.

    A matrix has one format: that of most layers which have it, 16 bits if as many say so. Where rules tell apart the
    modules of one matrix (Q, K and V), it has 16 bits if half of them do. Routers, indexers and other matrices that
    nobody prunes are always stored in 16 bits.
    """
    hidden = shape.hidden_size
    small = {p.name for block in shape.blocks for p in block.products(hidden) if not p.prunable}
    counts = {name: count for name, count in matrix_counts(shape).items() if name not in small}
    found = {name: _most(_votes(name, count, shape.layers, rules)) for name, count in counts.items()}
    head = max((rules.explicit(module, None) or () for (module,) in MODULES[LM_HEAD]), key=len)
    found[LM_HEAD] = head[0] if head else rules.head
    return {name: stored for name, stored in found.items() if stored is not None}


def _votes(matrix: str, count: int, layers: int, rules: Rules) -> Counter[str | None]:
    """Layers by the format they give ``matrix``, in the spelling that the rules speak of most."""
    if not rules.rules:
        return Counter({rules.default: count})
    named: list[str | None] = []
    for modules in MODULES.get(matrix, ((matrix,),)):
        found = [_of_layer(modules, layer, rules) for layer in range(layers)]
        named = max(named, [stored[0] for stored in found if stored], key=len)
    return Counter(named) + Counter({rules.default: max(count - len(named), 0)})


def _of_layer(modules: tuple[str, ...], layer: int, rules: Rules) -> tuple[str | None] | None:
    found = [rules.explicit(module, layer) for module in modules]
    if not any(found):
        return None
    return (_most(Counter(stored[0] if stored else rules.default for stored in found)),)


def _most(votes: Counter[str | None]) -> str | None:
    return max(votes, key=lambda stored: (votes[stored], stored is None))


def _checked(expression: str, key: str) -> str:
    expression = _FLAGS.sub(r"(?\1:\2)", expression)  # flags may stand only at the start of what is joined
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"{key} holds {expression!r}, allowed are regular expressions: {error}") from error
    return expression


def _from_layer(name: str) -> str:
    layer = layer_of(name)
    if layer is None:
        return name
    return f"layers.{layer}.{name.split(f'.{layer}.', 1)[1]}" if f".{layer}." in name else f"layers.{layer}"
