"""A fake-quantised model, made without an algorithm of nnc: extremes of one batch as grids, and views that round to them."""

import numpy as np

from nnc.arrays import to_numpy
from nnc.grid import Grid
from nnc.registry import adapter_for
from nnc.views import Site, View


class Rounded(View):
    """Shows a tensor on a grid."""

    name = "rounded"

    def __init__(self, grid):
        self.grid = grid

    def __call__(self, x, state, ops, training):
        scale, zero = self.grid.scale, self.grid.zero_point.astype("float32")
        if self.grid.axis is not None:
            scale, zero = (array.reshape(-1, *[1] * (len(x.shape) - 1)) for array in (scale, zero))
        scale, zero = ops.asarray(scale), ops.asarray(zero)
        return (ops.clip(ops.round(x / scale) + zero, float(self.grid.lowest), float(self.grid.highest)) - zero) * scale


def grids_of(model, inputs, outputs=(), bits=8, passed=8):
    """Return grids for the weights, and those of `passed` bits for the inputs of all products and the outputs of the layers `outputs`."""
    adapter = adapter_for(model)
    layers = [layer for layer in adapter.layers() if layer.prunable]
    sites = [*(Site(layer.name, "input") for layer in layers), *(Site(name) for name in outputs)]
    _, seen = adapter.forward(inputs, sites)
    grids = {site: Grid.between(to_numpy(tensor).min(), to_numpy(tensor).max(), passed) for site, tensor in seen.items()}
    return grids | {Site(layer.name, "weight"): Grid.around_zero(to_numpy(layer.weight), bits, axis=0) for layer in layers}


def simulated(model, inputs, grids):
    """Let the model be seen through its grids, and return its outputs; `adapter_for(model).set_views({})` gives it back."""
    adapter = adapter_for(model)
    adapter.set_views({site: (Rounded(grid),) for site, grid in grids.items()})
    return [np.asarray(array) for array in adapter.run(inputs)]
