"""Networks of a few numbers on both frameworks, with the same numbers in both, and trainers of them."""

import numpy as np

import nnc
from nnc.registry import adapter_for
from nnc.views import Site
from tests.frameworks import numbers

DRAW = np.random.default_rng(3)
X = DRAW.standard_normal((4, 6, 4)).astype("float32")  # batches of 6 rows of 4 numbers
Y = DRAW.standard_normal((4, 6, 2)).astype("float32")
IMAGES = DRAW.standard_normal((3, 4, 2, 5, 5)).astype("float32")
LABELS = DRAW.standard_normal((3, 4, 2)).astype("float32")
ROWS = list(zip(X, Y, strict=True))
PICTURES = list(zip(IMAGES, LABELS, strict=True))


def mlp(framework):
    """Return 4 -> 3, ReLU, -> 2: the layers hidden and classes."""
    if framework.name == "torch":
        from collections import OrderedDict

        from torch import nn

        model = nn.Sequential(OrderedDict(hidden=nn.Linear(4, 3), relu=nn.ReLU(), classes=nn.Linear(3, 2)))
    else:
        import keras

        layers = keras.layers
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu", name="hidden"), layers.Dense(2, name="classes")])
    return numbered(model)


def linear(framework, weight, bias=None):
    """Return one linear layer, "fc"."""
    weight = np.asarray(weight, "float32")
    if framework.name == "torch":
        from collections import OrderedDict

        from torch import nn

        model = nn.Sequential(OrderedDict(fc=nn.Linear(weight.shape[1], weight.shape[0])))
    else:
        import keras

        model = keras.Sequential([keras.Input((weight.shape[1],)), keras.layers.Dense(weight.shape[0], name="fc")])
    bias = np.zeros(len(weight)) if bias is None else bias
    adapter_for(model).write({Site("fc", "weight"): weight, Site("fc", "bias"): np.asarray(bias, "float32")})
    return model


def convnet(framework):
    """Return conv 2 -> 4 (3 x 3), BatchNorm, ReLU, mean over the image, -> 2: the layers conv, norm and classes."""
    if framework.name == "torch":
        from collections import OrderedDict

        from torch import nn

        parts = {"conv": nn.Conv2d(2, 4, 3, padding=1), "norm": nn.BatchNorm2d(4), "relu": nn.ReLU(), "mean": nn.AdaptiveAvgPool2d(1)}
        model = nn.Sequential(OrderedDict(parts, flat=nn.Flatten(), classes=nn.Linear(4, 2)))
    else:
        import keras

        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((5, 5, 2)),
                layers.Conv2D(4, 3, padding="same", name="conv"),
                layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name="norm"),
                layers.ReLU(),
                layers.GlobalAveragePooling2D(),
                layers.Dense(2, name="classes"),
            ]
        )
    return numbered(model)


def numbered(model):
    """Give each weight and bias the numbers of its path and shape; biases small, so that no channel is silent."""
    adapter = adapter_for(model)
    shapes = {(layer.name, key): layer.parameters[key] for layer in adapter.layers() for key in ("weight", "bias")}
    drawn = {Site(*path): numbers(".".join(path), shape) * (0.1 if path[1] == "bias" else 1) for path, shape in shapes.items()}
    adapter.write(drawn)
    return model


def seen(model, layer, parameter="weight"):
    """Return a layer's parameter as NumPy has it, float64, canonical."""
    from nnc.arrays import to_float64

    return to_float64(next(one for one in adapter_for(model).layers() if one.name == layer).seen(parameter))


def trainer(framework, data, rate=0.1, loss="mse", **options):
    """Return a trainer with plain gradient descent and the mean squared error, or a loss of one's own."""
    batches = [(framework.inputs(x) if x.ndim == 4 else tensor(framework, x), tensor(framework, y)) for x, y in data]
    if framework.name == "torch":
        import torch

        loss = torch.nn.functional.mse_loss if loss == "mse" else loss
        return nnc.Trainer(batches, loss, lambda parameters: torch.optim.SGD(parameters, rate), progress=False, **options)
    import keras

    loss = keras.losses.MeanSquaredError() if loss == "mse" else loss
    return nnc.Trainer(batches, loss, lambda _: keras.optimizers.SGD(rate), progress=False, **options)


def tensor(framework, array):
    if framework.name == "torch":
        import torch

        return torch.from_numpy(np.asarray(array))
    return array


def zero_loss(outputs, targets):
    """A loss that depends on nothing, so that only what algorithms add to it moves weights."""
    return (outputs * 0.0).sum() if hasattr(outputs, "backward") else sum_of(outputs) * 0.0


def sum_of(outputs):
    import tensorflow as tf

    return tf.reduce_sum(outputs)
