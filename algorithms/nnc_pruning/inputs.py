"""A weight is worth what it passes on of its layer's real inputs.

wanda        |w| * |x|_2                                  nothing else changes
sparsegpt    w^2 / diag(inverse Hessian)                  what stays makes up for what left
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

import numpy as np

from nnc.adapter import Layer, Masks
from nnc.allocation import lowest
from nnc.arrays import to_float64, to_numpy
from nnc.columns import channel_axis
from nnc.errors import ConfigError
from nnc.graph.ir import Array
from nnc.masks import from_kept, merge
from nnc.measured import ActivationPruner
from nnc.views import Site
from nnc_schemas.learned import DampedSpec


class WandaPruner(ActivationPruner):
    """In each output row, weights with the smallest magnitude times input norm leave first.

    Sun et al., A Simple and Effective Pruning Approach for Large Language Models, 2023, arXiv:2306.11695, equation 1. Linear layers.
    """

    name = "wanda"
    treated = "linear layers"
    granularity = "element"

    @staticmethod
    def treats(layer: Layer) -> bool:
        return is_linear(layer)

    def measure(self) -> None:
        self._squares: dict[str, Array] = {}
        super().measure()

    def sites(self, layer: Layer) -> Sequence[Site]:
        return (Site(layer.name, "input"),)

    def observe(self, layer: Layer, seen: Mapping[Site, Any]) -> None:
        x = rows_of(seen, layer)
        squares = np.einsum("ni,ni->i", x, x, dtype=np.float64)
        self._squares[layer.name] = self._squares.get(layer.name, 0.0) + squares

    def score(self, layer: Layer) -> Any:
        """Return |w| * |x|_2 of each weight, the norm over all tokens of all batches, `(out, in)`."""
        return np.abs(to_float64(layer.weight)) * np.sqrt(self._squares[layer.name])

    def ranked(self, scores: Array) -> Array:
        """Return each weight's rank within its output row: rows are not compared with each other."""
        return ranks(scores)


def is_linear(layer: Layer) -> bool:
    """Tell whether a layer is a product of its input with a matrix."""
    return layer.prunable and len(layer.parameters["weight"]) == 2 and not channel_axis(layer)


def rows_of(seen: Mapping[Site, Any], layer: Layer) -> Array:
    """Return a linear layer's input as `(tokens, in)`, float32. Raises `ConfigError` for one of another width."""
    x = to_numpy(seen[Site(layer.name, "input")])
    width = layer.parameters["weight"][1]
    if x.shape[-1] != width:
        raise ConfigError(
            f"{layer.name}: its input has the shape {x.shape}, its weight {width} columns; only plain linear layers can be measured."
        )
    return np.ascontiguousarray(x.reshape(-1, width), dtype=np.float32)


def ranks(importance: Array) -> Array:
    """Return the rank of each number in its row, as a fraction; of equal ones the first comes first."""
    order = np.argsort(importance, axis=1, kind="stable")
    found = np.empty(order.shape)
    np.put_along_axis(found, order, np.arange(order.shape[1])[None, :] / order.shape[1], axis=1)
    return found


class SparseGPTPruner(ActivationPruner):
    """Weights whose removal changes the layer's output least leave first, and those that stay make up for them.

    Frantar, Alistarh, SparseGPT, ICML 2023, arXiv:2301.00774, algorithm 1: Optimal Brain Surgeon with the Hessian X^T X of the layer's
    inputs, damped, in blocks of columns. Linear layers; `sparsity` holds within each block of columns.
    """

    name = "sparsegpt"
    spec = DampedSpec
    treated = "linear layers"
    granularity = "element"

    @staticmethod
    def treats(layer: Layer) -> bool:
        return is_linear(layer)

    def measure(self) -> None:
        self._hessians: dict[str, Array] = {}
        super().measure()
        self._solved = {name: self._solve(layer) for name, layer in self.layers.items()}

    def sites(self, layer: Layer) -> Sequence[Site]:
        return (Site(layer.name, "input"),)

    def observe(self, layer: Layer, seen: Mapping[Site, Any]) -> None:
        x = rows_of(seen, layer)
        hessian = (x.T @ x).astype(np.float64)
        self._hessians[layer.name] = self._hessians.get(layer.name, 0.0) + hessian

    def _solve(self, layer: Layer) -> tuple[Array, Array]:
        entry = self.entry(layer.name)
        if entry.per_layer is None:
            raise ConfigError(f"{entry.place}: {self.name!r} prunes each layer by itself; give sparsity, the fraction of each layer.")
        return obs(to_float64(layer.weight), self._hessians[layer.name], entry.per_layer, entry.damping, entry.block)

    def decide(self) -> Masks:
        return merge(self.adapter.masks(), {name: from_kept(keep, self.layers[name]) for name, (keep, _) in self._solved.items()})

    def rewrites(self) -> Mapping[Site, Array]:
        return {Site(name, "weight"): weight.astype(np.float32) for name, (_, weight) in self._solved.items()}

    def score(self, layer: Layer) -> Any:
        """Return w^2 / diag(inverse Hessian) of each weight, `(out, in)`: how much the squared error of the output grows without it."""
        factor = inverse_factor(self._hessians[layer.name], self.entry(layer.name).damping)
        return to_float64(layer.weight) ** 2 / np.diag(factor.T @ factor)


def obs(weight: Array, hessian: Array, sparsity: float, damping: float, block: int) -> tuple[Array, Array]:
    """Return which weights stay, and the weights with what the others make up for, both `(out, in)`.

    `hessian` is X^T X, `(in, in)`. A column's error is spread over the columns behind it.
    """
    weight = weight.copy()
    factor = inverse_factor(hessian, damping)
    keep = np.ones(weight.shape, bool)
    for start in range(0, weight.shape[1], block):
        part = slice(start, min(start + block, weight.shape[1]))
        scores = weight[:, part] ** 2 / np.diag(factor)[part] ** 2
        keep[:, part] = ~lowest(scores, floor(scores.size * sparsity + 1e-9))
        for column in range(part.start, part.stop):
            error = np.where(keep[:, column], 0.0, weight[:, column]) / factor[column, column]
            weight[:, column:] -= np.outer(error, factor[column, column:])
    return keep, np.where(keep, weight, 0.0)


def inverse_factor(hessian: Array, damping: float) -> Array:
    """Return the upper Cholesky factor U of the damped Hessian's inverse, U^T U = H^-1; inputs that were always 0 count as 1."""
    damped = hessian.copy()
    silent = np.diag(damped) == 0
    damped[silent, silent] = 1.0
    damped[np.diag_indices_from(damped)] += damping * np.diag(damped).mean()
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T)
