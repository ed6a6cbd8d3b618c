"""What stands in front of a stored parameter: a chain of parametrizations, the mask first and the views behind it.

The parameter stays the same object. When the last of the chain leaves, the module has its class back, and its parameters in the
order that they had: an optimizer's state_dict counts them.

torch gives a parametrized module a class of its own, with a property for each parameter, and a copied module shares it. So a module
gets a fresh one before a property comes or goes: else a change to the copy would break the original.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

from nnc_torch.layers import parametrizations


def attach(module: nn.Module, parameter: str, item: nn.Module, *, first: bool = False) -> None:
    """Put one parametrization behind those that a parameter has, or before them."""
    chains = parametrizations(module)
    if parameter in chains and first:
        chains[parameter].insert(0, item.train(module.training))
        return
    if chains and parameter not in chains:
        _renew_class(module)
    order = tuple(module._parameters), tuple(module._buffers)
    # unsafe: torch's own check would compute the whole chain once more.
    parametrize.register_parametrization(module, parameter, item, unsafe=True)
    if not chains:
        module.parametrizations._nnc_order = order


def detach(module: nn.Module, parameter: str, item: nn.Module) -> None:
    """Take one parametrization away, and with the last of them the chain."""
    chain = module.parametrizations[parameter]
    if len(chain) > 1:
        del chain[next(index for index, other in enumerate(chain) if other is item)]
        return
    order = module.parametrizations._nnc_order
    _renew_class(module)
    parametrize.remove_parametrizations(module, parameter, leave_parametrized=False)
    for held, names in zip((module._parameters, module._buffers), order, strict=True):
        ordered = {name: held[name] for name in names if name in held}
        held.clear()
        held.update(ordered)


def _renew_class(module: nn.Module) -> None:
    cls = type(module)
    own = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(cls.__name__, cls.__bases__, own)
