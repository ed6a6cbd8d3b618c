"""The front door: a model and a config in, a compressed model out.

    config -> entries -> algorithms -> masks, views, objectives on the model -> training -> speedup -> report, save

Entries name their algorithms (entries.py); what an algorithm puts on a model is in instruments.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from nnc.adapter import Adapter, Masks
from nnc.algorithm import Quantizer
from nnc.entries import called
from nnc.errors import ConfigError
from nnc.graph.plan import Plan
from nnc.grid import kept
from nnc.instruments import attach, detach, keep_only, plain_views, restored, trainable
from nnc.masks import merge, unmasked
from nnc.ranges import take, write_ranges
from nnc.recipe import read_recipe
from nnc.registry import adapter_for

if TYPE_CHECKING:
    from nnc.algorithm import Algorithm
    from nnc.export import ExportResult
    from nnc.report import Report
    from nnc.speedup import ModelSpeedup
    from nnc.trainer import History, Trainer


def compress(
    model: Any,
    config: Any,
    example_inputs: Any = None,
    *,
    trainer: Trainer | None = None,
    teacher: Any = None,
    optimizer: Any = None,
    seed: int = 0,
    allow_inexact: bool = False,
) -> Compressed:
    """Put on `model` what `config` says: masks, and for training what learns, distils or quantises.

    `config` is a config_list, one entry, a recipe, or the path of a recipe in YAML or JSON. An entry without `algorithm` is
    pruned with the recipe's, else with "l1_norm". `example_inputs` are what `speedup()` and `report()` run the model on.
    `trainer` is for algorithms that need data (`nnc.Trainer`); `teacher`, by default a frozen copy of the untouched model, for
    distillation; `optimizer`, on PyTorch, the one of a loop of your own: what algorithms train beside the model learns with it.
    `allow_inexact`, here or in the recipe, offers what a mean is taken over, as the width under a LayerNorm, too; `report()` then says
    how far the outputs moved.
    Raises `ConfigError` or `ModelError` before anything is touched.
    """
    recipe = read_recipe(config)
    allow_inexact = allow_inexact or recipe.allow_inexact
    adapter = adapter_for(model)
    model = adapter.model  # what a path names is read once
    wanted = called(model, recipe)
    if teacher is None and any(cls.kind == "distill" for cls, _ in wanted):
        teacher = untouched(adapter)
    options = {
        "prune": {"allow_inexact": True} if allow_inexact else {},
        "distill": {"teacher": teacher},
    }
    chosen = [cls(model, entries, example_inputs, trainer=trainer, seed=seed, **options.get(cls.kind, {})) for cls, entries in wanted]
    before = _at_work(adapter)
    masks = attach(adapter, chosen, teacher, optimizer)
    lost = sorted(before - _at_work(adapter))
    if lost:
        remedy = "put all entries in one config_list, or call finish() or speedup() of the earlier one first"
        what = f"{', '.join(lost)} of an earlier nnc.compress has been taken off, with what it had learned"
        warnings.warn(f"model: {what}; {remedy}.", UserWarning, stacklevel=2)
    return Compressed(model, masks, example_inputs, allow_inexact, algorithms=chosen, trainer=trainer)


def _at_work(adapter: Adapter) -> set[str]:
    """Return the names of the views and objectives that a model has."""
    if not hasattr(adapter, "set_views"):
        return set()
    ready = trainable(adapter, "views")
    return {view.name for site_views in ready.views().values() for view in site_views} | {one.name for one in ready.objectives()}


def untouched(adapter: Adapter) -> Any:
    """Return a copy of the user's model without masks or views."""
    with unmasked(adapter):
        return adapter.shrink(Plan(), {}, {})


class Compressed:
    """A compressed model on its way: `model` is the masked one at first, the small one after `speedup()`."""

    def __init__(
        self,
        model: Any,
        masks: Masks,
        example_inputs: Any = None,
        allow_inexact: bool = False,
        *,
        algorithms: Sequence[Algorithm] = (),
        trainer: Trainer | None = None,
    ) -> None:
        self.original = model
        self.model = model
        self.masks = masks
        self.example_inputs = example_inputs
        self.allow_inexact = allow_inexact
        self.algorithms = tuple(algorithms)
        self.trainer = trainer
        self._speedup: ModelSpeedup | None = None

    def loss(self, loss: Any, mask: Any = None, *, lengths: Any = None) -> Any:
        """Return the loss of the forward pass that has just run with what distillation and regularisers add, in a PyTorch loop.

        `loss` is your own, or None to learn from the teacher alone. `mask` says which tokens are valid, `(batch, length)`; or `lengths`
        says how many of each sample are, `(batch,)`. Keras adds the same in `fit`, by itself.
        """
        if mask is not None and lengths is not None:
            raise ConfigError("loss: mask and lengths say the same; give one of them.")
        valid = _array("mask", mask) if lengths is None else _array("lengths", lengths)
        return trainable(adapter_for(self.model), "loss()").total(loss, valid)

    def train(self, *, epochs: int | None = None, steps: int | None = None) -> History:
        """Train `.model`, as it is seen now, with the trainer that `nnc.compress` was given."""
        if self.trainer is None:
            raise ConfigError("trainer: train() needs one: nnc.compress(model, config, trainer=nnc.Trainer(...)).")
        return self.trainer.train(self.model, epochs=epochs, steps=steps)

    def callback(self, loop: str | None = None) -> Any:
        """Return a callback for a training loop that others wrote, to be given to it before it trains; it ends with `finish()`.

        `loop` is "transformers" (the default on PyTorch; terms enter the loss by themselves), "lightning" (call `loss` in your
        `training_step`) or "keras" (the default there). Raises `ConfigError` for another, or one that is not installed.
        """
        return trainable(adapter_for(self.model), "callback()").callback(loop, self.finish)

    def finish(self) -> Masks:
        """Let what learned in training decide its masks; all but quantizers leave the model. Return all its masks."""
        adapter = adapter_for(self.original)
        leaving = [one for one in self.algorithms if one.kind != "quantize"]
        if leaving and self._speedup is None:
            with restored(adapter):
                for one in leaving:
                    self.masks = merge(self.masks, one.finish())
                keep_only(adapter, self.quantizers)
                adapter.set_masks(self.masks)
            self.algorithms = self.quantizers
        return self.masks

    @property
    def quantizers(self) -> tuple[Quantizer, ...]:
        """The algorithms that quantise `.model`."""
        return tuple(one for one in self.algorithms if isinstance(one, Quantizer))

    def calibrate(self, batches: Any = None) -> None:
        """Measure the ranges of activations of `.model` again, the small one after `speedup()`, and see it on grids of these.

        `batches` are of inputs; by default the trainer's first `calib_steps`. Scales that have learned begin again. Raises `ConfigError`
        where nothing quantises the model, or before `finish()` where another algorithm is still on it.
        """
        with self._quantised_again("calibrate()"):
            for one in self.quantizers:
                one.calibrate(batches)

    def save_calibration(self, path: str | PathLike[str]) -> None:
        """Write the ranges that were measured to a file, for `load_calibration`. Raises `StorageError` where that cannot be."""
        self._require_quantised("save_calibration()")
        write_ranges({site: limits for one in self.quantizers for site, limits in one.calibration().items()}, path)

    def load_calibration(self, path: str | PathLike[str]) -> None:
        """See `.model` on grids of ranges that were measured before, on the same layers by the same config_list.

        Scales that have learned begin again. Raises `ConfigError` for a file of other layers, `StorageError` for one that holds none.
        """
        with self._quantised_again("load_calibration()"):
            take(path, self.quantizers)

    def _require_quantised(self, call: str) -> None:
        if not self.quantizers:
            raise ConfigError(f"{call}: nothing quantises this model; name an algorithm such as ptq or qat_ste in its config.")

    @contextmanager
    def _quantised_again(self, call: str) -> Iterator[None]:
        """Take the grids off, and put the model on those that quantizers find in the block; after an exception the old ones are back."""
        self._require_quantised(call)
        if len(self.quantizers) < len(self.algorithms):
            names = ", ".join(one.name for one in self.algorithms if one.kind != "quantize")
            raise ConfigError(f"{call}: {names} is still on this model; call finish() or speedup() first.")
        adapter = trainable(adapter_for(self.model), call)
        if not adapter.views():
            raise ConfigError(f"{call}: nothing quantises this model any more: unwrap() took it off; call nnc.compress again.")
        with plain_views(adapter):
            yield
            attach(adapter, self.quantizers)

    def export(self, path: str | PathLike[str], **options: Any) -> ExportResult:
        """Write `.model` to a file, quantised as it is now, and compare the file with it; see `nnc.export`."""
        from nnc.export import export

        inputs = self._inputs("export")
        if self.quantizers:
            grids = {site: grid for one in self.quantizers for site, grid in one.grids().items()}
            options = {"grids": grids, "reference": adapter_for(self.model).run(inputs), **options}
        return export(self.model, path, inputs, **options)

    def speedup(self, *, allow_inexact: bool | None = None) -> Any:
        """Cut what is masked out of the model, keep the small model in `.model`, and return it.

        `allow_inexact` is what `nnc.compress` was told unless given here. The original loses its masks and is whole again.
        Raises `ConfigError` without example inputs, and what `nnc.ModelSpeedup` raises; the masks then stay as they were.
        """
        from nnc.speedup import ModelSpeedup

        self.finish()
        adapter = adapter_for(self.original)
        inputs = self._inputs("speedup")
        inexact = self.allow_inexact if allow_inexact is None else allow_inexact
        learned = [(one, one.grids()) for one in self.quantizers]
        with plain_views(adapter):
            speedup = ModelSpeedup(self.original, inputs, self.masks, allow_inexact=inexact)
            small = speedup.speedup_model()
            moved = tuple(one.moved(small, inputs, kept(grids, speedup.plan)) for one, grids in learned)
            attach(adapter_for(small), moved)
        detach(adapter)
        self._speedup, self.model, self.algorithms = speedup, small, moved
        return small

    def report(self) -> Report:
        """Return parameters, bytes, MACs and measured latency of the original and of `.model`."""
        if self._speedup is not None:
            return self._speedup.report()
        from nnc.report import report

        return report(self.original, self.model, self._inputs("report"))

    def save(self, folder: str | PathLike[str]) -> None:
        """Write `.model` to a folder that `nnc.load` reads: its weights as stored, its masks and its plans.

        Not kept: grids of quantizers, scores and projections that are still learning, the teacher. So `nnc.load` gives a float
        model; put the config on it again to train on, or `export` the grids in a file.
        """
        from nnc.storage import save

        save(self.model, folder)

    def unwrap(self) -> Any:
        """Take everything off the original model and return it. The small one, after `speedup()`, loses its grids too."""
        detach(adapter_for(self.original))
        if self._speedup is not None:
            detach(adapter_for(self.model))
        return self.original

    def _inputs(self, purpose: str) -> Any:
        if self.example_inputs is None:
            remedy = "nnc.compress(model, config, example_inputs=...)"
            raise ConfigError(f"example_inputs: {purpose}() runs the model, so it needs some: {remedy}.")
        return self.example_inputs


def _array(name: str, value: Any) -> Any:
    """Return a mask or lengths as a tensor or an array. Raises `ConfigError` for what holds no numbers."""
    if value is None or hasattr(value, "shape"):
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{name}: {value!r} holds no numbers; give a tensor, 1 at valid tokens, or the length of each sample.")
    return array
