"""How a product is called: launch mode, cache state, split-K."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel import predict
from perfmodel.catalog.specs import Bound
from perfmodel.kernels.call import STREAM_LAUNCH_S, Call, cyclic_misses

SMALL = {"m": 4096, "k": 4096, "n": 8}
LARGE = {"m": 36864, "k": 9216, "n": 8}


def test_a_graph_saves_the_launch() -> None:
    for kernel in ("cublas", "flash-llm", "bitmap", "sputnik", "macko"):
        case = LARGE | ({"n": 1} if kernel == "macko" else {})
        stream, graph = (predict(kernel, "h100", **case, sparsity=0.6, launch=mode) for mode in ("stream", "graph"))
        assert float(stream.time_s - graph.time_s) == pytest.approx(STREAM_LAUNCH_S, rel=1e-6)


def test_warm_calls_are_faster_only_where_the_l2_holds_the_weights() -> None:
    """33 MB of weights stay in an RTX 4090's 72 MB, not in an RTX 3090's 6; 680 MB stay nowhere."""

    def gain(gpu: str, case: dict[str, int]) -> float:
        cold, warm = (predict("cublas", gpu, **case, cache=cache) for cache in ("cold", "warm"))
        assert not cold.resident
        return float(cold.time_s / warm.time_s)

    assert gain("rtx-4090", SMALL) > 1.4
    assert gain("rtx-3090", SMALL) == pytest.approx(1, abs=0.01)
    assert gain("rtx-4090", LARGE) == pytest.approx(1, abs=1e-3)
    warm = predict("cublas", "rtx-4090", **SMALL, cache="warm")
    assert warm.resident
    assert warm.bound.item() is Bound.L2
    assert predict("cublas", "rtx-4090", **SMALL).bound.item() is Bound.MEMORY


def test_misses_of_a_cycle() -> None:
    """Nothing misses in the cache, ``1 - m = exp(-m x)`` beyond, everything far beyond."""
    x = np.array([0.3, 1.0, 1.1, 1.5, 2.0, 4.0, 100.0])
    miss = cyclic_misses(x)
    assert (miss[:2] == 0).all()
    np.testing.assert_allclose(1 - miss[2:], np.exp(-miss[2:] * x[2:]), atol=1e-12)
    assert miss[4] == pytest.approx(0.7968, abs=1e-4)
    assert miss[-1] == pytest.approx(1)
    assert (np.diff(miss) >= 0).all()


def test_a_stated_split_counts() -> None:
    """Partial sums of a large output are written and read again."""
    wide = {"m": 16384, "k": 4096, "n": 1024, "sparsity": 0.5}
    for kernel in ("flash-llm", "bitmap", "lscd-bitmap"):
        one, seven = (predict(kernel, "rtx-a6000", **wide, split_k=ways) for ways in (1, 7))
        assert seven.time_s > one.time_s
    same = [predict("cublas", "rtx-a6000", 16384, 4096, 1024, split_k=ways).time_s for ways in (None, 7)]
    assert same[0] == same[1]


def test_columns_of_calls_broadcast() -> None:
    p = predict(
        "cublas", "h100", 4096, 4096, [8, 8, 8], launch=["stream", "graph", "graph"], cache=["cold", "cold", "warm"]
    )
    assert p.time_s.shape == (3,)
    assert p.time_s[0] > p.time_s[1] >= p.time_s[2]
    both = predict("fp8", "h100", 4096, 4096, 8, activations=["fp16", "quantised"])
    alone = [predict("fp8", "h100", 4096, 4096, 8, activations=kind).time_s for kind in ("fp16", "quantised")]
    assert list(both.time_s) == alone


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"launch": "grid"}, "launch is 'grid', allowed are stream, graph"),
        ({"cache": ["cold", "hot"]}, "cache is 'hot', allowed are cold, warm"),
        ({"launch": b"graph"}, "launch is b'graph', allowed are stream, graph"),
        ({"activations": "int8"}, "activations is 'int8', allowed are fp16, quantised"),
        ({"split_k": 0}, "split_k is 0, allowed is a whole number from 1 to"),
        ({"split_k": 2.5}, "split_k is 2.5, allowed"),
    ],
)
def test_bad_calls_are_refused(how: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Call.of(**how)  # type: ignore[arg-type]
