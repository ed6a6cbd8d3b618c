"""The architectures of keras.applications and keras_hub, small enough for a test: name -> (model, example inputs)."""

from __future__ import annotations

import keras
import numpy as np

#: keras.applications: the size of the image, and the largest part of the parameters that may stay after 50 %.
APPLICATIONS = {
    "MobileNetV2": (64, 0.30),
    "ResNet50": (64, 0.30),
    "EfficientNetB0": (64, 0.30),
    "DenseNet121": (64, 0.30),
    "Xception": (96, 0.30),
    "InceptionV3": (96, 0.45),
    "ConvNeXtTiny": (64, 0.60),
    "NASNetMobile": (64, 0.30),
}
#: keras_hub: widths stay under a LayerNorm; half of the heads and of the feed-forward neurons leave.
BACKBONES = ("BertBackbone", "GPT2Backbone", "ViTBackbone")


def noise(*shape):
    """Return random numbers, the same each time."""
    return np.random.default_rng(7).standard_normal(shape).astype("float32")


def tokens(*shape):
    return np.random.default_rng(8).integers(1, 50, shape).astype("int32")


def randomise(model):
    """Draw every bias, scale and statistic: fresh ones are zeros and ones and would hide mistakes."""
    draw = np.random.default_rng(3)
    for variable in model.variables:
        if not variable.dtype.startswith("float"):
            continue
        if variable.path.endswith("variance"):
            variable.assign(draw.uniform(0.5, 1.5, variable.shape))
        elif len(variable.shape) <= 1 or variable.path.endswith("bias"):
            variable.assign(np.asarray(variable) + 0.1 * draw.standard_normal(variable.shape))
    return model


def application(name):
    size = APPLICATIONS[name][0]
    build = getattr(keras.applications, name)
    return randomise(build(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)), noise(2, size, size, 3)


def backbone(name):
    import keras_hub

    if name == "ViTBackbone":
        build = keras_hub.models.ViTBackbone
        return randomise(build((32, 32, 3), patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64)), noise(2, 32, 32, 3)
    inputs = {"token_ids": tokens(2, 8), "padding_mask": np.array([[1] * 8, [1] * 5 + [0] * 3], "int32")}
    if name == "BertBackbone":
        inputs["segment_ids"] = np.zeros((2, 8), "int32")
    sizes = {"num_layers": 2, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 64, "max_sequence_length": 16}
    return randomise(getattr(keras_hub.models, name)(vocabulary_size=50, **sizes)), inputs
