"""What stands behind the answer to one question."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lscd.report.trust import question
from perfmodel import predict


def evidence(**columns: object) -> pd.DataFrame:
    """Two times of cuBLAS on an L4, one of which a fit saw."""
    rows = pd.DataFrame({"gpu": "l4", "kernel": "cublas", "m": 4096, "k": 4096, "n": [8, 64], "sparsity": 0.0})
    rows = rows.assign(launch="stream", resident=False, at_least=False, fitted=[False, True], error=[0.25, -0.01])
    return rows.assign(**columns)


def test_each_kernel_has_its_interval_and_the_evidence_of_its_card() -> None:
    found = question(evidence(), "l4", 4096, 4096, 48, 0.6)
    p = predict("cublas", "l4", 4096, 4096, 48)
    ends = [float(end) * 1e6 for end in (p.time_s, p.lo_s, p.hi_s)]
    assert found.loc["cublas", ["predicted [us]", "low", "high"]].to_list() == pytest.approx(ends, abs=0.06)
    assert found["predicted [us]"].is_monotonic_increasing, "fastest first"
    assert found.loc["cublas", "unseen rows here"] == 1, "what a fit saw does not judge it"
    assert found.loc["cublas", "mean error"] == "25.0 %"
    assert found.loc["cublas", "nearest"] == "4,096 x 4,096, N = 64, 0 % (-1%)"
    assert found.loc["flash-llm", ["unseen rows here", "mean error", "nearest"]].to_list() == [0, "", ""]
    assert found.loc["cusparse", "high"] == np.inf, "of which only a bound is known"


@pytest.mark.parametrize("other", [{"gpu": "l40s"}, {"kernel": "fp8"}])
def test_times_of_another_card_or_kernel_do_not_count(other: dict[str, object]) -> None:
    found = question(evidence(**other), "l4", 4096, 4096, 48, 0.6)
    assert (found.loc["cublas", "unseen rows here"], found.loc["cublas", "nearest"]) == (0, "")
