"""What several rooms' tests look at."""

from __future__ import annotations

import pandas as pd
import pytest

from perfmodel.evidence.validation import join_predictions


@pytest.fixture(scope="module")
def joined() -> pd.DataFrame:
    return join_predictions()
