"""Taps: what a forward pass shows of parameters and of what passes layers, after masks and views.

A record takes notes for one reader. A layer that runs several times in one pass is noted several times; what is shown is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from nnc.errors import ConfigError
from nnc.views import Site
from nnc_tensorflow.names import TAPS
from nnc_tensorflow.parts import part_of, replaced
from nnc_tensorflow.recurrent import holder_name
from nnc_tensorflow.swap import held_by, hold
from nnc_tensorflow.views import layer_at, slot_at, through_arguments


@dataclass(eq=False)
class Record:
    """What was seen at each site. With a `tape`, what was seen is what gradients are taken with respect to."""

    tape: tf.GradientTape | None = None
    seen: dict[Site, list[Any]] = field(default_factory=dict)

    def note(self, site: Site, tensor: Any) -> Any:
        """Note a tensor and return the one to go on with."""
        if self.tape is not None:
            tensor = tf.identity(tensor)
            self.tape.watch(tensor)
        self.seen.setdefault(site, []).append(tensor)
        return tensor

    def last(self, site: Site) -> Any:
        """Return what a site showed last. Raises `ConfigError` where no forward pass came by."""
        if site not in self.seen:
            why = "the layer did not run, or other code reads its weight; exclude it"
            raise ConfigError(f"site {str(site)!r}: the forward pass does not reach it: {why}.")
        return self.seen[site][-1]


@dataclass(frozen=True)
class Tap:
    """The readers of one tensor of a layer, or of what passes it: (which part, site, record) of each."""

    readers: tuple[tuple[str, Site, Record], ...]

    def __call__(self, tensor: Any) -> Any:
        """Note a parameter as it was read, in Keras' layout."""
        for _, site, record in self.readers:
            tensor = record.note(site, tensor)
        return tensor

    def passed(self, value: Any) -> Any:
        """Note parts of what passes, a tensor or any structure of them."""
        for part, site, record in self.readers:
            path, tensor = part_of(value, part, str(site))
            noted = record.note(site, tensor)
            value = value if noted is tensor else replaced(value, path, noted)
        return value

    def arguments(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return through_arguments(self, call, args, kwargs)


def tap(layers: Mapping[str, keras.Layer], sites: Collection[Site], record: Record, place: str) -> bool:
    """Let `record` take notes at `sites`, and tell whether compiled functions no longer fit.

    Raises `ConfigError` for a site that the model does not have, before any layer is touched.
    """
    readers: dict[str, dict[str, list[Any]]] = {}
    for site in dict.fromkeys(sites):
        layer = layer_at(layers, site, place)
        kind, _, part = site.tensor.partition(":")
        key = slot_at(layer, site, place).attribute if site.is_parameter else kind
        name = holder_name(layers, site.layer) if site.is_parameter else site.layer
        readers.setdefault(name, {}).setdefault(key, []).append((part, site, record))
    for name, keys in readers.items():
        taps = dict(layers[name].__dict__.get(TAPS, {}))
        for key, new in keys.items():
            taps[key] = Tap((*(taps[key].readers if key in taps else ()), *new))
        hold(layers[name], {**held_by(layers[name]), TAPS: taps})
    return bool(readers)


def untap(layers: Mapping[str, keras.Layer], record: Record) -> None:
    """Take a record's taps away."""
    for layer in layers.values():
        taps = layer.__dict__.get(TAPS)
        if taps is None:
            continue
        left = {key: Tap(tuple(reader for reader in each.readers if reader[2] is not record)) for key, each in taps.items()}
        hold(layer, {**held_by(layer), TAPS: {key: each for key, each in left.items() if each.readers}})


@contextmanager
def tapped(layers: Mapping[str, keras.Layer], sites: Collection[Site], record: Record) -> Iterator[None]:
    """Let `record` take notes for a while; only eager passes show what they see."""
    tap(layers, sites, record, "sites")
    try:
        yield
    finally:
        untap(layers, record)
