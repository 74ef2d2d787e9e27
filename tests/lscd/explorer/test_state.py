"""Links of the explorer: they hold the whole state, and broken ones say why."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lscd.explorer.state import HOST_KEYS, MATRICES, PRESETS, State, linked, preset, system_names
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
        ("model=../../etc/passwd", "unknown model '../../etc/passwd'"),
        ("system=fastertransformer%2B../x", "unknown kernel or format '../x'"),
        ("sparsity=1.01", "sparsity must lie in [0, 1], got 1.01"),
        ("sparsity=-0.1", "sparsity must lie in [0, 1], got -0.1"),
        ("sparsity=nan", "sparsity must lie in [0, 1], got nan"),
        ("sparsity=1e400", "sparsity must lie in [0, 1], got inf"),
        ("sparsity=<script>", "sparsity must be a number, got '<script>'"),
        ("batch=0", "batch must be a whole number from 1 to 1,099,511,627,776, got 0"),
        ("input_len=-5", "input_len must be a whole number from 1 to"),
        (f"output_len=1{'0' * 4000}", "output_len must be a whole number from 1 to"),
        (f"gpus=1{'0' * 5000}", "gpus must be a whole number, got '1000"),
        ("gpu=%00%1b[31m", "unknown gpu '\\x00\\x1b[31m'"),
        ("batch[]=1", "unknown setting 'batch[]': did you mean batch"),
    ],
)
def test_broken_links_say_what_is_wrong(query: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        State.from_query(query)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("batch", True),
        ("batch", 1.5),
        ("batch", "4"),
        ("batch", [4]),
        ("batch", 2**40 + 1),
        ("sparsity", "0.5"),
        ("sparsity", [0.5]),
        ("sparsity", True),
        ("sparsity", 10**400),
        ("gpu", 1),
        ("system", ["flash-llm"]),
        ("model", {}),
        ("matrix", "x" * 10**6),
    ],
)
def test_values_of_another_kind_are_no_state(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{setting} must ") as refused:
        State(**{setting: value})
    assert len(str(refused.value)) < 120


WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["nan", "inf", "1e400", "-1", "0", "1_0", "٣", "../../etc/passwd", "/etc/passwd", "<script>", "\0\r\n"]
    ),
    st.sampled_from(["x" * 10**5, "9" * 5000, "1e" + "9" * 400, "{}", "[]", "null", "fastertransformer+int4", "%ff"]),
    st.floats().map(str),
    st.integers().map(str),
)
KEYS = st.one_of(st.sampled_from([*vars(State()), *HOST_KEYS, "batch[]", "__class__", ""]), st.text(max_size=8))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(KEYS, WORDS), max_size=5))
def test_any_link_is_a_state_or_a_sentence(pairs: list[tuple[str, str]]) -> None:
    query: dict[str, Any] = {}
    for key, value in pairs:
        query.setdefault(key, []).append(value)
    state, remark = linked(query)
    assert State.from_query(state.to_query()) == state
    if remark:
        assert state == State()
        assert re.fullmatch(r"The link cannot be used: [^\x00-\x1f]+\. Defaults are shown\.", remark)
        assert len(remark) < 3000  # names of models are many
    else:
        asked = {key: values[-1] for key, values in query.items() if key not in HOST_KEYS}
        assert state == State.from_query(asked)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("latin-1")), st.lists(WORDS).map("&sparsity=".join)))
def test_any_text_is_a_query_or_refused(query: str) -> None:
    with suppress(ValueError):
        assert State.from_query(query).to_query()


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
