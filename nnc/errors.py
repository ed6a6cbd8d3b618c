"""Everything that nnc raises on purpose.

    NncError
    +-- ConfigError         a spec, a mask or an argument is wrong        (also a ValueError)
    +-- ModelError          the model is not one that nnc can work on     (also a TypeError)
    +-- MissingFramework    the framework's extra is not installed        (also an ImportError)
    +-- TraceError          the model did not run on the example inputs   (also a RuntimeError)
    +-- SpeedupError        the small model is not what the plan promised (also a RuntimeError)
    +-- ExportError         a file is not what was ordered, or slower     (also a RuntimeError)
    +-- StorageError        a saved folder cannot be read or written      (also an OSError)
    +-- TrainingError       a training step went wrong: the loss is NaN   (also a RuntimeError)

A message says where, what was given, what is allowed and what to do; `nearest` adds the closest match.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnc.graph.ir import Graph, Source


class NncError(Exception):
    """The root: `except nnc.NncError` catches everything that nnc raises on purpose."""


class ConfigError(NncError, ValueError):
    """A spec, a mask or an argument is wrong. Nothing has been touched."""


class ModelError(NncError, TypeError):
    """The model is of no known framework, not built yet, or on another backend."""


class MissingFramework(NncError, ImportError):
    """The framework is not installed; the message names the extra that brings it."""


class TraceError(NncError, RuntimeError):
    """The model failed on the example inputs; the message names the user's source line.

    `graph` holds what was recorded up to the failure (None where the framework cannot tell), `source` the user's line that failed.
    """

    def __init__(self, message: str, graph: Graph | None = None, source: Source | None = None) -> None:
        super().__init__(message)
        self.graph = graph
        self.source = source


class SpeedupError(NncError, RuntimeError):
    """The small model does not compute what the masked model does; the user's model is untouched."""


class ExportError(NncError, RuntimeError):
    """A model cannot be written in a format, or its runtime does not make of the file what was promised; no file is left."""


class StorageError(NncError, OSError):
    """A folder is missing, truncated, or was not written by `nnc.save`."""


class TrainingError(NncError, RuntimeError):
    """Training cannot go on: the loss is no finite scalar, or the data has run dry. The message names the step."""


class NothingRemoved(UserWarning):
    """ModelSpeedup found nothing that can leave; the message says why."""


class LeftAlone(UserWarning):
    """A config_list asks for what cannot leave while other things can; the message names the layers and says what to do."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `"; nearest: 'conv1'"` for the known word closest to `word`, the first of equals, or `""` where none is close."""

    def likeness(candidate: str) -> float:
        return SequenceMatcher(None, candidate.lower(), word.lower()).ratio()

    best = max(known, key=likeness, default="")
    return f"; nearest: {best!r}" if likeness(best) >= 0.5 else ""
