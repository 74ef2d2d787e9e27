"""Links of the explorer: they hold the whole state, and broken ones say why."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lscd.explorer.state import MATRICES, PRESETS, State, preset, system_names
from perfmodel.catalog import gpu_names, model_names


@settings(max_examples=50, deadline=None)
@given(
    model=st.sampled_from(model_names()),
    gpu=st.sampled_from(gpu_names()),
    system=st.sampled_from(system_names()),
    matrix=st.sampled_from(MATRICES),
    sparsity=st.floats(0, 1),
    batch=st.integers(1, 10**6),
)
def test_a_link_holds_the_whole_state(**settings_: Any) -> None:
    state = State(**settings_)
    assert State.from_query(state.to_query()) == state
    assert State.from_query("?" + state.to_query()) == state


def test_a_link_may_leave_out_settings_and_carry_a_bare_plus() -> None:
    assert State.from_query("") == State()
    assert State.from_query("system=fastertransformer+bitmap&batch=4") == State(
        system="fastertransformer+bitmap", batch=4
    )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("gpu=h10", "did you mean h100"),
        ("model=opt", "unknown model"),
        ("system=flashllm", "did you mean flash-llm"),
        ("matrix=mlp", "did you mean mlp-in"),
        ("batch=many", "batch must be a whole number, got 'many'"),
        ("batch=1.5", "batch must be a whole number"),
        ("sparsity=", "sparsity must be a number, got ''"),
        ("sparsty=0.5", "unknown setting 'sparsty': did you mean sparsity"),
        ("gpu=/etc/passwd.toml", "unknown gpu"),
    ],
)
def test_broken_links_say_what_is_wrong(query: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        State.from_query(query)


def test_presets_are_names_or_queries() -> None:
    assert preset("too-big") == PRESETS["too-big"]
    assert preset("gpu=h100&batch=32") == State(gpu="h100", batch=32)
    with pytest.raises(ValueError, match="did you mean too-big"):
        preset("to-big")


def test_the_list_of_systems_is_short_and_a_link_may_name_any() -> None:
    names = system_names()
    assert len(names) == len(set(names)) < 30
    assert {"flash-llm", "fastertransformer+two-four", "fastertransformer+fp8", "fastertransformer+coo"} <= set(names)
    assert "fastertransformer+flash-llm" not in names
    assert State.from_query("system=fastertransformer+lscd-bitmap").system == "fastertransformer+lscd-bitmap"
    with pytest.raises(ValueError, match="only a lower bound"):
        State.from_query("system=fastertransformer+cusparse")
