"""Run a loss on either framework's tensors from NumPy arrays, and give its value and its gradients as arrays."""

import numpy as np


def tree(function, value):
    if isinstance(value, list | tuple):
        return type(value)(tree(function, item) for item in value)
    return function(value) if isinstance(value, np.ndarray) else value


class _Tensors:
    def all(self, arrays):
        return [self.one(array) for array in arrays]

    def value(self, loss, *given, **named):
        """Return the loss of arrays (or lists of them) as an array."""
        return self.numpy(loss(*tree(self.one, given), **{key: tree(self.one, value) for key, value in named.items()}, ops=self.ops))

    def float64(self, loss, given):
        return float(self.numpy(loss(*self.all(given), ops=self.ops)))

    def gradient(self, loss, student, teacher, **named):
        return self.gradients(lambda s, ops: loss(s, self.one(teacher), ops=ops, **named), [student])[0]


class Torch(_Tensors):
    def __init__(self):
        from nnc_torch import ops

        self.ops = ops

    def one(self, array):
        import torch

        return torch.from_numpy(np.array(array))

    def numpy(self, tensor):
        return tensor.detach().numpy()

    def gradients(self, loss, given):
        leaves = [tensor.requires_grad_() for tensor in self.all(given)]
        loss(*leaves, ops=self.ops).backward()
        return [leaf.grad.numpy() for leaf in leaves]

    def teacher_gradient(self, loss, student, teacher):
        s, t = (self.one(array.copy()).requires_grad_() for array in (student, teacher))
        loss(s, t, self.ops).backward()
        return t.grad


class Keras(_Tensors):
    def __init__(self):
        from nnc_tensorflow import ops

        self.ops = ops

    def one(self, array):
        import tensorflow as tf

        return tf.constant(array)

    def numpy(self, tensor):
        return tensor.numpy()

    def gradients(self, loss, given):
        import tensorflow as tf

        leaves = self.all(given)
        with tf.GradientTape() as tape:
            tape.watch(leaves)
            value = loss(*leaves, ops=self.ops)
        return [np.asarray(gradient) for gradient in tape.gradient(value, leaves)]

    def teacher_gradient(self, loss, student, teacher):
        import tensorflow as tf

        s, t = self.one(student), self.one(teacher)
        with tf.GradientTape() as tape:
            tape.watch([s, t])
            value = loss(s, t, self.ops)
        return tape.gradient(value, t)


OPS = {"torch": Torch, "keras": Keras}
