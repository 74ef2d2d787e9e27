"""Models on disk, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels_numba.decoder.models import CONFIGS, write_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("decoders")
    return {name: write_model(root / name, config) for name, config in CONFIGS.items()}
