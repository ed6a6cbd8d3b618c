"""Measured ranges of activations on disk, so that a long calibration is made once.

{"fc1:input": [-2.1, 3.4], ...}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from nnc.errors import ConfigError, StorageError
from nnc.files import writing
from nnc.views import Site

if TYPE_CHECKING:
    from nnc.algorithm import Quantizer

#: The lowest and the highest number to cover, by site.
Ranges = dict[Site, tuple[float, float]]


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


def take(path: str | PathLike[str], quantizers: Iterable[Quantizer]) -> None:
    """Let quantizers go by the ranges of a file. Raises `ConfigError` where it is of another model, or of another config_list."""
    ranges, every = read_ranges(path), list(quantizers)
    missing = [str(site) for one in every for site in one.measured() if site not in ranges]
    if missing:
        raise ConfigError(f"{path}: holds no range of {', '.join(missing[:3])}; it was measured on another model or config_list.")
    for one in every:
        one.take_calibration(ranges)


def _site(name: str) -> Site:
    """Return the site of "layer:tensor"; a tensor may have a colon of its own, as an attention's "input:1"."""
    layer, tensor = re.split(r":(?=(?:input|output)(?::|$))", name)
    return Site(layer, tensor)
