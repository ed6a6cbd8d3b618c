"""Fake quantisation run and differentiated on both frameworks, and the answers of other implementations in tests/data."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
import torch

import nnc_tensorflow.ops as tensorflow_ops
import nnc_torch.ops as torch_ops

ANSWERS = json.loads((Path(__file__).parents[1] / "data" / "quantization.json").read_text("utf-8"))


def on_torch(function, gradient, *arrays):
    """Return `function(ops, *tensors)` and the gradients of its product with `gradient` by each of them, as arrays."""
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    result = function(torch_ops, *tensors)
    (result * torch.tensor(gradient)).sum().backward()
    return result.detach().numpy(), [None if tensor.grad is None else tensor.grad.numpy() for tensor in tensors]


def on_tensorflow(function, gradient, *arrays):
    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        result = function(tensorflow_ops, *tensors)
        total = tf.reduce_sum(result * tf.constant(gradient))
    found = tape.gradient(total, tensors)
    return result.numpy(), [None if each is None else each.numpy() for each in found]


def on_both(function, gradient, *arrays):
    """Return what torch gives, once TensorFlow has given the same to 1e-6."""
    arrays = [np.asarray(array, np.float32) for array in arrays]
    gradient = np.broadcast_to(np.asarray(gradient, np.float32), arrays[0].shape).copy()
    ours, theirs = on_torch(function, gradient, *arrays), on_tensorflow(function, gradient, *arrays)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6, atol=1e-6)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-6)
    return ours


def assert_on_grid(found, expected, x, scale):
    """Assert equal numbers, but for one level where x lies in the middle between two, by float32's reckoning."""
    x, scale = np.asarray(x, np.float64), np.asarray(scale, np.float64)
    middle = np.abs(np.abs(x / scale % 1) - 0.5) < 1e-4
    apart = np.abs(np.asarray(found) - np.asarray(expected)) / scale
    assert (apart[~middle] < 0.01).all()
    assert (apart <= 1.001).all()
