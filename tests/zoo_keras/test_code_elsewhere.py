"""Sizes that stand neither in a call of the layer's own method nor in one of its numbers: in functions, and in lists."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import nnc
from nnc_pruning import L1NormPruner

register = keras.saving.register_keras_serializable("nnc-tests")


def attention(q, k, v, heads):
    """Attention, with the head's width computed from the input's; other layers use it as well."""
    length, width = q.shape[1], q.shape[2]
    q, k, v = (ops.transpose(ops.reshape(x, (-1, length, heads, 8)), (0, 2, 1, 3)) for x in (q, k, v))
    scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / 8**0.5)
    return ops.reshape(ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3)), (-1, length, width))


@register
class Heads(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.query, self.key, self.value = (layers.Dense(32, name=name) for name in ("query", "key", "value"))
        self.out = layers.Dense(5, name="out")

    def call(self, x):
        return self.out(attention(self.query(x), self.key(x), self.value(x), 4))


@register
class Branches(keras.Model):
    """A third of the channels passes, the others go through convolutions; where to split stands in a list."""

    def __init__(self, places=(8, 16), **options):
        super().__init__(**options)
        self.places = places
        self.up, self.down = layers.Conv2D(24, 1, name="up"), layers.Conv2D(5, 1, name="down")
        self.rows = layers.DepthwiseConv2D((1, 3), padding="same", name="rows")
        self.columns = layers.DepthwiseConv2D((3, 1), padding="same", name="columns")

    def parts(self, x):
        return ops.split(x, self.places, axis=-1)

    def call(self, x):
        kept, rows, columns = self.parts(self.up(x))
        return self.down(ops.concatenate([kept, self.rows(rows), self.columns(columns)], -1))


@register
class BranchesOfSizes(Branches):
    def parts(self, x):
        return tf.split(x, self.places, axis=-1)


def shrunk(make, shape):
    keras.utils.set_random_seed(0)
    model, x = make(), np.random.default_rng(0).standard_normal(shape).astype("float32")
    model(x)
    speedup = nnc.ModelSpeedup(model, x, L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=x).propose())
    small = speedup.speedup_model()
    assert speedup.difference <= 1e-6 and speedup.plan.kept == ()
    return model, small, x


def test_heads_leave_where_a_function_gives_their_number(tmp_path):
    model, small, x = shrunk(Heads, (2, 6, 16))

    assert small.query.units == 16
    assert attention(*[ops.zeros((2, 6, 32))] * 3, 4).shape == (2, 6, 32)
    assert model(x).shape == (2, 6, 5)
    nnc.save(small, tmp_path)
    again = Heads()
    again(x)
    np.testing.assert_array_equal(nnc.load(tmp_path, model=again)(x), small(x))


@pytest.mark.parametrize(
    ("make", "expected"), [(Branches, (4, 8)), (lambda: BranchesOfSizes((8, 8, 8)), (4, 4, 4))], ids=["places", "sizes"]
)
def test_lists_that_say_where_to_split_follow(make, expected, tmp_path):
    model, small, x = shrunk(make, (2, 5, 5, 3))

    assert len(small.places) == len(expected) and small.places != model.places
    assert small.up.filters == 12
    nnc.save(small, tmp_path)
    again = make()
    again(x)
    loaded = nnc.load(tmp_path, model=again)
    assert loaded.places == small.places
    np.testing.assert_array_equal(loaded(x), small(x))
