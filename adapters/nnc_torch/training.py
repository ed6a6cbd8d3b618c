"""One step of nnc.Trainer on a torch model: forward, objectives, backward, and, every `accumulate` batches, the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from nnc.errors import ConfigError, TrainingError
from nnc.graph.ir import Array
from nnc.losses import calls_model, of_pair
from nnc.trainer import inputs_and_targets
from nnc_torch.inference import arguments, to_numpy
from nnc_torch.instruments import device_of, instruments
from nnc_torch.learning import learn
from nnc_torch.nonfinite import first_not_finite
from nnc_torch.objectives import total
from nnc_torch.optimizers import optimizer_of
from nnc_torch.placing import batch_for
from nnc_torch.scalars import NO_GRADIENT, scalar

Loss = Callable[..., Any] | None

_RETURNED = "Trainer.loss: returned"


def batch_loss(model: nn.Module, loss: Loss, batch: Any) -> torch.Tensor:
    """Return the loss of one batch, as `nnc.Trainer` describes `loss` and `batch`: a scalar tensor."""
    batch = batch_for(model, batch)
    if loss is not None and calls_model(loss):
        return scalar(loss(model, batch), _RETURNED)
    if loss is not None:
        inputs, targets = inputs_and_targets(batch)
        args, kwargs = arguments(model, inputs, "Trainer.data")
        return scalar(of_pair(loss, model(*args, **kwargs), targets), _RETURNED)
    try:
        args, kwargs = arguments(model, batch, "Trainer.data")
    except ConfigError as error:
        raise ConfigError(f"{error} With loss=None the model is given all of a batch; targets beside the inputs need a loss.") from None
    outputs = model(*args, **kwargs)
    own = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    if own is None:
        raise ConfigError(f"Trainer.loss: None was given, and {type(model).__name__} returned no loss: are there labels in the batch?")
    return scalar(own, _RETURNED)


class TorchTrainStep:
    """Trains a model on one batch at a time. Computes in `precision` under autocast; weights stay as they are."""

    def __init__(self, model: nn.Module, loss: Loss, optimizer: Any, precision: str, accumulate: int) -> None:
        self.model, self.loss, self.accumulate = model, loss, accumulate
        self.device = device_of(model)
        self.optimizer = optimizer_of(model, optimizer)
        self.half = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "float16")
        self.batches = 0
        self._latest: Any = None
        kept = instruments(model)
        self._followed = kept.companion.followed() if kept.companion is not None else None
        if kept.trained():
            learn(model, kept.learning, self.optimizer)
        self._before = _modes(model)
        if not model.training:  # modules in inference mode of a model that trains are the user's frozen ones
            model.train()
        self._modes = _modes(model)

    def __call__(self, batch: Any) -> float:
        _set_modes(self._modes)  # an evaluation may have left others behind
        if self.batches % self.accumulate == 0:
            self.optimizer.zero_grad()
        loss = self._loss(batch)
        value = float(loss.detach())
        if not np.isfinite(value):
            self._fail(f"the loss is {value}", batch)
        self.scaler.scale(loss / self.accumulate if self.accumulate > 1 else loss).backward()
        self.batches += 1
        self._latest = batch
        if self.batches % self.accumulate == 0:
            self._step(batch)
        return value

    def rest(self) -> None:
        left = self.batches % self.accumulate
        if not left:
            return
        companion = instruments(self.model).companion
        given = self._gradients() + [p.grad for p in (companion.parameters() if companion is not None else ()) if p.grad is not None]
        if given:
            torch._foreach_mul_(given, self.accumulate / left)  # each batch has been divided by `accumulate`
        self.batches += self.accumulate - left
        self._step(self._latest)

    def _loss(self, batch: Any) -> torch.Tensor:
        with torch.autocast(self.device.type, self.half) if self.half else nullcontext():
            own = batch_loss(self.model, self.loss, batch)
            found = scalar(total(self.model, own))
        if not own.requires_grad and not self._has_terms():
            raise TrainingError(f"Trainer.loss: {NO_GRADIENT}.")
        return found

    def _has_terms(self) -> bool:
        watch = instruments(self.model).watch
        return watch is not None and bool(watch.latest.keys() - {"task"})

    def _step(self, batch: Any) -> None:
        # A scaler leaves out steps whose gradients overflowed: there they are no error.
        if not self.scaler.is_enabled():
            given = self._gradients()
            if given and not torch.isfinite(torch.stack([norm.to(self.device) for norm in torch._foreach_norm(given)]).sum()):
                self._fail("the gradient is not finite", batch)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _gradients(self) -> list[torch.Tensor]:
        return [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]

    def _fail(self, what: str, batch: Any) -> None:
        with torch.enable_grad():
            where = first_not_finite(self.model, lambda: self._loss(batch), batch_for(self.model, batch))
        number = self.batches // self.accumulate + (1 if what.startswith("the loss") else 0)
        raise TrainingError(f"step {number}: {what}; {where}.")

    def state(self) -> dict[str, Array]:
        """Return the optimizers' states, the scaler's, and that of the random numbers."""
        found: dict[str, Array] = {"batches": np.array(self.batches), "random/cpu": torch.get_rng_state().numpy().copy()}
        if self.device.type == "cuda":
            found["random/cuda"] = torch.cuda.get_rng_state(self.device).numpy().copy()
        for name, optimizer in self._optimizers().items():
            found |= {f"{name}/{key}": array for key, array in _flat(optimizer).items()}
        return found | {f"scaler/{key}": np.array(value) for key, value in self.scaler.state_dict().items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        self.batches = int(state["batches"])
        torch.set_rng_state(torch.from_numpy(np.array(state["random/cpu"])))
        if "random/cuda" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(torch.from_numpy(np.array(state["random/cuda"])), self.device)
        for name, optimizer in self._optimizers().items():
            _load(optimizer, {key.removeprefix(f"{name}/"): state[key] for key in state if key.startswith(f"{name}/")})
        scaler = {key.removeprefix("scaler/"): np.asarray(state[key]).item() for key in state if key.startswith("scaler/")}
        if scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(scaler)

    def close(self) -> None:
        self.optimizer.zero_grad()
        kept = instruments(self.model)
        if kept.trained():
            learn(self.model, kept.learning, self._followed)  # the user's own loop goes on as it was
        _set_modes(self._before)

    def _optimizers(self) -> dict[str, Optimizer]:
        companion = instruments(self.model).companion
        learning = companion.optimizers if companion is not None else {}
        return {"optimizer": self.optimizer} | {f"learning/{group}": optimizer for group, optimizer in learning.items()}


def _modes(model: nn.Module) -> list[tuple[nn.Module, bool]]:
    return [(module, module.training) for module in model.modules()]


def _set_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        if module.training != training:
            module.training = training  # not module.eval(): users override it


def _flat(optimizer: Optimizer) -> dict[str, Array]:
    """Return an optimizer's state and the numbers of its groups by flat names, `state/0/exp_avg`, `groups/0/lr`."""
    data = optimizer.state_dict()
    found = {f"state/{n}/{k}": _array(v) for n, state in data["state"].items() for k, v in state.items() if v is not None}
    for number, group in enumerate(data["param_groups"]):
        numbers = {
            k: v for k, v in group.items() if k != "params" and isinstance(v, (int, float, torch.Tensor)) and not isinstance(v, bool)
        }
        found |= {f"groups/{number}/{key}": _array(value) for key, value in numbers.items()}
    return found


def _array(value: Any) -> Array:
    return to_numpy(value).copy() if isinstance(value, torch.Tensor) else np.array(value)


def _load(optimizer: Optimizer, arrays: Mapping[str, Array]) -> None:
    data = optimizer.state_dict()
    states: dict[int, dict[str, Any]] = {}
    for path, array in arrays.items():
        kind, number, key = path.split("/", 2)
        if kind == "state":
            states.setdefault(int(number), {})[key] = torch.from_numpy(np.array(array))
        else:
            data["param_groups"][int(number)][key] = np.asarray(array).item()
    optimizer.load_state_dict(data | {"state": states})
