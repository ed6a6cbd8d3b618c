"""What post-training quantisation does to the weights before it rounds them, and how it rounds.

    equalise, smooth    ranges move between layers; the float model stays what it was         balance.py
    rounding            each number to the side on which the output changes least             rounding.py
    bias_correction     b + (W - W') E[x]: the mean of the output stays                       Nagel et al. 2019, arXiv:1906.04721

In this order. Inputs are measured once, on the float model; where columns are scaled, their statistics are scaled with them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnc.adapter import Layer, TrainableAdapter
from nnc.arrays import to_numpy
from nnc.errors import ConfigError
from nnc.graph.ir import Array, Graph, Node, Tensor
from nnc.grid import Grid
from nnc.views import Site
from nnc_quantization import balance
from nnc_quantization.calibration import Through, passed
from nnc_quantization.plain import plain_view
from nnc_quantization.rounding import adaround, gptq
from nnc_schemas.quantize import PTQSpec


@dataclass
class Statistics:
    """What is kept of a layer's inputs, by input channel: sums, the largest |x|, and sums of products where they are asked for."""

    count: int = 0
    total: Any = 0.0
    largest: Any = 0.0
    products: Any = None

    def see(self, rows: Array) -> None:
        """Take note of inputs `(tokens or pixels, in)`."""
        self.count += len(rows)
        self.total = self.total + rows.sum(axis=0, dtype=np.float64)
        self.largest = np.maximum(self.largest, np.abs(rows).max(axis=0))
        if self.products is not None:
            self.products = self.products + (rows.T @ rows).astype(np.float64)

    def scale(self, factors: Array) -> None:
        """Divide the inputs by `factors`."""
        self.total, self.largest = self.total / factors, self.largest / factors
        if self.products is not None:
            self.products = self.products / np.outer(factors, factors)


@dataclass
class Improvement:
    """The weights and biases that take the place of the model's own, and the scales of weights that are on a grid already."""

    adapter: TrainableAdapter
    layers: Mapping[str, Layer]
    entries: Mapping[str, PTQSpec]
    graph: Graph
    through: Through = None
    weights: dict[Site, Array] = field(default_factory=dict)
    scales: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.every = {layer.name: layer for layer in self.adapter.layers()}
        self.nodes = balance.products(self.graph, self.layers)
        for name, entry in self.entries.items():
            self._check(name, entry)

    def _check(self, name: str, entry: PTQSpec) -> None:
        node = self.nodes.get(name)
        if entry.rounding != "nearest" and (node is None or node.kind != "linear" or len(self.layers[name].parameters["weight"]) != 2):
            found = self.layers[name].op_type if node is not None else "read by no single product"
            linear = f"{name!r} is {found}; only linear layers' inputs are rows. Name those in op_types or op_names"
            raise ConfigError(f"{entry.place}.rounding: {entry.rounding!r}: {linear}, or round to the nearest.")
        if entry.rounding != "nearest" and entry.scheme("weight") == "per_group_symmetric":
            raise ConfigError(f"{entry.place}.rounding: {entry.rounding!r} works with one scale an output; drop per_group_symmetric.")

    def run(self, batches: Iterable[Any], bits: Mapping[str, int], corrects: bool) -> None:
        """Fill `weights` and `scales`. Raises `ConfigError` where an entry asks for what no layer has a place for."""
        corrected = self._correctable() if corrects else ()
        seen = self._measured(batches, corrected)
        self._equalise(seen)
        self._smooth(seen)
        for name, entry in self.entries.items():
            before = self._number(name, "weight")
            after = self._rounded(name, entry, before, bits[name], seen)
            if name in corrected:
                self._correct(name, before - after, seen[name])

    def _correctable(self) -> Collection[str]:
        chosen = [name for name, entry in self.entries.items() if entry.bias_correction]
        found = [name for name in chosen if name in self.nodes and "bias" in self.layers[name].parameters]
        self._found(found, chosen, "bias_correction", "a layer that has a bias and multiplies once")
        return found

    def _measured(self, batches: Iterable[Any], corrected: Collection[str]) -> dict[str, Statistics]:
        seen = {}
        for name, entry in self.entries.items():
            rounds = entry.rounding != "nearest"
            if name in self.nodes and (rounds or entry.smooth is not None or name in corrected):
                seen[name] = Statistics(products=0.0 if rounds else None)
        sites = [Site(name, "input") for name in seen]
        number = 0
        for number, batch in enumerate(batches if seen else (), 1):
            found = passed(self.adapter, batch, sites, number, self.through)
            for name, statistics in seen.items():
                statistics.see(_rows(to_numpy(found[Site(name, "input")]), self.nodes[name]))
        if seen and not number:
            raise ConfigError("calibration data: has no batches; pass trainer=nnc.Trainer(data=...), or example_inputs=.")
        return seen

    def _equalise(self, seen: Mapping[str, Statistics]) -> None:
        chosen = {name for name, entry in self.entries.items() if entry.equalise}
        pairs = balance.equalisable(self.graph, chosen)
        self._found(pairs, chosen, "equalise", "two of its layers with only ReLU or pooling between them")
        for pair in pairs:
            (reader,) = pair.readers
            self._scale(pair, balance.equal_factors(self._number(pair.source, "weight"), self._number(reader, "weight")), seen)

    def _smooth(self, seen: Mapping[str, Statistics]) -> None:
        chosen = {name for name, entry in self.entries.items() if entry.smooth is not None}
        norms = [name for name, layer in self.every.items() if "LayerNorm" in layer.op_types and "weight" in layer.parameters]
        pairs = balance.smoothable(self.graph, chosen, norms)
        self._found(pairs, chosen, "smooth", "a LayerNorm that only its linear layers read")
        for pair in pairs:
            alpha = self.entries[pair.readers[0]].smooth
            weights = {name: self._number(name, "weight") for name in pair.readers}
            self._scale(pair, balance.smooth_factors(seen[pair.readers[0]].largest, weights, alpha or 0.0), seen)

    def _found(self, pairs: Collection[Any], chosen: Collection[str], option: str, place: str) -> None:
        if chosen and not pairs:
            entry = self.entries[next(iter(chosen))]
            raise ConfigError(f"{entry.place}.{option}: the entry's layers hold no place for it, which is {place}.")

    def _scale(self, pair: balance.Pair, factors: Array, seen: Mapping[str, Statistics]) -> None:
        for tensor in ("weight", "bias"):
            if tensor in self.every[pair.source].parameters:
                self._put(pair.source, tensor, balance.scaled_rows(self._number(pair.source, tensor), factors))
        for reader in pair.readers:
            self._put(reader, "weight", balance.scaled_columns(self._number(reader, "weight"), factors))
            if reader in seen:
                seen[reader].scale(factors)

    def _rounded(self, name: str, entry: PTQSpec, weight: Array, bits: int, seen: Mapping[str, Statistics]) -> Array:
        """Return a weight as its grid will show it."""
        if entry.rounding == "nearest":
            return plain_view(weight, bits, entry).grid(weight, {})(weight) if "weight" in entry.tensors else weight
        scale = Grid.around_zero(weight, bits, 0 if entry.scheme("weight") == "per_channel_symmetric" else None).scale
        column = np.broadcast_to(scale.reshape(-1, 1), (len(weight), 1)).astype(np.float64)
        moments = seen[name].products / seen[name].count
        method = gptq if entry.rounding == "gptq" else adaround
        rounded = method(weight, moments, column, 2 ** (bits - 1) - 1)
        self.scales[name] = scale
        self._put(name, "weight", rounded)
        return rounded

    def _correct(self, name: str, apart: Array, statistics: Statistics) -> None:
        """Add what the mean output lost. The mean of an input counts for all places of a kernel: padding is left out of account.

        What a transposed convolution is given is spread over more places than it had: each gets a part of the kernel.
        """
        node = self.nodes[name]
        mean = statistics.total / statistics.count
        summed = apart.reshape(*apart.shape[:2], -1).sum(axis=2)  # (out, in / groups)
        if node.attrs.get("transposed"):
            summed = summed * _places(node.inputs[0], node) / _places(node.outputs[0], node)
        groups = node.attrs.get("groups", 1)
        shift = np.einsum("goi,gi->go", summed.reshape(groups, -1, summed.shape[1]), mean.reshape(groups, -1)).ravel()
        self._put(name, "bias", self._number(name, "bias") + shift)

    def _number(self, layer: str, tensor: str) -> Array:
        site = Site(layer, tensor)
        return self.weights[site] if site in self.weights else to_numpy(getattr(self.every[layer], tensor))

    def _put(self, layer: str, tensor: str, array: Array) -> None:
        self.weights[Site(layer, tensor)] = np.asarray(array, np.float32)


def _rows(x: Array, node: Node) -> Array:
    """Return what a product is given, `(tokens or pixels, in)`."""
    axis = node.attrs["channel_axis"] if node.kind == "conv" else -1
    if node.inputs[0] is not None and axis == len(node.inputs[0].shape) - 1:
        axis = -1  # a convolution along one axis may be recorded as one along two
    return np.ascontiguousarray(np.moveaxis(x, axis, -1)).reshape(-1, x.shape[axis])


def _places(tensor: Tensor | None, node: Node) -> int:
    """Return how many places an input, or output, of a convolution has in a sample."""
    assert tensor is not None
    return math.prod(size for axis, size in enumerate(tensor.shape) if axis not in (0, node.attrs["channel_axis"]))
