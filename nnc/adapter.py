"""All that nnc may ask of a model: the three protocols that a framework's adapter implements.

An algorithm sees `Layer` and `Ops` and nothing else, so it is written once. An adapter names no algorithm, so the code grows as a
sum. Parameters pass this border in the canonical orientation `(out, in, *kernel)`; how a framework stores them stays behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nnc.graph.ir import Array, Graph, Shape
from nnc.graph.plan import Plan, Reshape, Size

#: {layer name: {parameter name: boolean array in the canonical shape}}; True stays, False is masked.
Masks = dict[str, dict[str, Array]]


class Ops(Protocol):
    """The framework's tensor operations under the names of the array API standard (data-apis.org/array-api, 2024.12).

    Algorithms use: abs, sum, sqrt, square, max, matmul, reshape, asarray and arithmetic operators on the tensors themselves.
    """

    def __getattr__(self, name: str) -> Any: ...


class Layer(Protocol):
    """A layer that holds parameters.

    `name` is its dotted path in the model; `op_type` the neutral name of what it does (`"Conv2d"`); `op_types` every name under
    which a config_list may ask for it: the neutral one, the more general one, the framework's own class. `parameters` gives
    the canonical shape of each parameter; `native` maps the framework's own parameter names to them (`{"kernel": "weight"}`).
    """

    @property
    def name(self) -> str: ...
    @property
    def op_type(self) -> str: ...
    @property
    def op_types(self) -> tuple[str, ...]: ...
    @property
    def prunable(self) -> bool:
        """True where `weight` has output channels in its first axis: what a config_list selects from."""
        ...

    @property
    def parameters(self) -> Mapping[str, Shape]: ...
    @property
    def native(self) -> Mapping[str, str]: ...
    @property
    def ops(self) -> Ops: ...

    @property
    def weight(self) -> Any:
        """The effective weight (masks applied), the framework's tensor in the canonical shape `(out, in, *kernel)`."""
        ...

    @property
    def bias(self) -> Any | None:
        """The effective bias, `(out,)`, or None."""
        ...

    def canonical(self, parameter: str, array: Array) -> Array:
        """Return an array that has the framework's own layout of `parameter` (a native name) in the canonical shape."""
        ...


@dataclass(frozen=True)
class Trace:
    """A recorded forward pass: its graph, and its outputs as arrays in the order of `graph.outputs`."""

    graph: Graph
    outputs: tuple[Array, ...]


class Adapter(Protocol):
    """One model of one framework. Constructing it changes nothing; it raises `ModelError` for a model that it cannot work on."""

    framework: str
    model: Any

    def __init__(self, model: Any) -> None: ...

    def layers(self) -> Sequence[Layer]:
        """Return the layers that hold parameters, in the order in which the model defines them."""
        ...

    def masks(self) -> Masks:
        """Return the masks that the model is seen through now; `{}` where it is not masked."""
        ...

    def set_masks(self, masks: Masks) -> None:
        """See the model's parameters through `masks` (complete and validated); `{}` gives the user's model back.

        The stored parameters stay the same objects with the same numbers; gradients of masked entries are zero. Either all
        masks are set or, after an exception, the model is as it was.
        """
        ...

    def trace(self, example_inputs: Any, masks: Masks) -> Trace:
        """Record one forward pass in inference mode with `masks` over the parameters. The model is as before afterwards.

        Raises `ConfigError` for example inputs that the model's signature rejects, `TraceError` (with the nodes up to the
        failure in its `graph` attribute, the user's source line in its message) where the model fails on them.
        """
        ...

    def run(self, example_inputs: Any) -> tuple[Array, ...]:
        """Return the outputs of one forward pass in inference mode, compiled or not as the framework's users would run it."""
        ...

    def shrink(self, plan: Plan, masks: Masks, folds: Mapping[str, Array]) -> Any:
        """Return a new, smaller model: parameters masked, constants of `folds` ({bias path: addend of the full size}) added, cut.

        The user's model stays as it is. Sizes that layers hold (out_channels, units, groups, ...) follow. The new model
        remembers `plans()` of this one, and `plan` after them.
        """
        ...

    def rewrite(self, reshape: Reshape) -> tuple[Size, ...]:
        """Give this (small) model's layer a forward in which the call that `reshape` describes has the new sizes.

        Where attributes of the layer give the sizes, set those instead, and return them.

        Raises `SpeedupError` that names the line where the call cannot be rewritten, with what to write there instead.
        """
        ...

    def plans(self) -> tuple[Plan, ...]:
        """Return the plans that made this model from the one that the user built, oldest first."""
        ...

    def remember(self, plans: tuple[Plan, ...]) -> None:
        """Note on the model that `plans` made it."""
        ...

    def tensors(self) -> dict[str, Array]:
        """Return every stored parameter and buffer by its canonical path, in the framework's own layout."""
        ...

    def load_tensors(self, tensors: Mapping[str, Array]) -> None:
        """Set every stored parameter and buffer. Raises `StorageError` that names what is missing, left over, or misshapen."""
        ...

    def blueprint(self) -> dict[str, Any] | None:
        """Return plain data from which `rebuild` makes the model's architecture in a fresh process, or None where there is none."""
        ...

    @staticmethod
    def rebuild(blueprint: Mapping[str, Any]) -> Any:
        """Return the model, with numbers of no meaning, whose adapter gave `blueprint`. Raises `StorageError` where it cannot be read."""
        ...
