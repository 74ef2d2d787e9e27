"""What does each operator of a run cost, in the prefill of its prompts and in a mean step of decoding?

Operators of a phase follow each other, none beside another, so their times add up to the phase's; whoever waits (for
the host, for weights from elsewhere, for the first and last micro-batch of a pipeline) is an operator too. Phases are
streams of operators, so that a run of a million questions holds the arrays of one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from perfmodel.serving import passes
from perfmodel.serving.group import Group
from perfmodel.serving.transformer import Part
from perfmodel.serving.work import ZERO, Operator, Wait, merged

Array = NDArray[np.float64]
Load = tuple[Array, Array, Array, Array]  # sequences on a group, tokens of a prompt, tokens made for it, stages

HOST, ARRIVAL, FILL, DRAFT = "host", "weights-from-elsewhere", "pipeline-fill", "draft"


def prefill(group: Group, load: Load) -> Iterator[Operator]:
    """Operators until every sequence has its first token.

    As many micro-batches as stages follow each other through the pipeline; the last leaves after ``2 - 1/stages``
    passes.
    """
    batch, prompt, _, stages = load
    micro = np.ceil(batch / stages)
    n = micro * prompt
    one = chain(
        passes.products(group, n, micro),
        passes.prefill_attention(group, micro, prompt),
        passes.between(group, n, micro),
        passes.communication(group, n, micro),
        passes.handover(group, n, stages),
    )
    # A prompt is launched kernel by kernel: where the GPU is done before the host is, it waits.
    launched = _at_least(one, group.host.prefill_s, HOST, Wait.HOST)
    return _filled(_at_least(launched, passes.arrival_s(group, n), ARRIVAL, Wait.LINK), stages)


def decode(group: Group, load: Load) -> Iterator[Operator]:
    """Operators of a mean step, in which each sequence gets a token: context grows from the prompt to all but one.

    With a draft that is the share of a pass that one token takes.
    """
    batch, prompt, new, stages = load
    micro, what_if = np.ceil(batch / stages), group.what_if
    n = micro * (1 + what_if.draft_tokens)
    one = chain(
        passes.products(group, n, n),
        passes.decode_attention(group, micro, prompt, new),
        passes.between(group, n, micro),
        [Operator.waiting(HOST, Part.OTHER, group.host.step_s + group.host.sequence_s * micro, Wait.HOST)],
        passes.communication(group, n, n),
        passes.handover(group, n, stages),
    )
    arrived = _at_least(one, passes.arrival_s(group, n), ARRIVAL, Wait.LINK)
    if what_if.draft_tokens == 0:
        return arrived
    return (operator.scaled(1 / what_if.tokens_per_pass) for operator in chain(arrived, [_draft(group, micro)]))


def _draft(group: Group, n: Array) -> Operator:
    """All proposals of a pass: some layers of the model, on one token a sequence, and its logits, each time."""
    share = group.what_if.draft_layers / group.model.shape.layers
    layers = chain(passes.layer_products(group, n), passes.small_kernels(group, n, n))
    one = chain((operator.scaled(share) for operator in layers), passes.head_products(group, n))
    return merged(one, DRAFT, Part.OTHER).scaled(group.what_if.draft_tokens)


def _at_least(operators: Iterable[Operator], least_s: Array | float, name: str, what: Wait) -> Iterator[Operator]:
    """Operators, and what they wait at their end because something else takes ``least_s`` beside them."""
    taken: Array = ZERO
    for operator in operators:
        taken = taken + operator.time_s
        yield operator
    yield Operator.waiting(name, Part.OTHER, np.maximum(least_s - taken, 0.0), what)


def _filled(operators: Iterable[Operator], stages: Array) -> Iterator[Operator]:
    """Operators of a pass, and what a pipeline of ``stages`` idles while it fills and drains, part by part."""
    parts = dict.fromkeys(Part, ZERO)
    for operator in operators:
        parts[operator.part] = parts[operator.part] + operator.time_s
        yield operator
    if np.any(stages > 1):
        for part, seconds in parts.items():
            yield Operator.waiting(FILL, part, np.asarray((1 - 1 / stages) * seconds), Wait.IDLE)
