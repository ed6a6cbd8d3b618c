"""A number that is a size and that the code computes with: the code is rewritten on Keras, too, and the attribute stays."""

import keras
import numpy as np
from keras import layers, ops

import nnc
from nnc_pruning import L1NormPruner


@keras.saving.register_keras_serializable("nnc-tests")
class OneHead(keras.Model):
    """Attention with one head; `shape` is a variable, and `width` a size and a number to compute with."""

    def __init__(self, **options):
        super().__init__(**options)
        self.width = 24
        self.query, self.key, self.value = (layers.Dense(24, name=name) for name in ("query", "key", "value"))
        self.out = layers.Dense(5, name="out")

    def call(self, x):
        shape = (ops.shape(x)[0], x.shape[1], self.width)
        q = ops.reshape(self.query(x), shape)
        k = ops.reshape(self.key(x), (-1, x.shape[1], self.width))
        scores = ops.matmul(q, ops.transpose(k, (0, 2, 1))) / self.width**0.5
        return self.out(ops.matmul(ops.softmax(scores), self.value(x)))


def test_code_is_rewritten_where_the_attribute_that_gives_a_size_is_a_number_too():
    keras.utils.set_random_seed(0)
    model, x = OneHead(), np.random.default_rng(0).standard_normal((2, 6, 16)).astype("float32")
    model(x)
    masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=x).propose()
    speedup = nnc.ModelSpeedup(model, x, masks)
    small = speedup.speedup_model()

    assert (small.width, small.query.units, small.key.units, small.value.units) == (24, 12, 12, 12)
    assert speedup.plan.kept == () and speedup.difference <= 1e-6
