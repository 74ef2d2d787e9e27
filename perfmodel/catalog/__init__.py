"""What the suite knows about the outside world: GPUs, language models, evidence and stored fits, as frozen records.

`load` is the only reader of ``data/``; `specs` are the records, `checks` what a file alone can tell of itself.
"""

from perfmodel.catalog.load import (
    CALIBRATION_FILE,
    data_directory,
    gpu_names,
    load_calibration,
    load_gpu,
    load_kernel_times,
    load_model,
    load_sources,
    load_sparsities,
    load_table,
    load_trace,
    model_from_hf_config,
    model_names,
    read_kernel_times,
    trace_names,
)

__all__ = [
    "CALIBRATION_FILE", "data_directory", "gpu_names", "load_calibration", "load_gpu", "load_kernel_times",
    "load_model", "load_sources", "load_sparsities", "load_table", "load_trace", "model_from_hf_config",
    "model_names", "read_kernel_times", "trace_names",
]  # fmt: skip
