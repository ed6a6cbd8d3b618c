"""Train a model with plain callables: what algorithms that need data, gradients or fine-tuning are given.

    trainer = nnc.Trainer(data=loader, loss=F.cross_entropy, optimizer=lambda p: torch.optim.AdamW(p, 1e-4), evaluate=accuracy)
    trainer = nnc.Trainer(data=dataset, loss=keras.losses.MeanSquaredError(), optimizer="adam")

The loop is the same on every framework; one step of it is the adapter's (`TrainStep`), objectives and views included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Literal

from nnc.arguments import require, require_takes, whole_number
from nnc.errors import ConfigError, TrainingError
from nnc.instruments import trainable
from nnc.losses import calls_model
from nnc.progress import Advance, bar
from nnc.registry import adapter_for
from nnc.seeds import seed_all

if TYPE_CHECKING:
    from nnc.adapter import TrainStep

Precision = Literal["float32", "bfloat16", "float16"]
_FRESH = "pass a list, a DataLoader, a tf.data.Dataset, or a function that returns a fresh iterator"


@dataclass
class History:
    """What a training run did: the loss of every step, and the metric after every epoch (empty without `evaluate`)."""

    losses: list[float] = field(default_factory=list)
    metrics: list[float] = field(default_factory=list)

    @property
    def metric(self) -> float | None:
        """The metric after the last epoch."""
        return self.metrics[-1] if self.metrics else None


@dataclass
class _Runs:
    """How often a trainer, or a copy of it, has begun to run through the data."""

    begun: int = 0


class Trainer:
    """Data, loss, optimizer and evaluation, the user's own.

    `data`: an iterable of batches that can be run through again, or a function that returns an iterator. A batch is
        `(inputs, targets)`, or a dict that the model takes by name; or the inputs alone, which is all that calibration needs.
    `loss`: `f(outputs, targets)` for such pairs; or, if its first parameter is called `y_true`, `true`, `targets`, `target`, `labels` or
        `label`, `f(targets, outputs)` as Keras has it; or, if that is called `model`, `f(model, batch)`; or None where the outputs carry
        their loss (Hugging Face), or a Keras model is compiled with one. It returns a scalar.
    `optimizer`: PyTorch: a function from parameters to an optimizer, or an optimizer of the model's parameters; Keras: an optimizer, its
        name, or a function from variables to one. None: Keras takes the compiled one. Rounds and stages build an optimizer again.
    `evaluate`: `f(model)` returns a number, the higher the better.
    `epochs`, or `steps` in its place, is how long `train` trains unless told otherwise. `accumulate` batches make one step, that of one
        large batch, also across two runs through the data. Those that are left over at the end of the last epoch make a step of their
        own, divided by how many there are; so many `steps` leave none over.
    `precision`: "bfloat16" or "float16" compute in that and keep the weights in float32.

    Raises `ConfigError` for what cannot be trained with.
    """

    def __init__(
        self,
        data: Any,
        loss: Callable[..., Any] | None = None,
        optimizer: Any = None,
        evaluate: Callable[[Any], float] | None = None,
        *,
        epochs: int = 1,
        steps: int | None = None,
        accumulate: int = 1,
        precision: Precision = "float32",
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        _check_functions(loss, optimizer, evaluate)
        known = ("float32", "bfloat16", "float16")
        require(precision in known, f"Trainer.precision: {precision!r} is none of {', '.join(known)}.")
        _check_data(data, loss)
        self.data = data
        self.loss = loss
        self.optimizer = optimizer
        self.metric = evaluate
        self.epochs, self.accumulate = whole_number("Trainer.epochs", epochs), whole_number("Trainer.accumulate", accumulate)
        self.steps = None if steps is None else whole_number("Trainer.steps", steps)
        self.precision: Precision = precision
        self.seed = whole_number("Trainer.seed", seed, least=0)
        self.progress = progress
        self._runs = _Runs()

    def batches(self) -> Iterator[Any]:
        """Return a fresh run through the data."""
        self._runs.begun += 1
        data = self.data() if callable(self.data) else self.data
        require(isinstance(data, Iterable), f"Trainer.data: the function returned a {type(data).__name__}, which has no batches; {_FRESH}.")
        return iter(data)

    def evaluate(self, model: Any) -> float | None:
        """Return the metric of a model, or None where there is no `evaluate`."""
        if self.metric is None:
            return None
        value = self.metric(model)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"Trainer.evaluate: returned {value!r}; a number is needed, the higher the better.") from None

    def batch_loss(self, model: Any, batch: Any) -> Any:
        """Return the loss of one batch as a scalar tensor: what gradients are taken of, without a step of the optimizer."""
        return trainable(adapter_for(model), "a loss").batch_loss(self.loss, batch)

    @property
    def through(self) -> Callable[..., Any] | None:
        """The loss where it runs the model itself, `f(model, batch)`: only it knows what of a batch the model is given."""
        return self.loss if self.loss is not None and calls_model(self.loss) else None

    def given(self, batch: Any) -> Any:
        """Return what of a batch `adapter.forward(..., through=self.through)` is to run: all of it where the loss runs the model."""
        return inputs_and_targets(batch)[0] if self.through is None else batch

    def afresh(self, adapter: Any) -> Trainer:
        """Return a trainer like this one, for this adapter's model and what is cut from it: each training begins with an optimizer in its
        first state, of the parameters that are left, whether or not the run was killed before it."""
        own = copy(self)
        if hasattr(adapter, "afresh"):
            own.optimizer = adapter.afresh(self.optimizer)
        return own

    def data_state(self, model: Any) -> dict[str, Any]:
        """Return, as plain data, where random numbers of the data's own stand: a DataLoader's `generator`, a `tf.data` that shuffles."""
        adapter = adapter_for(model)
        return adapter.data_state(self.data, self._runs.begun) if hasattr(adapter, "data_state") else {}

    def set_data_state(self, model: Any, state: Mapping[str, Any]) -> None:
        """Let the data go on as from such a state, where this process has not come so far."""
        if state:
            trainable(adapter_for(model), "training").set_data_state(self.data, state, self._runs.begun)
            self._runs.begun = max(self._runs.begun, state.get("runs", 0))

    def train(
        self,
        model: Any,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        after_step: Callable[[int], None] | None = None,
        seed: int | None = None,
        label: str = "train",
    ) -> History:
        """Train `model` for so many epochs, or for so many steps of the optimizer, over as many runs through the data as that takes.

        `after_step(number)` is called after each step, from 1. Python's, NumPy's and the framework's random numbers are seeded first, so
        that the same seed, data and model give the same result. Not seeded is what draws from a state of its own: a DataLoader's
        `generator` and a `tf.data` pipeline that shuffles (see `data_state`), Keras' Dropout, whose state is the model's. Raises
        `TrainingError` for a loss that is no finite scalar, or data that runs dry; what has been trained stays trained.
        """
        epochs, steps = self._duration(epochs, steps)
        seed = self.seed if seed is None else whole_number("seed", seed, least=0)
        adapter = trainable(adapter_for(model), "train()")
        seed_all(adapter, seed)
        step = adapter.trainer(self.loss, self.optimizer, self.precision, self.accumulate)
        last = epochs if steps is None else None
        try:
            with bar(label, steps or self._length(epochs), self.progress) as show:
                run = _Run(step, self.accumulate, show, after_step)
                for epoch in count():
                    left = None if steps is None else steps * self.accumulate - len(run.history.losses)
                    if epoch == last or left == 0:
                        break
                    self._epoch(run, epoch, left)
                    if epoch + 1 == last:
                        run.rest()
                    metric = self.evaluate(model)
                    run.history.metrics += [] if metric is None else [metric]
        finally:
            step.close()
        return run.history

    def _duration(self, epochs: int | None, steps: int | None) -> tuple[int, int | None]:
        """Return for how long to train; steps, where there are any, are what counts."""
        if epochs is None and steps is None:
            return self.epochs, self.steps
        given = self.epochs if epochs is None else whole_number("epochs", epochs)
        return given, None if steps is None else whole_number("steps", steps)

    def _epoch(self, run: _Run, epoch: int, left: int | None) -> None:
        """Run through the data once, or until `left` batches are done."""
        before = len(run.history.losses)
        for batch in islice(self.batches(), left):
            run.batch(batch)
        if len(run.history.losses) == before:
            empty = "has no batches" if not epoch else f"gave batches in the first {epoch} runs through it, and none in the next"
            raise TrainingError(f"Trainer.data: {empty}; {_FRESH}.")

    def _length(self, epochs: int) -> int | None:
        """Return how many steps so many epochs are, where the data say how many batches they have."""
        length = getattr(self.data, "__len__", None)
        try:
            return None if length is None else -(-length() * epochs // self.accumulate)
        except TypeError:  # a tf.data.Dataset of unknown length
            return None


@dataclass
class _Run:
    """A training under way: batches go in, and every `accumulate` of them whoever follows hears of a step."""

    step: TrainStep
    accumulate: int
    show: Advance
    after_step: Callable[[int], None] | None
    history: History = field(default_factory=History)
    steps: int = 0

    def batch(self, batch: Any) -> None:
        self.history.losses.append(self.step(batch))
        if len(self.history.losses) % self.accumulate == 0:
            self._stepped()

    def rest(self) -> None:
        """Make a step of the batches that are left over."""
        if len(self.history.losses) % self.accumulate:
            self.step.rest()
            self._stepped()

    def _stepped(self) -> None:
        self.steps += 1
        metric = "" if self.history.metric is None else f"  metric {self.history.metric:.4f}"
        self.show(self.steps, f"loss {self.history.losses[-1]:.4f}{metric}")
        if self.after_step is not None:
            self.after_step(self.steps)


def inputs_and_targets(batch: Any) -> tuple[Any, Any]:
    """Split a batch for a loss `f(outputs, targets)`; one tensor is inputs without targets. Raises `ConfigError` for what is no batch."""
    if isinstance(batch, Mapping):
        targets = next((name for name in ("labels", "label", "targets", "y") if name in batch), None)
        inputs = {name: value for name, value in batch.items() if name != targets}
        return inputs, None if targets is None else batch[targets]
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    if hasattr(batch, "shape"):
        return batch, None
    what = f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
    raise ConfigError(f"Trainer.data: a batch is {what}; (inputs, targets) or a dict is needed, or a loss f(model, batch).")


def _check_functions(loss: Any, optimizer: Any, evaluate: Any) -> None:
    require(loss is None or callable(loss), f"Trainer.loss: {loss!r} is no function; it takes (outputs, targets), or (model, batch).")
    require(evaluate is None or callable(evaluate), f"Trainer.evaluate: {evaluate!r} is no function; it takes the model.")
    if loss is not None:
        given = ("model", "batch") if calls_model(loss) else ("outputs", "targets")
        require_takes("Trainer.loss", loss, *given, hint="; one whose first parameter is called model is called with (model, batch)")
    if evaluate is not None:
        require_takes("Trainer.evaluate", evaluate, "model")
    if callable(optimizer):
        require_takes("Trainer.optimizer", optimizer, "parameters")


def _check_data(data: Any, loss: Callable[..., Any] | None) -> None:
    require(callable(data) or isinstance(data, Iterable), f"Trainer.data: a {type(data).__name__} has no batches; {_FRESH}.")
    if callable(data):
        require_takes("Trainer.data", data)
        return
    require(
        iter(data) is not data,
        f"Trainer.data: a {type(data).__name__} can be run through once only, and training needs it again; {_FRESH}.",
    )
    pair = isinstance(data, (tuple, list)) and len(data) == 2 and all(hasattr(each, "shape") for each in data)
    if pair:
        first, second = (tuple(each.shape) for each in data)
        # A list of two arrays of one form may be two batches of inputs; a tuple given with a loss of targets is no such thing.
        alone = len(first) != len(second) or (isinstance(data, tuple) and loss is not None and not calls_model(loss))
        require(
            not alone,
            f"Trainer.data: two arrays, {first} and {second}, are one batch and not a list of them; give data=[(inputs, targets)].",
        )
