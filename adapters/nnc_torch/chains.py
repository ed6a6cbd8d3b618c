"""What stands in front of a stored parameter: a chain of parametrizations, the mask first and the views behind it.

The parameter stays the same object. When the last of the chain leaves, the module has its class back, and its parameters in the
order that they had: an optimizer's state_dict counts them.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

from nnc_torch.layers import parametrizations


def attach(module: nn.Module, parameter: str, item: nn.Module, *, first: bool = False) -> None:
    """Put one parametrization behind those that a parameter has, or before them."""
    chain = parametrizations(module).get(parameter)
    if chain is not None and first:
        chain.insert(0, item.train(module.training))
        return
    order = tuple(module._parameters)
    # unsafe: torch's own check would compute the whole chain once more.
    parametrize.register_parametrization(module, parameter, item, unsafe=True)
    if not hasattr(module.parametrizations, "_nnc_order"):
        module.parametrizations._nnc_order = order


def detach(module: nn.Module, parameter: str, item: nn.Module) -> None:
    """Take one parametrization away, and with the last of them the chain."""
    chain = module.parametrizations[parameter]
    if len(chain) > 1:
        del chain[next(index for index, other in enumerate(chain) if other is item)]
        return
    order = module.parametrizations._nnc_order
    parametrize.remove_parametrizations(module, parameter, leave_parametrized=False)
    ordered = {name: module._parameters[name] for name in order if name in module._parameters}
    module._parameters.clear()
    module._parameters.update(ordered)
