"""Where modules of the first layout are now, so that scripts and notebooks written for it still run."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

PACKAGE = __name__.partition(".")[0]
MOVED = {
    "calibration": "evidence.kernel_fit",
    "checks": "catalog.checks",
    "collectives": "serving.collectives",
    "feasibility": "evidence.feasibility",
    "fitting": "evidence.fitting",
    "hf_config": "catalog.hf_config",
    "memory": "serving.memory",
    "names": "catalog.names",
    "pipeline.calibrate": "evidence.pipeline_fit",
    "planning": "serving.planning",
    "serving_calibration": "evidence.systems_fit",
    "specs": "catalog.specs",
    "systems": "serving.systems",
    "transformer": "serving.transformer",
    "uncertainty": "evidence.uncertainty",
    "validation": "evidence.validation",
}


class OldNames(MetaPathFinder, Loader):
    """Imports the module that an old name stands for now, under both names, and says so."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Ours if the name is an old one of this package."""
        package, _, module = name.partition(".")
        return spec_from_loader(name, self) if package == PACKAGE and module in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the moved module in the place of the one that is being imported."""
        old = module.__name__
        new = f"{PACKAGE}.{MOVED[old.partition('.')[2]]}"
        warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=2)
        sys.modules[old] = import_module(new)


def keep_old_names() -> None:
    """Let the modules of 0.1 be imported where users were told to find them."""
    sys.meta_path.append(OldNames())
