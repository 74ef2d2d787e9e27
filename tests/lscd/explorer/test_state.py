"""Links of the explorer: they hold the whole state, and broken ones say why."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lscd.explorer.state import (
    CARD,
    DENSE,
    HOST_KEYS,
    LARGEST,
    PAPERS,
    PINNED,
    PRESETS,
    Address,
    State,
    engine_names,
    format_names,
    joined,
    linked,
    opening,
    parted,
    preset,
)
from lscd.explorer.view import view
from perfmodel.catalog import gpu_names, load_model, model_names
from perfmodel.serving.transformer import layer_matrices
from tests.lscd.explorer.cases import SYSTEMS

FACTORS = st.floats(0.25, 4)
STATES = st.builds(
    State,
    model=st.sampled_from(model_names()),
    gpu=st.sampled_from(gpu_names()),
    system=st.sampled_from(SYSTEMS),
    matrix=st.sampled_from([LARGEST, "mlp-in", "qkv"]),
    sparsity=st.floats(0, 1),
    unmeasured=st.booleans(),
    served=st.booleans(),
    **{name: st.integers(1, 10**6) for name in ("gpus", "batch", "input_len", "output_len", "ttft_ms", "tpot_ms")},
    **{name: FACTORS for name in CARD},
)


@settings(max_examples=50, deadline=None)
@given(STATES)
def test_a_link_holds_the_whole_state(state: State) -> None:
    assert State.from_query(state.to_query()) == state
    assert State.from_query("?" + state.to_query()) == state


@settings(max_examples=30, deadline=None)
@given(STATES, st.none() | STATES)
def test_an_address_holds_the_pinned_state_too(state: State, pinned: State | None) -> None:
    query = dict(parse_qsl(state.to_query()))
    if pinned is not None:
        query[PINNED] = pinned.to_query()
    assert linked(dict(parse_qsl(urlencode(query)))) == Address(state, pinned)


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
        ("unmeasured=yes", "unmeasured must be true or false, got 'yes'"),
        ("served=", "served must be true or false, got ''"),
        ("served=1", "served must be true or false, got '1'"),
        ("bandwidth=0.2", "bandwidth must lie in [0.25, 4], got 0.2"),
        ("price=nan", "price must lie in [0.25, 4], got nan"),
        ("sms=4.01", "sms must lie in [0.25, 4], got 4.01"),
        ("l2=much", "l2 must be a number, got 'much'"),
        ("ttft_ms=0", "ttft_ms must be a whole number from 1 to"),
        ("tpot_ms=0.5", "tpot_ms must be a whole number, got '0.5'"),
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
        ("unmeasured", 1),
        ("unmeasured", "true"),
        ("served", None),
        ("clock", "1"),
        ("memory", True),
        ("ttft_ms", 0),
        ("tpot_ms", True),
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
KEYS = st.one_of(st.sampled_from([*vars(State()), *HOST_KEYS, PINNED, "batch[]", "__class__", ""]), st.text(max_size=8))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(KEYS, WORDS), max_size=5))
def test_any_link_is_a_state_or_a_sentence(pairs: list[tuple[str, str]]) -> None:
    query: dict[str, Any] = {}
    for key, value in pairs:
        query.setdefault(key, []).append(value)
    found = linked(query)
    state, remark = found.state, found.remark
    assert State.from_query(state.to_query()) == state
    if remark:
        assert found == Address(State(), remark=remark)
        assert re.fullmatch(r"The link cannot be used: [^\x00-\x1f]+\. Defaults are shown\.", remark)
        assert len(remark) < 3000  # names of models are many
    else:
        asked = {key: values[-1] for key, values in query.items() if key not in {*HOST_KEYS, PINNED}}
        nothing = not asked and PINNED not in query
        assert state == (opening() if nothing else State.from_query(asked))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("latin-1")), st.lists(WORDS).map("&sparsity=".join)))
def test_any_text_is_a_query_or_refused(query: str) -> None:
    with suppress(ValueError):
        assert State.from_query(query).to_query()


def test_presets_are_names_or_queries() -> None:
    assert preset("too-big") == PRESETS["too-big"].state
    assert preset("gpu=h100&batch=32") == State(gpu="h100", batch=32)
    with pytest.raises(ValueError, match="did you mean too-big"):
        preset("to-big")


def test_presets_have_titles_of_their_own_that_read_as_words() -> None:
    titles = [one.title for one in PRESETS.values()]
    assert len(set(titles)) == len({one.state for one in PRESETS.values()}) == len(PRESETS)
    assert all(re.match(r"[A-Z]\w+.* ", title) and len(title) < 40 for title in titles)
    assert not {one.state.system for one in PRESETS.values()} - {
        joined(engine, name) for engine in engine_names() for name in format_names()
    }, "only what somebody has measured"


def test_a_broken_pinned_state_breaks_the_link() -> None:
    found = linked({"batch": "4", PINNED: "batch=many"})
    assert found.state == State()
    assert found.pinned is None
    assert "batch must be a whole number, got 'many'" in found.remark


def test_engine_and_format_are_one_system_and_back() -> None:
    pairs = {(engine, name) for engine in engine_names() for name in format_names(unmeasured=True)}
    systems = {joined(*pair): pair for pair in pairs}
    assert len(systems) == len(pairs)
    assert all(parted(system) == pair for system, pair in systems.items())
    assert all(joined(*parted(system)) == system for system in (*systems, *SYSTEMS))
    assert all(State(system=system).system == system for system in systems)
    assert joined("fastertransformer", PAPERS) == PAPERS
    assert parted("vllm") == ("vllm", DENSE)


def test_the_lists_are_short_measured_and_a_link_may_name_any() -> None:
    names = format_names()
    assert len(names) == len(set(names)) < 20
    assert names[0] == DENSE
    assert {"flash-llm", "bitmap", "two-four", "fp8", "int4"} <= set(names)
    more = set(format_names(unmeasured=True)) - set(names)
    assert {"lscd-bitmap", "coo", "int4-2:4"} <= more
    assert len(set(engine_names())) == len(engine_names())
    assert State.from_query("system=fastertransformer+lscd-bitmap").system == "fastertransformer+lscd-bitmap"
    with pytest.raises(ValueError, match="only a lower bound"):
        State.from_query("system=fastertransformer+cusparse")


def test_a_matrix_that_the_model_lacks_is_refused_with_the_nearest() -> None:
    names = [matrix.name for matrix in layer_matrices(load_model("opt-30b").shape)]
    assert view(State(matrix=names[-1])).matrix.name == names[-1]
    with pytest.raises(ValueError, match="unknown matrix 'mlp-im': did you mean mlp-in"):
        view(State(matrix="mlp-im"))
