"""Tensors that are seen through a function: what training-time algorithms put between a model and its numbers.

    mask               where(keep, w, 0)                          no variables
    movement           w * top(scores)                            variables: scores, trained
    LSQ on a weight    s * clip(round(w / s), -Q, Q)              variables: s, trained
    EMA fake quant     of an activation                           variables: the range, assigned in training

A `Site` names the tensor, a `View` is the function: differentiable, written once over `Ops`, applied in order and after the masks:
W_effective = FakeQuant(mask * W). The stored parameter is never overwritten, so taking the views away gives the user's model back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from nnc.graph.ir import Array

if TYPE_CHECKING:
    from nnc.adapter import Ops


@dataclass(frozen=True, order=True)
class Site:
    """A tensor of a model: `tensor` is a parameter of the layer ("weight", "bias"), or what passes it ("input", "output").

    A layer with several inputs or outputs counts their tensors, those within tuples and dicts too: "input" is the first, "input:1" the
    second. A key names one as well ("output:logits", "input:attention_mask"), and a path one in a nest ("output:hidden_states.3", or
    "output:hidden_states[3]"). `Site("", "output")` is the model's own output, the first that is not its "loss".
    """

    layer: str
    tensor: str = "output"

    def __str__(self) -> str:
        return f"{self.layer}.{self.tensor}".lstrip(".")

    @property
    def is_parameter(self) -> bool:
        """Whether the site is a stored parameter, not what passes the layer."""
        return self.tensor.partition(":")[0] not in ("input", "output")


@dataclass(frozen=True)
class Variable:
    """A number, or an array, that a view or an objective keeps with the model: its first value, and whether it is trained.

    A trained one learns as its `group` says (`Learning`), beside the user's own parameters. Variables of one `shared` name are one
    variable, whichever views keep them: their gradients add up, as where query, key and value share a scale or a head's score.
    """

    value: Array
    trainable: bool = False
    group: str = ""
    shared: str = ""


@dataclass(frozen=True)
class Learning:
    """How the trained variables of one group learn: plain "sgd", or "adam" without weight decay, at a rate of their own.

    They step whenever the user's optimizer does, and never enter it: its state and its schedule stay the user's.
    """

    rate: float
    rule: Literal["sgd", "adam"] = "adam"


class State(Protocol):
    """A view's variables in the framework: `state["scale"]` is a tensor that gradients flow to if it is trained."""

    def __getitem__(self, name: str) -> Any: ...

    def assign(self, name: str, value: Any) -> None:
        """Set an untrained variable to a tensor of its shape; no gradient flows through that. Works inside compiled functions."""
        ...


class View(ABC):
    """A function through which a model sees one tensor.

    `name` tells the views of one site apart: a second one of the same name takes the first one's place. Views of what passes layers
    that have the same `shared`, and is not "", are one function with one set of variables: what one of them has computed of a tensor
    in a forward pass, the others are given.
    """

    name: str
    shared: str = ""

    def variables(self) -> Mapping[str, Variable]:
        """Return the variables that the view keeps, with their first values."""
        return {}

    @abstractmethod
    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        """Return what is seen instead of `x`, of the same shape and type.

        A weight is `(out, in, *kernel)`; what passes a layer has the framework's own layout. `training` is a Python bool. It runs
        in every forward pass, compiled ones included: tensors and `ops` only, no Python side effects but `state.assign`.
        """


#: What a model is seen through: the views of each site in the order in which they are applied.
Views = Mapping[Site, tuple[View, ...]]
