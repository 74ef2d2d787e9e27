"""What has been measured, and how far the models are from it: rows, fits, intervals, errors.

`rows` is the evidence, `kernel_fit`, `systems_fit` and `pipeline_fit` fit each family of models to its stated part of
it, `uncertainty` measures how far a prediction may be off, `validation` scores every row. Nothing that predicts needs
this room: predictions read the stored fits (`perfmodel.kernels.fits`).
"""

from perfmodel.evidence.rows import derived_times, kernel_evidence

__all__ = ["derived_times", "kernel_evidence"]
