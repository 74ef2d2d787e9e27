"""A spec keeps what it says, or is refused with the remedy."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.sweep import Plan, run
from perfmodel.sweep.spec import LIMIT_POINTS, Spec
from perfmodel.sweep.table import parsed_facts
from tests.perfmodel.sweep.cases import AXES, plan, swept


def test_constraints_keep_what_they_say(tmp_path: Path) -> None:
    everything = swept(plan("e2e"), tmp_path / "all.parquet")
    limits = {"fits": True, "tpot_ms": {"max": 30.0}, "batch": {"min": 8}}
    kept = swept(plan("e2e", constraints=limits), tmp_path / "kept.parquet")
    wanted = everything[everything["fits"] & (everything["tpot_ms"] <= 30) & (everything["batch"] >= 8)]
    assert 0 < len(kept) < len(everything)
    pd.testing.assert_frame_equal(kept, wanted.reset_index(drop=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": {"sparsty": [0.5]}}, "unknown axis 'sparsty': did you mean sparsity"),
        ({"axes": {"n": None}}, "missing axis n"),
        ({"axes": {"m": []}}, "axis m is empty"),
        ({"axes": {"kernel": []}}, "axis kernel is empty"),
        ({"axes": {"sparsity": [80]}}, "did you mean 0.8"),
        ({"axes": {"m": [1.5]}}, "axis m holds 1.5, allowed is a whole number from 1"),
        ({"axes": {"m": [0]}}, "axis m holds 0"),
        ({"axes": {"m": ["big"]}}, "axis m must hold numbers"),
        ({"axes": {"m": [float("nan")]}}, "axis m holds nan"),
        ({"axes": {"gpu": ["a100"]}}, "unknown GPU 'a100': did you mean"),
        ({"axes": {"gpu": [3]}}, "axis gpu holds 3"),
        ({"axes": {"n": {"start": 8, "stop": 1, "step": 1}}}, "start <= stop"),
        ({"axes": {"n": {"start": 1, "stop": 8}}}, "axis n is a list, {start, stop, step}"),
        ({"axes": {"n": {"log_start": 0, "log_stop": 8, "count": 3}}}, "0 < log_start"),
        ({"axes": {"n": {"start": 1, "stop": 1e12, "step": 1}}}, "allowed are at most 1,000,000"),
        ({"axes": {"dram_bandwidth_scale": [0]}}, "allowed is a factor from 1e-06 to 1,000,000"),
        ({"axes": {"clock_scale": [1e300]}}, "axis clock_scale holds 1e.300, allowed is a factor from"),
        ({"axes": {"m": [float("inf")]}}, "axis m holds inf"),
        ({"axes": {"m": [10**400]}}, "axis m holds inf"),
        ({"axes": {"m": [-(10**5000)]}}, "axis m holds -inf"),
        ({"axes": {"m": [10**5000, "x"]}}, "axis m must hold numbers, got a number of thousands of digits"),
        ({"axes": {"m": {"start": 1e308, "stop": 1e308, "step": 1}}}, "axis m holds 1e.308, allowed"),
        ({"axes": {"m": {"start": 1, "stop": 2, "step": float("inf")}}}, "a step above 0"),
        ({"axes": {"m": {"log_start": 1, "log_stop": 1e308, "count": 3}}}, "axis m holds 1e.308, allowed"),
        ({"axes": {"m": {"log_start": 1, "log_stop": 8, "count": float("inf")}}}, "allowed are at most 1,000,000"),
        ({"zipped": [{"m": [1, 2]}]}, "axis m is given twice"),
        ({"zipped": [{"dram_bandwidth_scale": [1, 2], "clock_scale": [1]}]}, "equally long"),
        ({"sweep": {"target": "predikt"}}, "unknown target 'predikt': did you mean predict"),
        ({"sweep": {"columns": ["time_ms"]}}, "unknown result column 'time_ms': did you mean time_us"),
        ({"sweep": {"columns": 5}}, "columns is 5, allowed is a list of names of n_padded"),
        ({"sweep": {"columns": [["time_us"]]}}, "columns is .*, allowed is a list of names"),
        ({"sweep": {"columns": ["time_us", "time_us"]}}, "columns names time_us twice"),
        ({"constraints": {"time_us": {"min": [1]}}}, "constraint time_us is"),
        ({"axes": {"split_k": [2**31]}}, "a whole number from 1 to 2,147,483,647"),
        ({"sweep": {"columns": True}}, "columns is True, allowed is a list of names"),
        ({"sweep": {"columns": [[[["time_us"]]]]}}, "columns is .*, allowed is a list of names"),
        ({"sweep": {"title": 1979}}, "title is 1979, allowed is a text"),
        ({"constraints": {"time_us": {"max": float("inf")}}}, "constraint time_us is .* finite"),
        ({"sweep": {"out": "x"}}, "unknown key of .sweep. 'out'"),
        ({"axis": {}}, "unknown table 'axis': did you mean axes"),
        ({"constraints": {"fits": True}}, "unknown constraint 'fits'"),
        ({"constraints": {"time_us": {"min": 2, "max": 1}}}, "constraint time_us is"),
        ({"constraints": {"extrapolated": {"max": 1}}}, "allowed is true or false"),
        ({"constraints": {"possible": "yes"}}, "possible is 'yes'"),
    ],
)
def test_a_wrong_spec_is_refused_with_the_remedy(change: dict[str, Any], message: str) -> None:
    parsed: dict[str, Any] = {"sweep": {"target": "predict"}, "axes": dict(AXES), "constraints": {}}
    for table, values in change.items():
        parsed[table] = parsed.get(table, {}) | values if isinstance(values, dict) else values
    parsed["axes"] = {axis: value for axis, value in parsed["axes"].items() if value is not None}
    with pytest.raises(ValueError, match=message):
        Spec.of(parsed)


def test_many_points_need_a_yes(tmp_path: Path) -> None:
    large = plan(axes=AXES | {"sparsity": {"start": 0, "stop": 1, "step": 1e-5}})
    assert large.spec.grid.points > LIMIT_POINTS
    with pytest.raises(ValueError, match=rf"{large.spec.grid.points:,} points, more than 20,000,000; .* --yes"):
        run(large, tmp_path / "out.parquet")
    vast = plan(axes=AXES | {axis: {"start": 1, "stop": 10**6, "step": 1} for axis in ("m", "k", "n")})
    with pytest.raises(ValueError, match=r"points, allowed are at most 100,000,000,000"):
        run(vast, tmp_path / "out.parquet", yes=True)
    assert not list(tmp_path.iterdir())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from(["sweep", "axes", "zipped", "constraints", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["all", "predict", "h100"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from([*AXES, "target", "columns", "start", "stop", "step", "max"]), inner)
            ),
            max_leaves=8,
        ),
    ),
    st.booleans(),
)
def test_any_spec_is_a_plan_or_a_sentence(parsed: dict[str, Any], real: bool) -> None:
    if real:  # right but for what is drawn over it
        whole = {"sweep": {"target": "predict"}, "axes": dict(AXES), "constraints": {}}
        parsed = {
            key: whole.get(key, {}) | value if isinstance(value, dict) else value for key, value in parsed.items()
        }
        parsed = whole | parsed
    with suppress(ValueError):
        made = Plan.of(parsed)
        assert parsed_facts(made.identity.encode())["points"] == made.spec.grid.points
