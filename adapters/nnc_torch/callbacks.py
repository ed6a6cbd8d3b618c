"""nnc in loops that others write: Hugging Face's `Trainer` and Lightning.

    transformers.Trainer(model, ..., callbacks=[c.callback()])
    lightning.Trainer(callbacks=[c.callback("lightning")])        and loss = c.loss(loss) in training_step

Both tell the model's trained variables of the optimizer, which those loops make late. Hugging Face's loss is made inside the model's
forward, so the terms are added there, by a hook that is gone when training ends, or when the model is taken out of nnc's hands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import nn

from nnc.errors import ConfigError
from nnc_torch.instruments import instruments
from nnc_torch.learning import learn
from nnc_torch.objectives import total

Done = Callable[[], Any]


def callback(model: nn.Module, loop: str | None, done: Done) -> Any:
    """Return the callback for a loop, "transformers" or "lightning"; `done` is called when training ends."""
    if loop in (None, "transformers", "huggingface"):
        return _of("transformers", "TrainerCallback", _HuggingFace)(model, done)
    if loop == "lightning":
        return _of(_lightning(), "Callback", _Lightning)(model, done)
    raise ConfigError(f"loop: {loop!r} is neither 'transformers' nor 'lightning'; in a loop of your own call c.loss(loss).")


def _lightning() -> str:
    """Return the package of Lightning's two that the program uses: the one that is imported, else one that is installed."""
    names = ("lightning.pytorch", "pytorch_lightning")
    imported = (name for name in names if name in sys.modules)
    installed = (name for name in names if find_spec(name.partition(".")[0]))
    return next(imported, None) or next(installed, names[0])


def _of(module: str, base: str, body: type) -> type:
    """Return `body` as a subclass of the loop's own class of callbacks, without importing a loop that nobody uses."""
    try:
        return type(body.__name__.lstrip("_") + "Callback", (body, getattr(import_module(module), base)), {})
    except ImportError as error:
        raise ConfigError(f"loop: {module} is not installed: {error}. In a loop of your own call c.loss(loss).") from None


class _HuggingFace:
    def __init__(self, model: nn.Module, done: Done) -> None:
        self.model, self.done = model, done
        self.accumulate = 1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.accumulate = args.gradient_accumulation_steps
        _teach(self.model, kwargs["optimizer"])
        if (kept := instruments(self.model)).objectives:
            kept.hooked(self.model.register_forward_hook(self._add, with_kwargs=True))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        instruments(self.model).hooked()
        self.done()

    def _add(self, model: nn.Module, args: Any, kwargs: Mapping[str, Any], outputs: Any) -> Any:
        """Add the terms to the loss among the outputs, in training."""
        if not model.training:
            return outputs
        own = outputs.get("loss") if isinstance(outputs, Mapping) else None
        if own is None:
            raise ConfigError(f"loss: {type(model).__name__} returned none: the batches need labels, and return_dict has to be left on.")
        # Where the Trainer tells how many items a step has, it leaves the division among the step's batches to the loss.
        parts = self.accumulate if kwargs.get("num_items_in_batch") is not None else 1
        outputs["loss"] = total(model, own * parts) / parts
        return outputs


class _Lightning:
    def __init__(self, model: nn.Module, done: Done) -> None:
        self.model, self.done = model, done

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        _teach(self.model, trainer.optimizers[0])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.done()


def _teach(model: nn.Module, optimizer: Any) -> None:
    kept = instruments(model)
    if kept.trained():
        learn(model, kept.learning, optimizer)
