"""A pruner of one's own: a channel whose weights hardly differ from one another has learned little."""

from nnc.algorithm import Pruner
from nnc.hookspecs import hookimpl


class VariancePruner(Pruner):
    """Channels whose weights vary least leave first."""

    name = "variance"

    def score(self, layer):
        """Return the variance of each output channel's weights, shape `(out,)`."""
        ops = layer.ops
        weight = ops.astype(layer.weight, ops.float64)  # (out, in, *kernel)
        rows = ops.reshape(weight, (weight.shape[0], -1))
        return ops.mean(ops.square(rows - ops.mean(rows, axis=1, keepdims=True)), axis=1)


@hookimpl
def nnc_register_algorithms(register):
    register(VariancePruner)
