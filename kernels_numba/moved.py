"""Where modules of the first layout are now, so that scripts and notebooks written for it still run."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import CodeType, ModuleType
from typing import Any

PACKAGE = __name__.partition(".")[0]
MOVED = {
    "bench_cpu": ("bench.cpu",),
    "bench_gpu": ("bench.gpu",),
    "census": ("checkpoints.census",),
    "check_gpu": ("bench.check_gpu",),
    "checkpoint": ("checkpoints.checkpoint",),
    "compile": ("gpu.compile",),
    "container": ("checkpoints.container",),
    "device": ("gpu.device",),
    "encoded": ("formats.encoded",),
    "float_values": ("checkpoints.float_values",),
    "formats_bitmap": ("formats.bitmap", "formats.layout"),
    "formats_two_four": ("formats.two_four_tiles",),
    "gpu_bitmap": ("gpu.bitmap",),
    "gpu_csr": ("gpu.csr",),
    "gpu_dense": ("gpu.dense",),
    "gpu_library": ("bench.library", "bench.timing"),
    "gpu_reduce": ("gpu.reduce",),
    "gpu_sparta": ("gpu.sparta",),
    "gpu_stages": ("gpu.stages",),
    "gpu_tiled_csl": ("gpu.tiled_csl",),
    "launch": ("gpu.launch",),
    "measure": ("bench.measure",),
    "panel_csr": ("cpu.panel_csr",),
    "product": ("bench.product",),
    "provenance": ("bench.provenance",),
    "pruning": ("checkpoints.pruning", "checkpoints.allocation"),
    "ptx": ("gpu.ptx",),
    "safetensors_io": ("checkpoints.safetensors_reader",),
    "safetensors_writer": ("checkpoints.safetensors_writer",),
    "sass": ("gpu.sass",),
    "trace": ("gpu.trace",),
    "tuning": ("bench.tuning",),
    "variants": ("gpu.variants",),
}


class OldNames(MetaPathFinder, Loader):
    """Gives an old name what the modules that it was moved to hold, and says where that is."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Ours if the name is an old one of this package."""
        package, _, module = name.partition(".")
        return spec_from_loader(name, self) if package == PACKAGE and module in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Let the module look its names up in its new homes."""
        homes = [f"{PACKAGE}.{home}" for home in MOVED[module.__name__.partition(".")[2]]]
        warnings.warn(f"{module.__name__} is now {' and '.join(homes)}", DeprecationWarning, stacklevel=2)

        def look_up(name: str) -> Any:
            for home in map(import_module, homes):
                if hasattr(home, name):
                    return getattr(home, name)
            raise AttributeError(f"{' and '.join(homes)} have no {name!r}")

        module.__getattr__ = look_up  # type: ignore[method-assign]

    def get_code(self, name: str) -> CodeType:
        """What ``python -m`` runs under an old name: the module itself, in its first home."""
        home = f"{PACKAGE}.{MOVED[name.partition('.')[2]][0]}"
        return compile(f"import runpy; runpy.run_module({home!r}, run_name='__main__', alter_sys=True)", home, "exec")


def keep_old_names() -> None:
    """Let the modules of 0.1 be imported where users were told to find them."""
    sys.meta_path.append(OldNames())
