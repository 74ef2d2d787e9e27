"""The timeline: two buffers in turn, and a trace that Perfetto reads."""

from __future__ import annotations

import json

import pytest

from perfmodel.pipeline import simulate
from perfmodel.pipeline.timeline import perfetto_trace, timeline
from tests.perfmodel.pipeline.cases import SHAPE


def test_trace_is_what_perfetto_reads(tmp_path):
    result = simulate("flash-llm", "a100-80gb", *SHAPE, 8, 0.8)
    trace = json.loads(json.dumps(perfetto_trace(result), allow_nan=False))
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert {event["pid"] for event in spans} == {0, 1}
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in spans)
    assert max(e["ts"] + e["dur"] for e in spans) == pytest.approx(result.kernel_s * 1e6, rel=0.05)
    names = {event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert {"clear", "load", "multiply", "scatter"} <= names


def test_timeline_uses_two_buffers_in_turn():
    table = timeline(simulate("flash-llm", "a100-80gb", *SHAPE, 8, 0.8))
    scatter = table[(table["stage"] == "scatter") & (table["block"] == table["block"].min())]
    assert scatter["buffer"].tolist() == [tile % 2 for tile in scatter["tile"]]
    product = table[(table["stage"] == "mma 3") & (table["block"] == table["block"].min())]
    together = scatter.merge(product, on="tile", suffixes=("", "_product"))
    assert len(together) == len(scatter)
    assert (together["end_cycles"] <= together["begin_cycles_product"]).all()
