"""The PyTorch adapter: what nnc may ask of an nn.Module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from nnc.adapter import Masks, Trace
from nnc.graph.ir import Array, Graph
from nnc.graph.plan import Plan, Reshape, Size
from nnc_torch import blueprints, caches, forward, inference, masks, stored, surgery
from nnc_torch import trace as tracing
from nnc_torch.accepts import check
from nnc_torch.layers import TorchLayer, layers_of, maskable_tensors
from nnc_torch.trainable import Trainable


class TorchAdapter(Trainable):
    """One torch model. Raises ModelError for one whose weights are not its parameters (torch's prune, weight_norm), or that is wrapped."""

    framework = "torch"

    def __init__(self, model: nn.Module) -> None:
        check(model)
        self.model = model

    def layers(self) -> list[TorchLayer]:
        return [TorchLayer(name, module) for name, module in layers_of(self.model) if maskable_tensors(module)]

    def masks(self) -> Masks:
        return masks.masks_of(self.model)

    def set_masks(self, new: Masks) -> None:
        masks.set_masks(self.model, new)

    def trace(self, example_inputs: Any, masks: Masks) -> Trace:
        return tracing.trace(self.model, example_inputs, masks)

    def structure(self, example_inputs: Any) -> Graph:
        return self.trace(example_inputs, {}).graph

    def run(self, example_inputs: Any) -> tuple[Array, ...]:
        return caches.afresh(self.model, lambda: inference.run(self.model, example_inputs))

    def shrink(self, plan: Plan, masks: Masks, folds: Mapping[str, Array]) -> nn.Module:
        small = surgery.shrink(self.model, plan, masks, folds)
        TorchAdapter(small).remember((*self.plans(), plan))
        return small

    def rewrite(self, reshape: Reshape) -> tuple[Size, ...]:
        return forward.rewrite(self.model, reshape)

    def export(self, path: Path, example_inputs: Any, opset: int | None) -> None:
        from nnc_torch.export import export

        export(self.model, path, example_inputs, opset)

    def plans(self) -> tuple[Plan, ...]:
        return getattr(self.model, "_nnc_plans", ())

    def remember(self, plans: tuple[Plan, ...]) -> None:
        self.model._nnc_plans = tuple(plans)

    def notes(self) -> tuple[str, ...]:
        return getattr(self.model, "_nnc_notes", ())

    def tensors(self) -> dict[str, Array]:
        return stored.tensors(self.model)

    def load_tensors(self, tensors: Mapping[str, Array]) -> None:
        stored.load_tensors(self.model, tensors)

    def blueprint(self) -> dict[str, Any] | None:
        return blueprints.blueprint(self.model)

    @staticmethod
    def rebuild(blueprint: Mapping[str, Any]) -> nn.Module:
        """Return a fresh model of the architecture that `blueprint` describes. Raises StorageError where it cannot."""
        return blueprints.rebuild(blueprint)
