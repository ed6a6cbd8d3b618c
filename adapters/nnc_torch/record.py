"""Record one forward pass: every ATen operation that runs is read into the graph, whatever Python control flow asked for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from nnc.graph.ir import Array, Node, Source, Tensor, constant
from nnc_torch.hollow import Hollow
from nnc_torch.inference import tensors_in, to_numpy
from nnc_torch.literals import Literals
from nnc_torch.looking import looked_at, looks
from nnc_torch.places import Places
from nnc_torch.seen import Seen
from nnc_torch.values import Values

aten = torch.ops.aten


@dataclass(frozen=True)
class Operation:
    """What is known of an ATen operation: the positions of its arguments, what it writes, whether it gives views or looks at numbers."""

    name: str
    arguments: dict[str, tuple[int, Any]]
    written: tuple[str, ...]
    gives_views: bool
    looks: bool


@cache
def operation(func: Any) -> Operation:
    """Return the facts of an operation's schema."""
    schema = func._schema
    arguments = {a.name: (i, a.default_value if a.has_default_value() else None) for i, a in enumerate(schema.arguments)}
    written = tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    views = not written and any(r.alias_info is not None for r in schema.returns)
    return Operation(schema.name.replace("aten::", "aten."), arguments, written, views, looks(func))


class Call:
    """One operation as it ran. `call["dim"]` is an argument by its schema's name, `call.read("self")` its graph tensor."""

    def __init__(self, recorder: Recorder, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        self.recorder, self.func, self.args, self.kwargs, self.result = recorder, func, args, kwargs, result
        self.values = recorder.values
        self.operation = operation(func)
        self.tensors = [*_tensors_in(args), *(tensors_in(kwargs) if kwargs else ())]
        self._place: tuple[str, Source | None] | None = None

    @property
    def place(self) -> tuple[str, Source | None]:
        """The layer and the source line of the operation."""
        if self._place is None:
            self._place = self.recorder.places.here()
        return self._place

    def __contains__(self, name: str) -> bool:
        return name in self.operation.arguments

    def __getitem__(self, name: str) -> Any:
        index, default = self.operation.arguments[name]
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument that not every form of the operation has."""
        return self[name] if name in self.operation.arguments else default

    def read(self, name: str) -> Tensor | None:
        """Return the graph tensor of a tensor argument, None where it is absent, a constant where it is a number."""
        value = self[name]
        if value is None:
            return None
        return self.values.read(value) if isinstance(value, torch.Tensor) else constant(value)

    @property
    def output(self) -> torch.Tensor:
        """The (first) tensor that the operation gave."""
        return self.result if isinstance(self.result, torch.Tensor) else self.result[0]

    def axis(self, name: str = "dim", of: str = "self") -> int:
        """Return an axis argument as a non-negative number."""
        return self[name] % max(1, self[of].dim())

    def axes(self, name: str = "dim", of: str = "self") -> tuple[int, ...]:
        """Return an argument that lists axes; None and [] stand for all of them."""
        rank, given = self[of].dim(), self[name]
        listed = (given,) if isinstance(given, int) else given or range(rank)
        return tuple(sorted(axis % rank for axis in listed)) if rank else ()

    def node(
        self, kind: str, inputs: Sequence[Tensor | None], shape: Sequence[int], evaluate: Callable[..., Array] | None = None, **attrs: Any
    ) -> Tensor:
        """Add a node with one output of a given shape, and return that output."""
        if kind == "matmul" and len(shape) > 2 and self.place[0] in self.recorder.places.attentions:
            inputs = [self._whole_heads(x) for x in inputs if x is not None]
        result = Tensor(tuple(shape), floating=self.output.is_floating_point(), boolean=self.output.dtype == torch.bool)
        self.values.graph.nodes.append(self._node(kind, inputs, (result,), evaluate, attrs))
        return result

    def _whole_heads(self, x: Tensor) -> Tensor:
        """Pin the last axis of what nn.MultiheadAttention multiplies, the size of a head: its scale and its reshapes are for that size."""
        return self.node("identity", (x,), x.shape, fixed=(len(x.shape) - 1,))

    def emit(self, kind: str, *inputs: Tensor | None, evaluate: Callable[..., Array] | None = None, **attrs: Any) -> None:
        """Add the node that gives the operation's (first) output."""
        self.give(self.node(kind, inputs, self.output.shape, evaluate, **attrs))

    def give(self, value: Tensor) -> None:
        """Say that the operation's (first) output holds a value; its other outputs depend on all inputs in unknown ways."""
        written = self.operation.written
        if written:
            self.values.write(self[written[0]], value)
        else:
            self.values.bind(self.output, value)
        if not isinstance(self.result, torch.Tensor):
            inputs = self._inputs()
            for other in tensors_in(list(self.result[1:])):
                self.values.later(other, self.later("unknown", inputs, other_like(other)))

    def later(self, kind: str, inputs: Sequence[Tensor | None], output: Tensor, **attrs: Any) -> Callable[[], Tensor]:
        """Return a function that adds a node and returns its output. It keeps no torch tensor alive."""
        (layer, source), op, nodes = self.place, self.operation.name, self.values.graph.nodes

        def make() -> Tensor:
            nodes.append(Node(kind, tuple(inputs), (output,), attrs, op, layer, source))
            return output

        return make

    def unknown(self) -> None:
        """Add a node that pins everything that the operation reads and gives."""
        given = tuple(tensors_in(self.result))
        inputs = self._inputs()
        outputs = tuple(other_like(tensor) for tensor in given)
        # x.item() gives a Python number: in the graph, a value that nobody reads.
        self.values.graph.nodes.append(self._node("unknown", inputs, outputs or (Tensor(()),), None, {}))
        written = self.written()
        for tensor, value in zip(given, outputs, strict=True):
            if not any(tensor is target for target in written):
                self.values.bind(tensor, value)
        for target in written:
            value = next((v for t, v in zip(given, outputs, strict=True) if t is target), None)
            self.values.write(target, value or self.later("unknown", inputs, other_like(target))())

    def _inputs(self) -> tuple[Tensor, ...]:
        return tuple(self.values.read(tensor) for tensor in self.tensors)

    def written(self) -> list[torch.Tensor]:
        """Return the tensors that the operation writes in place."""
        return list(tensors_in([self[name] for name in self.operation.written]))

    def _node(
        self,
        kind: str,
        inputs: Sequence[Tensor | None],
        outputs: tuple[Tensor, ...],
        evaluate: Callable[..., Array] | None,
        attrs: dict[str, Any],
    ) -> Node:
        layer, source = self.place
        return Node(kind, tuple(inputs), outputs, attrs, self.operation.name, layer, source, evaluate)


def _tensors_in(args: Sequence[Any]) -> list[torch.Tensor]:
    """Return the tensors among arguments, which are mostly tensors and numbers."""
    found: list[torch.Tensor] = []
    for value in args:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple) and value and not isinstance(value[0], int):
            found += tensors_in(value)
    return found


def other_like(tensor: torch.Tensor) -> Tensor:
    """Return a fresh graph tensor of a torch tensor's shape."""
    return Tensor(tuple(tensor.shape), floating=tensor.is_floating_point(), boolean=tensor.dtype == torch.bool)


class Recorder(TorchDispatchMode):
    """While entered, reads each operation with the reader that `readers` has for it.

    Parameters are `seen` through masks where it has some. `hollow` leaves out numbers that are dear and that no shape follows from;
    `looked` is what the model's code has looked at all the same, `spoiled` whether it has written where these numbers should be.
    """

    def __init__(
        self,
        values: Values,
        places: Places,
        literals: Literals,
        readers: dict[Any, Callable[[Call], bool | None]],
        seen: Seen,
        hollow: Hollow | None = None,
    ) -> None:
        super().__init__()
        self.values, self.places, self.literals, self._readers, self._hollow = values, places, literals, readers, hollow
        self.masked = seen.masked
        self.looked: list[Tensor] = []
        self.spoiled = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            result = self._hollow(func, args) if self._hollow is not None and not kwargs else NotImplemented
            ran = result is NotImplemented
            if ran:
                result = func(*args, **kwargs)
            if func.overloadpacket is not aten._assert_tensor_metadata:
                call = Call(self, func, args, kwargs, result)
                if ran and self._hollow is not None and call.operation.written:
                    self.spoiled |= self._hollow.holds(call.written())
                self._read(call)
        return result

    def aside(self, function: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
        """Return what a function gives, of which the recording takes no notice."""
        with _disable_current_modes():
            return function(*args)

    def in_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor's numbers one row after the other in memory; to the graph, that is the same tensor."""
        with _disable_current_modes():
            empty = self._hollow is not None and self._hollow.holds([tensor])
            result = self._hollow.zeros(tensor, tensor.shape) if self._hollow is not None and empty else tensor.contiguous()
        self.values.bind(result, self.values.read(tensor))
        return result

    def _read(self, call: Call) -> None:
        if not call.tensors or call.func.overloadpacket in FRESH:
            return self._constants(call)
        if call.operation.looks:
            self.looked += looked_at(call)
        reader = self._readers.get(call.func.overloadpacket)
        # A reader that returns False met arguments that it does not know.
        if reader is None or reader(call) is False:
            call.unknown()
        if call.operation.gives_views:
            self._views(call)
        return None

    def _constants(self, call: Call) -> None:
        """A tensor made from no tensor: arange, zeros, randn. Its numbers are noted only where they are always the same."""
        for tensor in tensors_in(call.result):
            value = replace(other_like(tensor), role="constant")
            if call.func.overloadpacket in SAME_EACH_TIME and tensor.numel() <= 65536:
                numbers = to_numpy(tensor).copy()
                value.data = lambda numbers=numbers: numbers
            self.values.bind(tensor, value)

    def _views(self, call: Call) -> None:
        base = call.tensors[0]
        for tensor in tensors_in(call.result):
            if tensor is not base:
                self.values.view(tensor, base)


#: These take a tensor for its type and device only.
FRESH = {aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty}
SAME_EACH_TIME = {
    aten.new_zeros,
    aten.new_ones,
    aten.new_full,
    aten.arange,
    aten.zeros,
    aten.ones,
    aten.full,
    aten.eye,
    aten.linspace,
    aten.scalar_tensor,
}
