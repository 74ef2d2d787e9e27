"""Scores that Transformers gives the models of ``models.py``; needs it and PyTorch (``make generate-check``).

    python -m tests.kernels_numba.decoder.golden

writes golden.npz, made with Transformers 5.24.0 and PyTorch 2.13.0.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests.kernels_numba.decoder.models import CONFIGS, TOKENS, write_model

FILE = Path(__file__).with_name("golden.npz")


def reference_scores(folder: Path, tokens: np.ndarray) -> np.ndarray:
    """Scores (B, T, vocabulary) by Transformers, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


def main() -> None:
    """Entry point."""
    with TemporaryDirectory() as folder:
        found = {
            name: reference_scores(write_model(Path(folder) / name, config), TOKENS) for name, config in CONFIGS.items()
        }
    np.savez_compressed(FILE, **found)


if __name__ == "__main__":
    main()
