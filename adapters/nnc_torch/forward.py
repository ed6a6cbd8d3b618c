"""Install a forward with other sizes on one module's instance; its class stays the user's."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from nnc.bodies import body
from nnc.errors import SpeedupError
from nnc.graph.plan import Reshape, Size
from nnc.resize import held_sizes, resized, source_is_available

_RESHAPES = {"view", "reshape", torch.reshape}


def rewrite(model: nn.Module, reshape: Reshape) -> tuple[Size, ...]:
    """Give a layer of the model a method in which the call that `reshape` describes has the new sizes.

    Where attributes of the layer give them, set those instead, and return them, unless the call itself shall be rewritten
    (`reshape.rewrite`).

    Raises SpeedupError, with what to write there instead, where that cannot be done.
    """
    module = model.get_submodule(reshape.layer)
    found = body(module, reshape.function, "forward")
    if found is None:
        fault = f"{reshape.fault}: " if reshape.cut or reshape.looked_up else ""
        missing = f"{reshape.function} is no method of {type(module).__name__}, and no function that one calls by name"
        raise SpeedupError(f"{_place(reshape)}: {fault}{missing}; {_advice(reshape)}")
    if source_is_available(found.function):
        held = () if reshape.rewrite else held_sizes(found.function, reshape, module)
        if held:
            vars(module).update({size.attribute: size.in_place_of(getattr(module, size.attribute)) for size in held})
            return held
        vars(module).update(found.replace(resized(found.function, reshape, module), reshape))
    elif found.is_method("forward"):
        module.forward = _regenerated(module, reshape).forward
    else:
        raise SpeedupError(f"{_place(reshape)}: the source of {reshape.function} cannot be read; {_advice(reshape)}")
    return ()


def _place(reshape: Reshape) -> str:
    return f"{reshape.layer or 'model'}: line {reshape.line} of {reshape.function or 'forward'}"


def _advice(reshape: Reshape) -> str:
    if reshape.looked_up:
        return "write the places as one list in the layer's own code, or keep them in an attribute of the layer."
    if reshape.cut:
        return "take the bounds from the tensor's shape, or from a layer's attribute."
    return f"write the size {list(reshape.old)} so that it follows from the tensor, as x.flatten(1) does, or from a layer's attribute."


class _OneModule(fx.Tracer):
    """Traces a module's own forward; its children are calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _regenerated(module: nn.Module, reshape: Reshape) -> fx.GraphModule:
    """Return a module's forward regenerated from its fx graph, for a class whose source is nowhere (a REPL, a heredoc)."""
    if reshape.cut or reshape.looked_up:
        raise SpeedupError(f"{_place(reshape)}: {reshape.fault}, and its source cannot be read; {_advice(reshape)}")
    try:
        graph = _graph_of(module)
    except Exception as error:
        raise SpeedupError(
            f"{_place(reshape)}: the source of {type(module).__name__}.forward cannot be read, and torch.fx cannot trace it ({error}); "
            f"{_advice(reshape)}"
        ) from error
    calls = [node for node in graph.nodes if node.target in _RESHAPES and _given(node) == reshape.old]
    if not calls:
        raise SpeedupError(f"{_place(reshape)}: no call in {type(module).__name__}.forward gives {list(reshape.old)}; {_advice(reshape)}")
    for node in calls:
        node.args = (node.args[0], *reshape.new) if node.op == "call_method" else (node.args[0], tuple(reshape.new))
    return fx.GraphModule(module, graph)


def _graph_of(module: nn.Module) -> fx.Graph:
    """Return the fx graph of the forward that a module has now: its class's, one regenerated earlier, or one set on the instance."""
    own = vars(module).get("forward")
    if own is None:
        return _OneModule().trace(module)
    if isinstance(own.__self__, fx.GraphModule):
        return copy.deepcopy(own.__self__.graph)
    cls = type(module)
    try:
        module.__class__ = type(cls.__name__, (cls,), {"forward": own.__func__})  # fx reads the class's forward only
        return _OneModule().trace(module)
    finally:
        module.__class__ = cls


def _given(node: fx.Node) -> tuple[Any, ...]:
    sizes = node.args[1:]
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else tuple(sizes)
