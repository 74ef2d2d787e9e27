"""What the suite knows about the outside world: hardware, language models, evidence and stored fits, as frozen records.

`files` is the only reader of files, `load` and `models` say what is in them; `specs`, `decoder` and `language_model`
are the records, `checks` is what a file alone can tell of itself, `hf` what a Hugging Face configuration says.
"""

from perfmodel.catalog.files import data_directory
from perfmodel.catalog.load import (
    CALIBRATION_FILE,
    cpu_names,
    gpu_from_text,
    gpu_names,
    has_gpu,
    load_calibration,
    load_device,
    load_gpu,
    load_kernel_times,
    load_sources,
    load_table,
    load_trace,
    read_kernel_times,
    trace_names,
)
from perfmodel.catalog.models import (
    has_model,
    load_model,
    load_sparsities,
    model_from_hf_config,
    model_from_text,
    model_names,
    sparsities_from_text,
)

__all__ = [
    "CALIBRATION_FILE", "cpu_names", "data_directory", "gpu_from_text", "gpu_names", "has_gpu", "has_model",
    "load_calibration", "load_device", "load_gpu", "load_kernel_times", "load_model", "load_sources", "load_sparsities",
    "load_table", "load_trace", "model_from_hf_config", "model_from_text", "model_names", "read_kernel_times",
    "sparsities_from_text", "trace_names",
]  # fmt: skip
