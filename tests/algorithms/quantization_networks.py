"""Small networks for quantisation, the same numbers on both frameworks, each with its own trainer."""

import keras
import numpy as np
import torch
from torch import nn

import nnc


class Torch:
    name = "torch"

    def dense(self, weights, norm=None):
        """Return Linear layers named fc1, fc2, ... with ReLU between them; `norm` is the weight of a LayerNorm in front."""
        model = nn.Sequential()
        if norm is not None:
            model.add_module("norm", nn.LayerNorm(len(norm)))
            model.norm.weight.data = torch.tensor(norm)
        for index, weight in enumerate(weights, 1):
            if index > 1:
                model.add_module(f"relu{index}", nn.ReLU())
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight.data, layer.bias.data = torch.tensor(weight), torch.full((len(weight),), 0.1)
            model.add_module(f"fc{index}", layer)
        return model

    def small(self):
        torch.manual_seed(0)
        first = [
            ("c1", nn.Conv2d(1, 8, 3)),
            ("bn", nn.BatchNorm2d(8)),
            ("relu1", nn.ReLU()),
            ("c2", nn.Conv2d(8, 8, 3)),
            ("relu2", nn.ReLU()),
        ]
        model = nn.Sequential()
        for name, layer in [
            *first,
            ("relu2", nn.ReLU()),
            ("flat", nn.Flatten()),
            ("f1", nn.Linear(128, 16)),
            ("relu3", nn.ReLU()),
            ("f2", nn.Linear(16, 4)),
        ]:
            model.add_module(name, layer)
        return model

    def images(self, count=64):
        return torch.from_numpy(np.random.default_rng(0).standard_normal((count, 1, 8, 8)).astype("f4"))

    def tensor(self, array):
        return torch.from_numpy(np.asarray(array, np.float32))

    def labels(self, count=64):
        return torch.arange(count) % 4

    def trainer(self, data, rate=1e-3):
        return nnc.Trainer(data, nn.functional.cross_entropy, lambda parameters: torch.optim.Adam(parameters, rate), progress=False)

    def run(self, model, x):
        with torch.no_grad():
            return model.eval()(x).numpy()


class Keras:
    name = "keras"

    def dense(self, weights, norm=None):
        layers = [] if norm is None else [keras.layers.LayerNormalization(name="norm", epsilon=1e-5)]
        for index, weight in enumerate(weights, 1):
            layers += [keras.layers.ReLU(name=f"relu{index}")] if index > 1 else []
            layers.append(keras.layers.Dense(len(weight), name=f"fc{index}"))
        model = keras.Sequential([keras.Input((weights[0].shape[1],)), *layers])
        if norm is not None:
            model.get_layer("norm").gamma.assign(norm)
        for index, weight in enumerate(weights, 1):
            model.get_layer(f"fc{index}").set_weights([weight.T, np.full(len(weight), 0.1, np.float32)])
        return model

    def small(self):
        keras.utils.set_random_seed(0)
        first = [keras.layers.Conv2D(8, 3, name="c1"), keras.layers.BatchNormalization(name="bn"), keras.layers.ReLU()]
        second = [keras.layers.Conv2D(8, 3, activation="relu", name="c2"), keras.layers.Flatten()]
        last = [keras.layers.Dense(16, activation="relu", name="f1"), keras.layers.Dense(4, name="f2")]
        return keras.Sequential([keras.Input((8, 8, 1)), *first, *second, *last])

    def images(self, count=64):
        return np.random.default_rng(0).standard_normal((count, 1, 8, 8)).astype("f4").transpose(0, 2, 3, 1)

    def tensor(self, array):
        return np.asarray(array, np.float32)

    def labels(self, count=64):
        return np.arange(count) % 4

    def trainer(self, data, rate=1e-3):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return nnc.Trainer(data, loss, lambda variables: keras.optimizers.Adam(rate), progress=False)

    def run(self, model, x):
        return np.asarray(model(x, training=False))


NETWORKS = {"torch": Torch(), "keras": Keras()}
