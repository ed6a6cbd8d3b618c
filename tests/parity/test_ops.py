"""The tensor operations that algorithms are written over have the same names and the same results on both frameworks."""

import numpy as np
import pytest
import torch

import nnc_tensorflow.ops as tensorflow_ops
import nnc_torch.ops as torch_ops

X = np.array([[1.5, -2.0, 0.5], [3.0, 0.25, -1.0]], np.float32)
KEEP = X > 0.4


def test_every_name_of_one_framework_is_one_of_the_other():
    own = vars(tensorflow_ops).items()
    helpers = {"tf", "Sequence", "Callable", "Any", "Axis", "Bool"}
    names = [name for name, value in own if callable(value) and not name.startswith("_") and name not in helpers]

    assert [name for name in names if not hasattr(torch_ops, name)] == []
    assert len(names) > 80


@pytest.mark.parametrize(
    "call",
    [
        lambda ops, x, keep: ops.sum(x, axis=(0, 1)),
        lambda ops, x, keep: ops.mean(x, axis=1, keepdims=True),
        lambda ops, x, keep: ops.std(x, axis=0),
        lambda ops, x, keep: ops.max(x, axis=1),
        lambda ops, x, keep: ops.round(x),
        lambda ops, x, keep: ops.clip(x, -1.0, 1.0),
        lambda ops, x, keep: ops.clip(x, None, 1.0),
        lambda ops, x, keep: ops.where(keep, x, 0.0),
        lambda ops, x, keep: ops.only(x, keep),
        lambda ops, x, keep: ops.clip_gradient_of_levels(x, x, ops.asarray(0.2), ops.asarray(3.0), 0, 7),
        lambda ops, x, keep: ops.clip_gradient_of_levels(x, x, ops.asarray([0.2]), None, -3, 3),
        lambda ops, x, keep: ops.on_grid(x, ops.asarray(0.2), None, -5, 5),
        lambda ops, x, keep: ops.on_grid(x, ops.asarray(0.2), ops.asarray(3.0), 0, 15),
        lambda ops, x, keep: ops.on_grid(x, ops.asarray(0.2), None, None, None),
        lambda ops, x, keep: ops.stack(ops.ratio_gradients(x, x, x + 1, ops.asarray(0.3), -3.0, 5.0)[1:]),
        lambda ops, x, keep: ops.ratio_gradients(x, x, x + 1, ops.asarray(0.3), -3.0, 5.0, (1,))[1],
        lambda ops, x, keep: ops.ratio_gradients(x, x, x + 1, ops.asarray(0.3), -3.0, 5.0)[0],
        lambda ops, x, keep: ops.stack(ops.extremes(x)),
        lambda ops, x, keep: ops.softmax(x, 1),
        lambda ops, x, keep: ops.log_softmax(x, 0),
        lambda ops, x, keep: ops.sigmoid(x),
        lambda ops, x, keep: ops.tanh(x),
        lambda ops, x, keep: ops.floor(x),
        lambda ops, x, keep: ops.sort(x, axis=1),
        lambda ops, x, keep: ops.sort(x, axis=0, descending=True),
        lambda ops, x, keep: ops.argsort(x, axis=1),
        lambda ops, x, keep: ops.take(x, ops.asarray([2, 0]), axis=1),
        lambda ops, x, keep: ops.matmul(x, ops.matrix_transpose(x)),
        lambda ops, x, keep: ops.cumulative_sum(x, axis=1),
        lambda ops, x, keep: ops.without_lowest(x, 2),
        lambda ops, x, keep: ops.without_lowest(x, ops.sum(ops.astype(keep, ops.int32))),
        lambda ops, x, keep: ops.without_lowest(ops.astype(keep, ops.float32), 3),
        lambda ops, x, keep: ops.only_highest(x, x * x, 2),
        lambda ops, x, keep: ops.only_highest(x, x * x, ops.sum(ops.astype(keep, ops.int32))),
        lambda ops, x, keep: ops.only_highest(x, ops.astype(keep, ops.float32), 3),
        lambda ops, x, keep: ops.only_highest(x, x, 0),
        lambda ops, x, keep: ops.only_highest(x, x, 6),
        lambda ops, x, keep: ops.reshape(x, (-1, *ops.shape(x)[:1])),
        lambda ops, x, keep: ops.expand_dims(x, axis=1),
        lambda ops, x, keep: ops.concat([x, x], axis=1),
        lambda ops, x, keep: ops.stack([x, x], axis=0),
        lambda ops, x, keep: ops.logical_and(keep, x > 1),
        lambda ops, x, keep: ops.permute_dims(x, (1, 0)),
        lambda ops, x, keep: ops.argmax(x, axis=1),
        lambda ops, x, keep: ops.prod(x, axis=0),
        lambda ops, x, keep: ops.with_gradient(lambda x: (ops.round(x), ()), lambda g: (g,), x),
    ],
)
def test_both_frameworks_give_the_same(call):
    import tensorflow as tf

    ours = call(torch_ops, torch.from_numpy(X.copy()), torch.from_numpy(KEEP.copy()))
    theirs = call(tensorflow_ops, tf.constant(X), tf.constant(KEEP))

    assert tuple(ours.shape) == tuple(theirs.shape)
    assert np.allclose(ours.numpy(), theirs.numpy(), atol=1e-6)
