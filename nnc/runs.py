"""A scheduled run on disk: what it is, its finished rounds, and whether what is given now is the same run.

runs/agp/run.json             what the run is; it comes first, so that a folder with anything else of a run in it has it
runs/agp/round_003            the model and its masks after round 3, as nnc.save writes them (round_000: the user's own)
runs/agp/rounds.json          every finished round: sparsities, metric, parameters, seconds; it comes last, for it vouches for the models
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnc.errors import ConfigError, StorageError
from nnc.schedules import Round
from nnc.storage import holds

_RUN = "run.json"
_ROUNDS = "rounds.json"


class RunFolder:
    """The folder of one run; `run` is what `run.json` says, plain data. Raises `ConfigError` where it is, or holds, something else."""

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        self.folder = folder
        self.run: dict[str, Any] = json.loads(json.dumps(run))
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"folder: {folder} is a file; the rounds need a folder.")
        if self.begun:
            _require_same(folder, _known(folder), self.run)
        elif folder.is_dir() and not all(map(_of_a_beginning, folder.iterdir())):
            raise ConfigError(f"folder: {folder} holds other files and no run; choose a new or empty folder.")

    @property
    def begun(self) -> bool:
        return (self.folder / _RUN).is_file()

    def begin(self) -> None:
        """Note what the run is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.begun:
            _write(self.folder / _RUN, self.run)

    def finished(self) -> list[Round]:
        return read_rounds(self.folder) if self.begun else []

    def finish(self, rounds: Sequence[Round]) -> None:
        """Note that these rounds are finished."""
        _write(self.folder / _ROUNDS, [one.to_dict() for one in rounds])

    def model(self, number: int) -> Path:
        """Return where the model is after a round."""
        return self.folder / f"round_{number:03}"

    def require_model(self, model: Any) -> None:
        """Raise `ConfigError` for a model that is neither the one that the run began with nor the one that it came to."""
        places = [self.model(0), self.model(len(self.finished()))]
        kept = [place for place in places if place.is_dir()]  # those of earlier rounds may have been thrown away
        if kept and not any(holds(place, model) for place in kept):
            found = f"folder: {self.folder} holds a run that began with other weights than the model has"
            raise ConfigError(f"{found}; choose another folder, or give the model as it was.")


def read_rounds(folder: Path) -> list[Round]:
    """Return the finished rounds of a run. Raises `StorageError` where they cannot be read."""
    _known(folder)
    path = folder / _ROUNDS
    try:
        return [Round.from_dict(one) for one in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{folder}: the run cannot be read: {error!r}.") from None


def _known(folder: Path) -> dict[str, Any]:
    """Return what a folder's run is."""
    try:
        known = json.loads((folder / _RUN).read_text(encoding="utf-8"))
    except ValueError as error:
        raise StorageError(f"{folder}: the run cannot be read: {error!r}.") from None
    if not isinstance(known, dict):
        raise StorageError(f"{folder}: the run cannot be read: {_RUN} holds a {type(known).__name__}, no description of a run.")
    return known


def _of_a_beginning(path: Path) -> bool:
    """Tell whether a run leaves a file of this name where it is killed before its description is written."""
    return path.name in (f"{Path(_RUN).stem}.part", "round_000") or path.name.startswith(".round_000.")


def _require_same(folder: Path, known: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    # A run that began before a key was known lacks it, and goes on. Parameters are compared with their numbers, which tell more.
    for key in run:
        if key != "parameters" and key in known and known[key] != run[key]:
            found = f"{folder} holds a run with {difference(key, known[key], run[key])}"
            raise ConfigError(f"folder: {found}; choose another folder, or give the run what it began with.")


def difference(key: str, known: Any, given: Any) -> str:
    """Return what differs: of settings with names, the first of these."""
    if isinstance(known, dict) and isinstance(given, dict):
        first = next(name for name in {**known, **given} if known.get(name) != given.get(name))
        return difference(f"{key}.{first}", known.get(first), given.get(first))
    return f"{key} {known!r}, not {given!r}"


def _write(path: Path, data: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one."""
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(data, indent=1), encoding="utf-8")
    os.replace(scratch, path)
