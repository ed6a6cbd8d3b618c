"""Keras architectures at full size: name -> how to build it, and its inputs for a batch. Nothing is downloaded: the weights are random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

TOKENS = 128  # the length of every text


def images(size: int) -> Callable[[int], np.ndarray]:
    """Return what gives a batch of random images."""
    return lambda batch: np.random.default_rng(batch).standard_normal((batch, size, size, 3)).astype("float32")


def text(*names: str) -> Callable[[int], dict[str, np.ndarray]]:
    """Return what gives a batch of random token ids, with a mask that hides nothing, in one segment."""
    others = {"padding_mask": np.ones, "segment_ids": np.zeros}

    def made(batch: int) -> dict[str, np.ndarray]:
        ids = np.random.default_rng(batch).integers(10, 20_000, (batch, TOKENS)).astype("int32")
        return {"token_ids": ids} | {name: others[name]((batch, TOKENS), "int32") for name in names}

    return made


def randomised(model: keras.Model) -> keras.Model:
    """Draw biases, norms and statistics: fresh ones are zeros and ones and would hide mistakes."""
    draw = np.random.default_rng(3)
    for variable in model.variables:
        if not variable.dtype.startswith("float"):
            continue
        if variable.path.endswith("variance"):
            variable.assign(draw.uniform(0.5, 1.5, variable.shape))
        elif len(variable.shape) <= 1 or variable.path.endswith("bias"):
            variable.assign(np.asarray(variable) + 0.1 * draw.standard_normal(variable.shape))
    return model


def application(name: str, size: int = 224) -> tuple[Callable[[], keras.Model], Callable[[int], np.ndarray]]:
    """Return one of keras.applications."""
    build = getattr(keras.applications, name)
    return lambda: randomised(build(weights=None, input_shape=(size, size, 3), classifier_activation=None)), images(size)


def backbone(name: str, **sizes: Any) -> Callable[[], keras.Model]:
    """Return what builds one of keras_hub's backbones."""

    def build() -> keras.Model:
        import keras_hub

        return randomised(getattr(keras_hub.models, name)(**sizes))

    return build


class Block(keras.layers.Layer):
    """Attention and feed-forward, each after a LayerNorm and around a residual."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.norms = [keras.layers.LayerNormalization() for _ in range(2)]
        self.attention = keras.layers.MultiHeadAttention(heads, width // heads)
        self.up, self.down = keras.layers.Dense(inner, activation="gelu"), keras.layers.Dense(width)

    def call(self, x: Any) -> Any:
        y = self.norms[0](x)
        x = x + self.attention(y, y)
        return x + self.down(self.up(self.norms[1](x)))


class Transformer(keras.Model):
    """A text classifier as a user writes it: subclassed, on keras.layers.MultiHeadAttention."""

    def __init__(self, width: int = 512, depth: int = 6, heads: int = 8, vocabulary: int = 20_000) -> None:
        super().__init__()
        self.embedding = keras.layers.Embedding(vocabulary, width)
        self.blocks = [Block(width, heads, 4 * width) for _ in range(depth)]
        self.norm = keras.layers.LayerNormalization()
        self.head = keras.layers.Dense(1000)

    def call(self, tokens: Any) -> Any:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(keras.ops.mean(self.norm(x), axis=1))


def transformer() -> keras.Model:
    model = Transformer()
    model(tokens(1))
    return randomised(model)


def tokens(batch: int) -> np.ndarray:
    """Return random token ids."""
    return np.random.default_rng(batch).integers(0, 20_000, (batch, TOKENS)).astype("int32")


BASE = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768}

ARCHITECTURES: dict[str, tuple[Callable[[], keras.Model], Callable[[int], Any]]] = {
    "ResNet50": application("ResNet50"),
    "MobileNetV2": application("MobileNetV2"),
    "EfficientNetB0": application("EfficientNetB0"),
    "DenseNet121": application("DenseNet121"),
    "InceptionV3": application("InceptionV3", 299),
    "Xception": application("Xception", 299),
    "ConvNeXtTiny": application("ConvNeXtTiny"),
    "NASNetMobile": application("NASNetMobile"),
    "BERT-base": (
        backbone("BertBackbone", vocabulary_size=30_522, intermediate_dim=3072, **BASE),
        text("padding_mask", "segment_ids"),
    ),
    "GPT-2": (backbone("GPT2Backbone", vocabulary_size=50_257, intermediate_dim=3072, **BASE), text("padding_mask")),
    "ViT-B": (backbone("ViTBackbone", image_shape=(224, 224, 3), patch_size=16, mlp_dim=3072, **BASE), images(224)),
    "subclassed transformer": (transformer, tokens),
}
