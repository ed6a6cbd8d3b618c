"""The small network of nnc.testing's contracts, written node by node: no framework made it."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from nnc.graph.ir import Array, Shape

_SHAPES: dict[str, Shape] = {
    "stem.weight": (8, 3, 3, 3),
    "stem.bias": (8,),
    "stem_bn.weight": (8,),
    "stem_bn.bias": (8,),
    "stem_bn.running_mean": (8,),
    "stem_bn.running_var": (8,),
    "depthwise.weight": (8, 1, 3, 3),
    "depthwise.bias": (8,),
    "project.weight": (8, 8, 1, 1),
    "mix.weight": (12, 16, 3, 3),
    "mix.bias": (12,),
    "hidden.weight": (300, 16),
    "hidden.bias": (16,),
    "classes.weight": (5, 16),
    "classes.bias": (5,),
}


def _nodes() -> list[NodeProto]:
    """BatchNorm, a depthwise convolution, a residual add, a concat, a reshape of fixed size, a MatMul and a Gemm."""
    node = helper.make_node
    statistics = [f"stem_bn.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    return [
        node("Conv", ["image", "stem.weight", "stem.bias"], ["a"], "stem", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", *statistics], ["b"], "stem_bn"),
        node("Relu", ["b"], ["c"]),
        node("Conv", ["c", "depthwise.weight", "depthwise.bias"], ["d"], "depthwise", pads=[1, 1, 1, 1], group=8),
        node("Sigmoid", ["d"], ["e"]),
        node("Conv", ["e", "project.weight"], ["f"], "project"),
        node("Add", ["f", "c"], ["g"]),
        node("Concat", ["g", "c"], ["h"], axis=1),
        node("Conv", ["h", "mix.weight", "mix.bias"], ["i"], "mix"),
        node("Relu", ["i"], ["j"]),
        node("MaxPool", ["j"], ["k"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", ["k", "sizes"], ["l"]),
        node("MatMul", ["l", "hidden.weight"], ["m"], "hidden"),
        node("Add", ["m", "hidden.bias"], ["n"]),
        node("Relu", ["n"], ["o"]),
        node("Gemm", ["o", "classes.weight", "classes.bias"], ["scores"], "classes", transB=1),
    ]


def residual_network(seed: int = 0) -> tuple[ModelProto, Array]:
    """Return the network, no number in it zero or one, and images `(4, 3, 12, 12)` for it; the same at each call."""
    generator = np.random.default_rng(seed)
    stored = [numpy_helper.from_array(_numbers(name, shape, generator), name) for name, shape in _SHAPES.items()]
    stored.append(numpy_helper.from_array(np.asarray([-1, 300]), "sizes"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 12, 12])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 5])
    graph = helper.make_graph(_nodes(), "residual_network", [image], [scores], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model, generator.standard_normal((4, 3, 12, 12)).astype(np.float32)


def _numbers(name: str, shape: Shape, generator: np.random.Generator) -> Array:
    if name.endswith("var"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    return (generator.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)
