"""The half of the PyTorch adapter that trains: views, taps, gradients, objectives and steps; each verb is a module's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from nnc.adapter import Numbers
from nnc.errors import ConfigError, nearest
from nnc.graph.ir import Array
from nnc.objective import Objective
from nnc.views import Learning, Site, Views
from nnc_torch import callbacks, learning, loaders, objectives, optimizers, own_loops, taps, training, views
from nnc_torch.inference import to_numpy
from nnc_torch.instruments import instruments
from nnc_torch.layers import canonical, native
from nnc_torch.nonfinite import first_not_finite
from nnc_torch.placing import batch_for


class Trainable:
    """What nnc may ask of a torch model in training, as `nnc.adapter.TrainableAdapter` says."""

    model: nn.Module

    def forward(
        self, batch: Any, sites: Collection[Site] = (), training: bool = False, through: Callable[..., Any] | None = None
    ) -> tuple[Any, dict[Site, Any]]:
        return taps.forward(self.model, batch, sites, training, through)

    def gradients(self, loss: Callable[..., Any], sites: Collection[Site], *batch: Any) -> tuple[float, dict[Site, Any]]:
        return taps.gradients(self.model, loss, sites, batch)

    def blame(self, loss: Callable[..., Any], batch: Any) -> str:
        batch = batch_for(self.model, batch)
        with taps.in_mode(self.model, False), torch.enable_grad():
            return first_not_finite(self.model, lambda: loss(self.model, batch), batch)

    def batch_loss(self, loss: Callable[..., Any] | None, batch: Any) -> torch.Tensor:
        return training.batch_loss(self.model, loss, batch)

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def afresh(self, optimizer: Any) -> Any:
        return optimizers.again(self.model, optimizer) if isinstance(optimizer, torch.optim.Optimizer) else optimizer

    def data_state(self, data: Any, runs: int) -> dict[str, Any]:
        return loaders.data_state(data)

    def set_data_state(self, data: Any, state: Mapping[str, Any], runs: int) -> None:
        loaders.set_data_state(data, state)

    @torch.no_grad()
    def write(self, numbers: Mapping[Site, Array]) -> dict[Site, Array]:
        modules = views.check_sites(self.model, numbers)
        stored = {site: views.stored_at(modules[site.layer], site) for site in numbers}
        before: dict[Site, Array] = {}
        for site, (name, tensor) in stored.items():
            before[site] = to_numpy(canonical(modules[site.layer], name, tensor)).copy()
            if np.shape(numbers[site]) != before[site].shape:
                raise ConfigError(f"{site}: the parameter has shape {before[site].shape}; numbers of {np.shape(numbers[site])} were given.")
        for site, (name, tensor) in stored.items():
            tensor.copy_(native(modules[site.layer], name, torch.from_numpy(np.array(numbers[site])).to(tensor.device)))
        return before

    def views(self) -> Views:
        return dict(instruments(self.model).views)

    def set_views(self, new: Views) -> None:
        views.set_views(self.model, new)
        learning.refresh(self.model)

    def objectives(self) -> Sequence[Objective]:
        return instruments(self.model).objectives

    def set_objectives(self, new: Sequence[Objective], teacher: Any = None) -> None:
        objectives.set_objectives(self.model, new, teacher)
        learning.refresh(self.model)

    def learn(self, groups: Mapping[str, Learning], optimizer: Any = None) -> None:
        learning.learn(self.model, groups, optimizer)

    def total(self, loss: Any, mask: Any = None) -> torch.Tensor:
        return own_loops.users_total(self.model, loss, mask)

    def terms(self) -> dict[str, float]:
        return objectives.terms(self.model)

    def numbers(self) -> Numbers:
        return {key: state.numbers() for key, state in instruments(self.model).variables.items() if state.cells}

    def set_numbers(self, numbers: Numbers) -> None:
        known = instruments(self.model).variables
        for key, given in numbers.items():
            if key not in known:
                names = [" ".join(each) for each in known]
                raise ConfigError(f"numbers: the model has no view or objective {key}{nearest(' '.join(key), names)}.")
            known[key].check_numbers(given, " ".join(key))
        for key, given in numbers.items():
            known[key].set_numbers(given)

    def callback(self, loop: str | None, done: Callable[[], Any]) -> Any:
        return callbacks.callback(self.model, loop, done)

    def trainer(self, loss: Any, optimizer: Any, precision: str, accumulate: int) -> training.TorchTrainStep:
        return training.TorchTrainStep(self.model, loss, optimizer, precision, accumulate)
