"""Measure the ranges of activations: a few forward passes of the float model, an observer for each tensor.

Ranges can be written to a file and read again, so that a long calibration is made once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

from nnc.adapter import TrainableAdapter
from nnc.arrays import to_numpy
from nnc.errors import ConfigError, StorageError
from nnc.files import writing
from nnc.views import Site
from nnc_quantization.observers import Observer

#: The lowest and the highest number to cover, by site.
Ranges = dict[Site, tuple[float, float]]


#: `f(model, batch)` that runs the model; None where the model is given the batch as it is.
Through = Callable[..., Any] | None


def measure(adapter: TrainableAdapter, batches: Iterable[Any], observers: Mapping[Site, Observer], through: Through = None) -> Ranges:
    """Run the batches and return what the observers saw. Raises `ConfigError` for data that is empty or not finite."""
    count = 0
    for count, batch in enumerate(batches, 1):
        seen = passed(adapter, batch, tuple(observers), count, through)
        for site, observer in observers.items():
            try:
                observer.observe(to_numpy(seen[site]))
            except ConfigError as error:
                raise ConfigError(f"{site}: {error} It is batch {count}.") from None
    if not count:
        raise ConfigError("calibration data: has no batches; pass trainer=nnc.Trainer(data=...), or example_inputs=.")
    return {site: observer.range() for site, observer in observers.items()}


def passed(adapter: TrainableAdapter, batch: Any, sites: Sequence[Site], number: int, through: Through = None) -> dict[Site, Any]:
    """Return what passes the sites on one batch. Raises `ConfigError` where the model does not run on it."""
    try:
        return adapter.forward(batch, sites, through=through)[1]
    except ConfigError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(f"calibration data: the model does not run on batch {number}: {error}") from error


def write_ranges(ranges: Ranges, path: str | PathLike[str]) -> None:
    """Write ranges as JSON. Raises `StorageError` where that cannot be."""
    with writing(path):
        Path(path).write_text(json.dumps({f"{site.layer}:{site.tensor}": limits for site, limits in ranges.items()}, indent=1), "utf-8")


def read_ranges(path: str | PathLike[str]) -> Ranges:
    """Return ranges that `write_ranges` wrote. Raises `StorageError` where the file holds none, or one that no numbers have."""
    try:
        data = json.loads(Path(path).read_text("utf-8"))
        ranges = {_site(name): (float(low), float(high)) for name, (low, high) in data.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StorageError(f"{path}: holds no calibration: {error}.") from None
    for site, (low, high) in ranges.items():
        if not (isfinite(low) and isfinite(high) and low <= high):
            raise StorageError(f"{path}: {site}: {low} to {high} is no range of finite numbers; calibrate() again.")
    return ranges


def _site(name: str) -> Site:
    """Return the site of "layer:tensor"; a tensor may have a colon of its own, as an attention's "input:1"."""
    layer, tensor = re.split(r":(?=(?:input|output)(?::|$))", name)
    return Site(layer, tensor)
