"""Measure the ranges of activations: a few forward passes of the float model, an observer for each tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nnc.adapter import TrainableAdapter
from nnc.arrays import to_numpy
from nnc.errors import ConfigError
from nnc.ranges import Ranges
from nnc.views import Site
from nnc_quantization.observers import Observer

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
