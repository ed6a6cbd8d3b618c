"""All that nnc may ask of a model: the three protocols that a framework's adapter implements.

An algorithm sees `Layer` and `Ops` and nothing else, so it is written once. An adapter names no algorithm, so the code grows as a
sum. Parameters pass this border in the canonical orientation `(out, in, *kernel)`; how a framework stores them stays behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from nnc.graph.ir import Array, Graph, Shape
from nnc.graph.plan import Plan, Reshape, Size
from nnc.objective import Objective
from nnc.views import Learning, Site, Views

#: {layer name: {parameter name: boolean array in the canonical shape}}; True stays, False is masked.
Masks = dict[str, dict[str, Array]]


class Ops(Protocol):
    """The framework's tensor operations under the names of the array API standard (data-apis.org/array-api, 2024.12).

    Algorithms use: abs, sum, sqrt, square, max, matmul, reshape, asarray and arithmetic operators on the tensors themselves.
    Everything is differentiable where the framework trains. Beyond the standard there are the verbs below, and `sigmoid(x)`,
    `softmax(x, axis)`, `log_softmax(x, axis)` (of half-precision numbers computed in float32, given back in their type) and
    `shape(x)`, sizes that `reshape` takes, in compiled functions too.
    """

    def __getattr__(self, name: str) -> Any: ...

    def stop_gradient(self, x: Any) -> Any:
        """Return the same numbers, through which no gradient flows."""
        ...

    def with_gradient(self, forward: Callable[..., Any], backward: Callable[..., Any], *tensors: Any) -> Any:
        """Return `forward(*tensors)[0]` with the gradient that `backward` gives, instead of the framework's.

        `forward(*tensors) -> (y, saved)`, saved a tuple of tensors; `backward(gradient, *saved)` returns one gradient for each of
        `tensors`, or None. Neither records gradients itself.
        """
        ...

    def only(self, x: Any, keep: Any) -> Any:
        """Return `where(keep, x, 0)`, `keep` of the shape of `x`; faster than `where` or a product of the two where frameworks can."""
        ...

    def on_grid(self, x: Any, scale: Any, zero: Any, low: float | None, high: float | None) -> Any:
        """Return `scale * (clip(round(x / scale) + zero, low, high) - zero)`, through which no gradient flows.

        Without a zero point (None) it is 0; without bounds nothing is clipped.
        """
        ...

    def clip_gradient_of_levels(self, gradient: Any, x: Any, scale: Any, zero: Any, low: float, high: float) -> Any:
        """Return `gradient` where low <= round(x / scale) + zero <= high, else 0; `zero` may be None. It has no gradient itself."""
        ...

    def ratio_gradients(self, gradient: Any, x: Any, shown: Any, scale: Any, low: float, high: float, axes: Any = None) -> tuple[Any, Any]:
        """Return p, which is `gradient` where low <= x / scale <= high, else 0, and sum(gradient * shown - p * x).

        The sum is over all axes, or over `axes`, which then stay as ones. Neither has a gradient itself.
        """
        ...

    def few(self, function: Callable[..., Any], *numbers: Any) -> tuple[Any, ...]:
        """Return the tuple that `function(ops, *numbers)` makes of tensors of one number each; no gradient flows through it.

        A framework may do it outside its tensors, with another library's `ops` of the standard's names, where these cost too much.
        """
        ...

    def extremes(self, x: Any) -> tuple[Any, Any]:
        """Return the smallest and the largest number of all."""
        ...

    def without_lowest(self, x: Any, count: Any) -> Any:
        """Return False at the `count` lowest numbers of `x`, equal ones in the order of their index, else True, of the shape of `x`.

        `count`, a whole number or a scalar tensor, may be 0. Has no gradient.
        """
        ...

    def only_highest(self, x: Any, scores: Any, count: Any) -> Any:
        """Return `only(x, without_lowest(scores, count))`, `scores` of the shape of `x`: what has the highest scores.

        The gradient of `x` is masked alike. The scores have the gradient of a mask by which `x` was multiplied, as if they were it
        (straight through, Bengio et al., 2013, arXiv:1308.3432): `gradient * x`, of what is masked too. Has no second gradient.
        """
        ...


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
        """True where `weight` has output channels, in its first axis or, of an Embedding, its last: what a config_list selects from."""
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

    def seen(self, parameter: str) -> Any:
        """Return a parameter as the model sees it now, masks and views applied, canonical. Of adapters that train."""
        ...

    def stored(self, parameter: str) -> Any:
        """Return a parameter as the user's model stores it, without masks and views, canonical. Of adapters that train."""
        ...

    def canonical(self, parameter: str, array: Array) -> Array:
        """Return an array that has the framework's own layout of `parameter` (a native name) in the canonical shape."""
        ...


@dataclass(frozen=True)
class Trace:
    """A recorded forward pass: its graph, and its outputs as arrays in the order of `graph.outputs`.

    Which channels can leave follows from the graph alone. So an adapter may `compute` the outputs when they are first asked for, on the
    model as it is then; what `Adapter.trace` raises may come from there.
    """

    graph: Graph
    compute: Callable[[], tuple[Array, ...]]

    @cached_property
    def outputs(self) -> tuple[Array, ...]:
        return self.compute()


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

    def structure(self, example_inputs: Any) -> Graph:
        """Return the graph that `trace` records without masks; its numbers need not be computed, nor its values follow from them.

        Raises what `trace` does.
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

        Where attributes of the layer give the sizes, set those instead, and return them; unless `reshape.rewrite` says that the call
        itself is to change.

        Raises `SpeedupError` that names the line where the call cannot be rewritten, with what to write there instead.
        """
        ...

    def export(self, path: Path, example_inputs: Any, opset: int | None) -> None:
        """Write the model as float ONNX to `path`, one file, as it stands without masks and views.

        Weights are initialisers called `<layer>.weight`, and every node notes its layer in its metadata under `nnc.export.LABEL`.
        The first axis of the inputs is of any size where the model allows it. Raises `ConfigError` for an opset that the framework's
        exporter does not write, `ExportError` for a model that it cannot convert.
        """
        ...

    def plans(self) -> tuple[Plan, ...]:
        """Return the plans that made this model from the one that the user built, oldest first."""
        ...

    def remember(self, plans: tuple[Plan, ...]) -> None:
        """Note on the model that `plans` made it."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the report should know of this small model besides its plan, as a config that cannot say its sizes."""
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


#: Numbers of the variables that views and objectives keep: {(site or objective name, view name or ""): {variable: array}}.
Numbers = dict[tuple[str, str], dict[str, Array]]


class TrainableAdapter(Adapter, Protocol):
    """An adapter of a framework that trains. A model that was never instrumented is untouched by all of this."""

    def forward(
        self, batch: Any, sites: Collection[Site] = (), training: bool = False, through: Callable[..., Any] | None = None
    ) -> tuple[Any, dict[Site, Any]]:
        """Run one batch (a tensor, a tuple of them, or a dict of names) eagerly and without gradients.

        `through(model, batch)` runs the model instead, on a batch of whatever form; what it returns are then the outputs.

        Return the model's outputs as the framework gives them, and what passed each of `sites`, as the framework's tensors in its
        own layout. Of a layer that runs more than once it is what passed last. Raises `ConfigError` for a batch that the model
        rejects, or a site that no forward pass reaches.
        """
        ...

    def gradients(self, loss: Callable[..., Any], sites: Collection[Site], *batch: Any) -> tuple[float, dict[Site, Any]]:
        """Return `loss(model, *batch)`, and its gradient with respect to each of `sites`; stored gradients stay as they are.

        What differs from call to call is `batch`, nests of tensors or arrays: a framework may compile the rest when it comes again.

        `loss` runs the model, which is in inference mode (dropout off, BatchNorm's statistics stay), and returns a scalar tensor.
        Of a parameter the gradient is that of the effective one, canonical `(out, in, *kernel)`; masked entries have one too. Of what
        passes a layer it has that tensor's own layout.
        """
        ...

    def blame(self, loss: Callable[..., Any], batch: Any) -> str:
        """Return, in words, what was not finite first where `loss(model, batch)`, or its gradient, is not: a layer, a weight, the batch."""
        ...

    def batch_loss(self, loss: Callable[..., Any] | None, batch: Any) -> Any:
        """Return the loss of one batch in inference mode as a scalar tensor; `loss` and `batch` as `nnc.Trainer` describes them."""
        ...

    def seed(self, seed: int) -> None:
        """Seed the framework's random numbers: dropout, shuffling, initialisers."""
        ...

    def afresh(self, optimizer: Any) -> Any:
        """Return what gives each training an optimizer in its first state, of the `optimizer` that a trainer has.

        Raises `ConfigError` for one that cannot be made again from what it says of itself.
        """
        ...

    def data_state(self, data: Any, runs: int) -> dict[str, Any]:
        """Return, as plain data, where random numbers of the user's data stand that has been run through `runs` times; {} without any."""
        ...

    def set_data_state(self, data: Any, state: Mapping[str, Any], runs: int) -> None:
        """Let data that has been run through `runs` times go on as from such a state."""
        ...

    def write(self, numbers: Mapping[Site, Array]) -> dict[Site, Array]:
        """Set stored parameters, canonical `(out, in, *kernel)`, and return the numbers that they had.

        All are set or, after an error, none.
        """
        ...

    def views(self) -> Views:
        """Return what the model is seen through now, masks apart; `{}` where it is plain."""
        ...

    def set_views(self, views: Views) -> None:
        """See the model through `views` and no others; `{}` gives the plain model back. After an exception it is as it was.

        Variables of a view that stays (same site and name) keep their numbers.
        """
        ...

    def objectives(self) -> Sequence[Objective]:
        """Return what adds to the loss of every training step now."""
        ...

    def set_objectives(self, objectives: Sequence[Objective], teacher: Any = None) -> None:
        """Add the objectives' terms to every training step's loss; an empty sequence takes them away. `teacher` stays frozen."""
        ...

    def learn(self, groups: Mapping[str, Learning], optimizer: Any = None) -> None:
        """Say how the trained variables of views and objectives learn: after every step of `optimizer`.

        PyTorch needs the user's optimizer, and trains nothing without; Keras takes the one that the model is compiled with.
        Raises `ConfigError` where a trained variable's group is not among `groups`.
        """
        ...

    def total(self, loss: Any, mask: Any = None) -> Any:
        """Return the loss of the forward pass that has just run, with all objectives' terms; `loss` None means no task loss."""
        ...

    def terms(self) -> dict[str, float]:
        """Return the terms of the last training step by name ("objective.term"), the task's own as "task"."""
        ...

    def numbers(self) -> Numbers:
        """Return the numbers of all variables of views and objectives."""
        ...

    def set_numbers(self, numbers: Numbers) -> None:
        """Set such numbers; variables that are not named keep theirs."""
        ...

    def callback(self, loop: str | None, done: Callable[[], Any]) -> Any:
        """Return a callback for a training loop of the framework's, by its name, that calls `done` when training ends."""
        ...

    def trainer(self, loss: Any, optimizer: Any, precision: str, accumulate: int) -> TrainStep:
        """Return what trains the model on batches, the adapter's part of `nnc.Trainer` (trainer.py says what its arguments may be)."""
        ...


class TrainStep(Protocol):
    """A model in training: its optimizer, and one step at a time."""

    def __call__(self, batch: Any) -> float:
        """Train on one batch, objectives included, and return the loss, mean over the batch. Raises `TrainingError` for NaN."""
        ...

    def rest(self) -> None:
        """Step with the batches that have been accumulated since the last step, by their own mean; without any do nothing."""
        ...

    def state(self) -> dict[str, Array]:
        """Return the optimizer's state as flat arrays, to continue a run that was killed."""
        ...

    def load_state(self, state: Mapping[str, Array]) -> None: ...

    def close(self) -> None:
        """Leave training: the model's mode is what it was."""
        ...
