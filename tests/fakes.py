"""A framework in sixty lines of NumPy: what the core's tests need of an adapter, without a framework."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnc.graph.plan import Plan
from nnc.hookspecs import hookimpl


@dataclass
class FakeModel:
    """Parameters by layer; `masked` is what the model is seen through."""

    parameters: dict[str, dict[str, np.ndarray]]
    kinds: dict[str, tuple[str, ...]]
    masked: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    made_by: tuple[Plan, ...] = ()


@dataclass(frozen=True)
class FakeLayer:
    model: FakeModel
    name: str
    ops: Any = np

    @property
    def op_types(self):
        return self.model.kinds[self.name]

    @property
    def op_type(self):
        return self.op_types[0]

    @property
    def prunable(self):
        return not self.op_type.startswith("BatchNorm")

    @property
    def parameters(self):
        return {key: value.shape for key, value in self.model.parameters[self.name].items()}

    @property
    def native(self):
        return {"kernel": "weight"}

    def seen(self, key):
        value = self.model.parameters[self.name].get(key)
        mask = self.model.masked.get(self.name, {}).get(key)
        return value if mask is None else value * mask

    @property
    def weight(self):
        return self.seen("weight")

    @property
    def bias(self):
        return self.seen("bias")

    def canonical(self, parameter, array):
        return np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array


class FakeAdapter:
    framework = "fake"

    def __init__(self, model):
        self.model = model

    def layers(self):
        return [FakeLayer(self.model, name) for name in self.model.parameters]

    def masks(self):
        return self.model.masked

    def set_masks(self, masks):
        self.model.masked = masks

    def shrink(self, plan, masks, folds):
        small = FakeModel({name: dict(given) for name, given in self.model.parameters.items()}, self.model.kinds)
        shapes = {f"{name}.{key}": value.shape for name, given in small.parameters.items() for key, value in given.items()}
        for path, axes in plan.kept_indices(shapes).items():
            layer, _, key = path.rpartition(".")
            for axis, index in axes.items():
                small.parameters[layer][key] = np.take(small.parameters[layer][key], index, axis)
        small.made_by = (*self.model.made_by, plan)
        return small

    def plans(self):
        return self.model.made_by

    def remember(self, plans):
        self.model.made_by = plans

    def notes(self):
        return ()

    def tensors(self):
        return {f"{name}.{key}": value for name, given in self.model.parameters.items() for key, value in given.items()}

    def load_tensors(self, tensors):
        for path, value in tensors.items():
            layer, _, key = path.rpartition(".")
            self.model.parameters[layer][key] = value

    def blueprint(self):
        return None


@hookimpl
def nnc_register_adapters(register):
    register("fake", recognises=lambda model: isinstance(model, FakeModel), load=lambda: FakeAdapter, extra="fake")


@hookimpl
def nnc_register_examples(register):
    register("fake", lambda: (lenet(), np.zeros((1, 1, 28, 28), "float32")))


def layer(weight, bias=None, kinds=("Linear", "Dense")):
    """Return a model of one layer "fc" with the weight `(out, in, *kernel)`."""
    given = {"weight": np.asarray(weight, "float32")} | ({} if bias is None else {"bias": np.asarray(bias, "float32")})
    return FakeModel({"fc": given}, {"fc": kinds})


def lenet(seed=0):
    """Return the parameters of conv1, bn1, conv2, fc1, fc2, small."""
    draw = np.random.default_rng(seed)
    shapes = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (50, 80), "fc2": (10, 50)}
    weights = {name: {"weight": draw.normal(size=shape).astype("f"), "bias": draw.normal(size=shape[0])} for name, shape in shapes.items()}
    norm = {"bn1": {"weight": np.ones(20, "float32"), "bias": np.zeros(20, "float32")}}
    kinds = {name: ("Conv2d", "Conv2D") if "conv" in name else ("Linear", "Dense") for name in shapes}
    order = ("conv1", "bn1", "conv2", "fc1", "fc2")
    return FakeModel({name: {**weights, **norm}[name] for name in order}, {**kinds, "bn1": ("BatchNorm2d", "BatchNormalization")})
