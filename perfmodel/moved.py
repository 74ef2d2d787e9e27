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
    "calibration": ("evidence.kernel_fit", "kernels.fits"),
    "checks": ("catalog.checks", "kernels.fits"),
    "collectives": ("serving.collectives",),
    "fitting": ("evidence.fitting",),
    "hf_config": ("catalog.hf.config",),
    "memory": ("serving.memory",),
    "names": ("catalog.names",),
    "pipeline.calibrate": ("evidence.pipeline_fit", "pipeline.parameters"),
    "planning": ("serving.planning", "serving.rows", "serving.contenders"),
    "serving_calibration": ("evidence.systems_fit", "evidence.runs"),
    "specs": ("catalog.specs", "catalog.language_model", "catalog.decoder", "catalog.records"),
    "systems": ("serving.systems",),
    "transformer": ("serving.transformer",),
    "uncertainty": ("evidence.uncertainty", "kernels.fits"),
    "validation": ("evidence.validation",),
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
