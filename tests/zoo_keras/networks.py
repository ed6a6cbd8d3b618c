"""One small network for each connection that real Keras networks have: a function without arguments -> (model, example inputs)."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from tests.zoo_keras.architectures import noise, randomise, tokens


def built(model, x):
    model(x)
    return randomise(model), x


class Block(layers.Layer):
    """A transformer's block, normalised first."""

    def __init__(self, attention):
        super().__init__()
        self.norm1, self.norm2 = layers.LayerNormalization(), layers.LayerNormalization()
        self.attention = attention
        self.up, self.down = layers.Dense(64, activation="gelu"), layers.Dense(32)

    def call(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y)
        return x + self.down(self.up(self.norm2(x)))


class Transformer(keras.Model):
    """Two blocks around any attention layer."""

    def __init__(self, attention):
        super().__init__()
        self.embed = layers.Dense(32)
        self.blocks = [Block(attention()) for _ in range(2)]
        self.norm, self.head = layers.LayerNormalization(), layers.Dense(5)

    def call(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(ops.mean(self.norm(x), axis=1))


def attention():
    return built(Transformer(lambda: layers.MultiHeadAttention(4, 8)), noise(2, 6, 12))


def attention_with_scores():
    """Dropout takes Keras' other path: scaled queries, then the scores."""
    return built(Transformer(lambda: layers.MultiHeadAttention(4, 8, value_dim=6, dropout=0.1)), noise(2, 6, 12))


def grouped_queries():
    return built(Transformer(lambda: layers.GroupQueryAttention(8, 4, 2)), noise(2, 6, 12))


class OwnAttention(layers.Layer):
    """Attention as people write it: four Dense layers, reshape, transpose, matmul."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.head_dim = 4, 8
        self.query, self.key, self.value, self.out = (layers.Dense(32) for _ in range(4))

    def parted(self, x):
        batch, length = ops.shape(x)[0], ops.shape(x)[1]
        return ops.transpose(ops.reshape(x, (batch, length, self.num_heads, self.head_dim)), (0, 2, 1, 3))

    def call(self, x, y):
        q, k, v = self.parted(self.query(x)), self.parted(self.key(y)), self.parted(self.value(y))
        scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / self.head_dim**0.5)
        x = ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3))
        return self.out(ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1], self.num_heads * self.head_dim)))


class FusedAttention(layers.Layer):
    """One Dense layer for query, key and value, four heads of a size written as literals."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = layers.Dense(96), layers.Dense(32)

    def call(self, x, y):
        parts = ops.transpose(ops.reshape(self.qkv(x), (-1, 6, 3, 4, 8)), (2, 0, 3, 1, 4))
        scores = ops.softmax(ops.einsum("bhqd,bhkd->bhqk", parts[0], parts[1]) * 8**-0.5)
        x = ops.transpose(ops.einsum("bhqk,bhkd->bhqd", scores, parts[2]), (0, 2, 1, 3))
        return self.out(ops.reshape(x, (-1, 6, 32)))


class EinsumHeads(layers.Layer):
    """Attention by einsum, with two heads."""

    def __init__(self):
        super().__init__()
        self.heads = 2
        self.query, self.key, self.value, self.out = (layers.Dense(32) for _ in range(4))

    def call(self, x, y):
        q, k, v = (ops.reshape(layer(each), (-1, 6, self.heads, 16)) for layer, each in ((self.query, x), (self.key, y), (self.value, y)))
        scores = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", q, k) / 4)
        return self.out(ops.reshape(ops.einsum("bhqk,bkhd->bqhd", scores, v), (-1, 6, self.heads * 16)))


def own_attention():
    return built(Transformer(OwnAttention), noise(2, 6, 12))


def fused_attention():
    return built(Transformer(FusedAttention), noise(2, 6, 12))


def einsum_heads():
    return built(Transformer(EinsumHeads), noise(2, 6, 12))


def functional_attention():
    given = keras.Input((6, 12))
    x = layers.Dense(32)(given)
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(4, 8, name="attention")(y, y)
    x = x + layers.Dense(32)(layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x)))
    return randomise(keras.Model(given, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))), noise(2, 6, 12)


def cross_attention():
    left, right = keras.Input((6, 12)), keras.Input((7, 10))
    x = layers.MultiHeadAttention(4, 4, output_shape=24)(layers.Dense(16)(left), right)
    x = layers.Dense(8, activation="relu")(layers.LayerNormalization()(x))
    return randomise(keras.Model([left, right], layers.Dense(3)(x))), [noise(2, 6, 12), noise(2, 7, 10)]


def causal_attention():
    given = keras.Input((6, 12))
    x = layers.MultiHeadAttention(4, 4)(given, given, use_causal_mask=True)
    x = layers.MultiHeadAttention(1, 8, value_dim=12)(x, x)
    return randomise(keras.Model(given, layers.Dense(3)(x))), noise(2, 6, 12)


def group_norm():
    given = keras.Input((8, 8, 3))
    x = layers.Activation("relu")(layers.GroupNormalization(4)(layers.Conv2D(16, 3, padding="same")(given)))
    return randomise(keras.Model(given, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3)(x))))), noise(2, 8, 8, 3)


class Twice(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.shared, self.head = layers.Dense(16), layers.Dense(16, activation="relu"), layers.Dense(4)

    def call(self, x):
        return self.head(self.shared(self.shared(self.first(x))))


def called_twice():
    return built(Twice(), noise(3, 6))


def convolution_called_twice():
    given = keras.Input((16, 16, 3))
    shared = layers.Conv2D(12, 3, padding="same", activation="relu")
    x = layers.Conv2D(12, 3, padding="same")(given)
    x = layers.Conv2D(8, 3)(shared(x) + shared(layers.MaxPooling2D(1)(x)))
    return randomise(keras.Model(given, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))), noise(2, 16, 16, 3)


class Tied(keras.Model):
    """A language model whose embedding is its head."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = layers.Embedding(50, 16), layers.Dense(32, activation="gelu"), layers.Dense(16)

    def call(self, ids):
        x = self.embed(ids)
        return ops.matmul(x + self.down(self.up(x)), ops.transpose(self.embed.embeddings))


def tied_embedding():
    return built(Tied(), tokens(2, 8))


class Thirds(keras.Model):
    """Splits at indices, as `keras.ops.split` is given them."""

    def __init__(self):
        super().__init__()
        self.three, self.out, self.last = layers.Dense(96), layers.Dense(10), layers.Dense(3)

    def call(self, x):
        q, k, v = ops.split(self.three(x), [32, 64], axis=-1)
        return self.last(ops.relu(self.out(ops.sigmoid(q) * k + v)))


def split_at_indices():
    return built(Thirds(), noise(4, 7))


class Sliced(keras.Model):
    """Slices whose bounds stand in the code, in steps and of several axes at once."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third, self.other = (layers.Dense(units) for units in (24, 16, 5, 16))

    def call(self, x):
        y = ops.relu(self.first(x))
        z = self.other(y[1:3, ::2, 8:20:2]) + self.second(y[:2, 1:4, ::2])
        return self.third(ops.relu(self.second(y[..., ::2]) + self.second(y[..., 12:]))[:2, :3] + z)


def slices():
    return built(Sliced(), noise(4, 6, 8))


def functional_slices():
    given = keras.Input((6, 8))
    y = layers.Dense(24, activation="relu")(given)
    parts = (y[..., :12], y[:, :, 10:-2], y[:, 0, None, 4:16])
    first, second, third = (layers.Dense(16)(part) for part in parts)
    return randomise(keras.Model(given, layers.Dense(5)(first + second + third))), noise(4, 6, 8)


def functional_split():
    given = keras.Input((7,))
    q, k, v = ops.split(layers.Dense(96)(given), [32, 64], axis=-1)
    return randomise(keras.Model(given, layers.Dense(3)(ops.relu(layers.Dense(10)(ops.sigmoid(q) * k + v))))), noise(4, 7)


class Gate(keras.Model):
    def __init__(self):
        super().__init__()
        self.up, self.out = layers.Dense(32), layers.Dense(3)

    def call(self, x):
        gate, value = ops.split(self.up(x), 2, axis=-1)
        return self.out(ops.silu(gate) * value)


def gated():
    return built(Gate(), noise(4, 7))


class Einsums(layers.Layer):
    """Weights of its own, used by einsum."""

    def build(self, shape):
        self.into = self.add_weight(shape=(shape[-1], 4, 8), name="into")
        self.out = self.add_weight(shape=(4, 8, shape[-1]), name="out")

    def call(self, x):
        return ops.einsum("bthd,hdc->btc", ops.relu(ops.einsum("btc,chd->bthd", x, self.into)), self.out)


def einsum_with_own_weights():
    given = keras.Input((6, 5))
    x = Einsums()(layers.Dense(12, activation="relu")(given))
    return randomise(keras.Model(given, layers.Dense(3)(layers.Dense(8, activation="relu")(x)))), noise(2, 6, 5)


def convolutions():
    given = keras.Input((8, 8, 4))
    x = layers.BatchNormalization()(layers.SeparableConv2D(12, 3, padding="same")(given))
    x = layers.Conv2DTranspose(6, 3)(layers.DepthwiseConv2D(3, depth_multiplier=2)(x))
    return randomise(keras.Model(given, layers.Dense(3)(layers.Flatten()(layers.Conv2D(8, 1, groups=2)(x))))), noise(2, 8, 8, 4)


def one_dimension():
    given = keras.Input((16, 4))
    x = layers.BatchNormalization()(layers.Conv1D(12, 3, padding="same")(given))
    x = layers.Conv1DTranspose(5, 3)(layers.SeparableConv1D(6, 3)(layers.DepthwiseConv1D(3)(x)))
    return randomise(keras.Model(given, layers.Dense(3)(layers.GlobalMaxPooling1D()(x)))), noise(2, 16, 4)


def unscaled_norm():
    """BatchNorm without a scale: the constants that it leaves go into a bias that the next convolution is given."""
    given = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(scale=False)(layers.Conv2D(12, 3, use_bias=False)(given))
    x = layers.BatchNormalization(scale=False)(layers.Conv2D(10, 1, use_bias=False)(layers.Activation("relu")(x)))
    return randomise(keras.Model(given, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))), noise(2, 8, 8, 3)


def mixer():
    given = keras.Input((16, 8))
    x = layers.Dense(16)(layers.Dense(24, activation="gelu")(layers.Permute((2, 1))(given)))
    x = layers.Permute((2, 1))(x) + given
    x = x + layers.Dense(8)(layers.Dense(20, activation="gelu")(layers.LayerNormalization()(x)))
    return randomise(keras.Model(given, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))), noise(2, 16, 8)


def recurrent():
    given = keras.Input((6, 5))
    x = layers.LSTM(8, return_sequences=True)(layers.Dense(12, activation="relu")(given))
    x = layers.Dense(16, activation="relu")(layers.GRU(8)(x))
    return randomise(keras.Model(given, layers.Dense(3)(x))), noise(2, 6, 5)


def recurrent_cells():
    """Both directions, the older GRU, a cell of Keras' in the general layer, and a mask."""
    given = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True)(given)
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
    x = layers.Bidirectional(layers.GRU(8, reset_after=False, return_sequences=True), merge_mode="sum")(x)
    x = layers.RNN(layers.GRUCell(8), return_sequences=True)(x)
    x = layers.SimpleRNN(8, activation="relu", use_bias=False, unroll=True)(x)
    return randomise(keras.Model(given, layers.Dense(3)(x))), np.arange(12).reshape(2, 6) % 7


class Stepped(keras.Model):
    """A cell that user code runs, and a decoder that starts from its state."""

    def __init__(self):
        super().__init__()
        self.cell, self.decoder, self.head = layers.LSTMCell(8), layers.LSTM(8), layers.Dense(3)

    def call(self, x):
        states = [ops.zeros((ops.shape(x)[0], self.cell.units))] * 2
        for step in range(x.shape[1]):
            _, states = self.cell(x[:, step], states)
        return self.head(self.decoder(x, initial_state=list(states)))


def stepped():
    return built(Stepped(), noise(2, 6, 5))


#: network -> the largest part of the parameters that may stay
NETWORKS = {
    attention: 0.55,
    attention_with_scores: 0.55,
    grouped_queries: 0.55,
    own_attention: 0.55,
    fused_attention: 0.55,
    einsum_heads: 0.55,
    functional_attention: 0.55,
    cross_attention: 0.55,
    causal_attention: 0.6,
    group_norm: 0.35,
    called_twice: 0.4,
    convolution_called_twice: 0.35,
    tied_embedding: 0.75,
    split_at_indices: 0.5,
    functional_split: 0.5,
    slices: 0.51,
    functional_slices: 0.4,
    gated: 0.51,
    einsum_with_own_weights: 0.75,
    convolutions: 0.5,
    one_dimension: 0.55,
    unscaled_norm: 0.5,
    mixer: 0.6,
    recurrent: 0.4,
    recurrent_cells: 0.45,
    stepped: 0.45,
}
