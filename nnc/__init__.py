"""nnc makes trained neural networks small and fast, on PyTorch and on Keras 3, from one config_list.

Importing nnc loads no framework and little else: a public name is imported when it is first asked for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nnc.errors import (
    ConfigError,
    ExportError,
    LeftAlone,
    MissingFramework,
    ModelError,
    NncError,
    NothingRemoved,
    SpeedupError,
    StorageError,
    TraceError,
    TrainingError,
)

if TYPE_CHECKING:
    from nnc.algorithm import Distiller, Pruner, Quantizer
    from nnc.catalog import algorithms, layers, schema
    from nnc.compress import compress
    from nnc.export import export
    from nnc.prunability import prunability
    from nnc.report import report
    from nnc.rounds import ScheduledPruner
    from nnc.speedup import ModelSpeedup
    from nnc.stages import run
    from nnc.storage import load, save
    from nnc.trainer import Trainer

    __version__: str

_HOMES = {
    "ModelSpeedup": "nnc.speedup",
    "Distiller": "nnc.algorithm",
    "Pruner": "nnc.algorithm",
    "Quantizer": "nnc.algorithm",
    "ScheduledPruner": "nnc.rounds",
    "Trainer": "nnc.trainer",
    "algorithms": "nnc.catalog",
    "compress": "nnc.compress",
    "export": "nnc.export",
    "layers": "nnc.catalog",
    "load": "nnc.storage",
    "prunability": "nnc.prunability",
    "report": "nnc.report",
    "run": "nnc.stages",
    "save": "nnc.storage",
    "schema": "nnc.catalog",
    "sensitivity": "nnc.sensitivity",
}

__all__ = [
    "ConfigError",
    "Distiller",
    "ExportError",
    "LeftAlone",
    "MissingFramework",
    "ModelError",
    "ModelSpeedup",
    "NncError",
    "NothingRemoved",
    "Pruner",
    "Quantizer",
    "ScheduledPruner",
    "SpeedupError",
    "StorageError",
    "TraceError",
    "Trainer",
    "TrainingError",
    "__version__",
    "algorithms",
    "compress",
    "export",
    "layers",
    "load",
    "prunability",
    "report",
    "run",
    "save",
    "schema",
    "sensitivity",
]


class _Package(ModuleType):
    """`nnc.compress` and `nnc.report` are functions, and the modules that define them bear the same names.

    Python sets a submodule as an attribute of its package; this package keeps the function in that place.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        public = isinstance(value, ModuleType) and name in _HOMES
        super().__setattr__(name, getattr(value, name) if public else value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("nnc-toolkit")
    if name not in _HOMES:
        raise AttributeError(f"module 'nnc' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
