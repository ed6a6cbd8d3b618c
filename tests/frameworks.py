"""The two frameworks behind one face, so that one test body serves both.

Networks of one name have the same numbers in both: drawn for each parameter's name and canonical shape, then laid out as the framework
stores them.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np

LENET = [{"sparsity_per_layer": 0.5, "op_types": ["Linear", "Conv2d"]}, {"exclude": True, "op_names": ["fc2"]}]


def images(count=2, channels=1, size=28):
    """Return the same images `(count, channels, size, size)` each time."""
    return np.random.default_rng(0).standard_normal((count, channels, size, size)).astype("float32")


def numbers(path, shape):
    """Return the numbers of a parameter of that path and canonical shape; variances are positive."""
    draw = np.random.default_rng(crc32(path.encode()))
    if path.endswith("var"):
        return draw.uniform(0.5, 1.5, shape).astype("float32")
    return (draw.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype("float32")


class Torch:
    """Networks, inputs and outputs on PyTorch."""

    name = "torch"
    lenets = ("lenet",)

    def build(self, name):
        import torch

        from tests import torch_networks

        model = {"lenet": torch_networks.LeNet, "residual": torch_networks.Residual}[name]()
        named = [*model.named_parameters(), *((path, buffer) for path, buffer in model.named_buffers() if buffer.ndim)]
        with torch.no_grad():
            for path, tensor in named:
                tensor.copy_(torch.from_numpy(numbers(path, tuple(tensor.shape))))
        return model

    def inputs(self, array):
        import torch

        return torch.from_numpy(array)

    def run(self, model, array):
        """Return the outputs in inference mode; the training flag stays."""
        import torch

        training = model.training
        with torch.no_grad():
            found = model.eval()(self.inputs(array)).numpy()
        model.train(training)
        return found

    def count(self, model):
        return sum(parameter.numel() for parameter in model.parameters())

    def train(self, model, array, steps):
        """Train on random classes with momentum and weight decay, as a user's own loop does."""
        import torch

        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
        labels = torch.arange(len(array)) % 5
        model.train()
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(self.inputs(array)), labels).backward()
            optimizer.step()

    def columns(self, weight):
        """Return fc1's weight `(out, in)` with its inputs in the order of channel, height, width."""
        return weight


class Keras:
    """Networks, inputs and outputs on Keras with TensorFlow."""

    name = "keras"
    lenets = ("lenet", "functional_lenet", "subclassed_lenet")
    #: Keras's names and layouts of torch's parameters, by the number of dimensions.
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}  # noqa: RUF012

    def build(self, name):
        from tests import keras_networks

        model = getattr(keras_networks, {"lenet": "sequential_lenet"}.get(name, name))()
        for layer_name, layer in self.layers(model):
            for variable in layer.weights:
                variable.assign(self.stored(f"{layer_name}.{self.names.get(variable.name, variable.name)}", tuple(variable.shape)))
        return model

    def layers(self, model):
        attributes = {id(layer): name for name, layer in vars(model).items() if name in {"conv1", "conv2", "fc1", "fc2"}}
        return [(attributes.get(id(layer), layer.name), layer) for layer in model.layers]

    def stored(self, path, shape):
        """Return a parameter's numbers in Keras's layout, which `shape` has."""
        if path.startswith("depthwise.") and len(shape) == 4:
            return numbers(path, (shape[2], 1, *shape[:2])).transpose(2, 3, 0, 1)
        if len(shape) == 4:
            return numbers(path, (shape[3], shape[2], *shape[:2])).transpose(2, 3, 1, 0)
        if path == "fc1.weight":
            # Keras flattens (height, width, channel), torch (channel, height, width).
            return numbers(path, shape[::-1]).reshape(-1, 50, 4, 4).transpose(2, 3, 1, 0).reshape(shape)
        return numbers(path, shape[::-1]).T

    def inputs(self, array):
        return np.moveaxis(array, 1, -1)

    def run(self, model, array):
        return np.asarray(model(self.inputs(array), training=False))

    def count(self, model):
        return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)

    def train(self, model, array, steps):
        import keras

        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.AdamW(1e-2, weight_decay=0.1), loss=loss)
        model.fit(self.inputs(array), np.arange(len(array)) % 5, batch_size=len(array), epochs=steps, verbose=0)

    def columns(self, weight):
        return weight.reshape(-1, 4, 4, 50).transpose(0, 3, 1, 2).reshape(weight.shape)


FRAMEWORKS = {"torch": Torch(), "keras": Keras()}
