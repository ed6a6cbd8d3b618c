"""The same network written in torch, Keras and ONNX: the same masks, the same groups, the same kept indices, the same outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module

import numpy as np
import pytest

import nnc
import nnc.testing
import nnc_pruning
from nnc.registry import adapter_for
from nnc_pruning import L1NormPruner
from tests.property.programs import BATCH, Program, Value, Writer

torch = pytest.importorskip("torch")
pytest.importorskip("keras")

HALF = [{"sparsity": 0.5}]
IMAGE = Value("image", (BATCH, 3, 8, 8))


def finished(w: Writer, x: int) -> Program:
    axes = tuple(range(2, len(w.values[x].shape))) if w.values[x].kind == "image" else (1,)
    w.linear(w.mean(x, axes), 5)
    return w.program("joint", seed=4)


def resnet_block() -> Program:
    w = Writer(IMAGE)
    x = w.act(w.norm(w.conv(0, 8, 3, bias=False), "batch_norm"), "relu")
    y = w.act(w.norm(w.conv(x, 8, 3, bias=False), "batch_norm"), "relu")
    y = w.norm(w.conv(y, 8, 3, bias=False), "batch_norm")
    return finished(w, w.act(w.pair("add", y, x), "relu"))


def inverted_residual() -> Program:
    w = Writer(IMAGE)
    x = w.norm(w.conv(0, 8, 3, bias=False), "batch_norm")
    y = w.act(w.norm(w.conv(x, 24, bias=False), "batch_norm"), "relu")
    y = w.act(w.norm(w.conv(y, 24, 3, groups=24, bias=False), "batch_norm"), "relu")
    return finished(w, w.pair("add", w.norm(w.conv(y, 8, bias=False), "batch_norm"), x))


def transformer_block(fused: bool = False) -> Program:
    w = Writer(Value("plain", (BATCH, 6, 12)))
    x = w.linear(0, 16)
    normed = w.norm(x, "layer_norm")
    if fused:
        first = w.chunk(w.linear(normed, 48), 2, 3)
        parts = [first, first + 1, first + 2]
    else:
        parts = [w.linear(normed, 16) for _ in range(3)]
    query, key, value = (w.heads(part, 4) for part in parts)
    mixed = w.matmul(w.act(w.matmul(query, key, turned=True), "softmax"), value)
    x = w.pair("add", w.linear(w.merged(mixed), 16), x)
    y = w.linear(w.act(w.linear(w.norm(x, "layer_norm"), 32), "gelu"), 16)
    return finished(w, w.norm(w.pair("add", x, y), "layer_norm"))


def dense_flatten() -> Program:
    """A concat, a grouped convolution, a pool, and a flatten with the channels last."""
    w = Writer(IMAGE)
    x = w.act(w.conv(0, 8, 3), "relu")
    x = w.concat([x, w.act(w.conv(x, 4, 3), "relu")], 1)
    x = w.spatial("pool", w.act(w.conv(x, 12, 3, groups=4), "relu"), 0.5, function="max")
    x = w.linear(w.act(w.linear(w.flatten(x, "NHWC"), 10), "relu"), 5)
    return w.program("joint", seed=4)


NETWORKS = {
    "resnet-block": resnet_block,
    "inverted-residual": inverted_residual,
    "transformer-block": transformer_block,
    "fused-transformer-block": lambda: transformer_block(fused=True),
    "dense-flatten": dense_flatten,
}


def built(name, framework):
    return import_module(f"tests.property.{framework}_builder").build(NETWORKS[name]())


def plain(arrays):
    """Return {layer: {parameter: array}} as lists that can be compared."""
    return {name: {key: np.asarray(array).tolist() for key, array in given.items()} for name, given in arrays.items()}


@dataclass
class Found:
    """What nnc makes of a network in one framework."""

    masks: dict
    groups: list
    pinned: list
    kept: dict
    small: np.ndarray


@cache
def found(name, framework):
    model, inputs = built(name, framework)
    masks = L1NormPruner(model, HALF, example_inputs=inputs).propose()
    speedup = nnc.ModelSpeedup(model, inputs, masks)
    small = speedup.speedup_model()
    told = nnc.prunability(model, inputs)
    return Found(
        plain(masks),
        sorted((sorted(group.layers), group.granules, group.parameters) for group in told.groups),
        sorted((pinned.layer, pinned.channels) for pinned in told.pinned),
        kept(model, speedup.plan),
        adapter_for(small).run(inputs)[0],
    )


def kept(model, plan):
    """Return the kept indices of every weight, bias, scale and shift that the plan cuts."""
    listed = {f"{layer.name}.{key}": shape for layer in nnc.layers(model) for key, shape in layer.parameters.items()}
    shapes = {path: shape for path, shape in listed.items() if path.endswith(("weight", "bias"))}
    others = {path: (10**4,) for path, _ in plan.axes() if path not in shapes}
    indices = plan.kept_indices(shapes | others)
    return {path: {axis: index.tolist() for axis, index in axes.items()} for path, axes in indices.items() if path in shapes}


@pytest.mark.parametrize("framework", ["keras", "onnx"])
@pytest.mark.parametrize("name", NETWORKS)
def test_masks_are_equal(name, framework):
    assert found(name, framework).masks == found(name, "torch").masks
    assert found(name, framework).masks


@pytest.mark.parametrize("framework", ["keras", "onnx"])
@pytest.mark.parametrize("name", NETWORKS)
def test_groups_and_what_is_pinned_are_equal(name, framework):
    assert found(name, framework).groups == found(name, "torch").groups
    assert found(name, framework).pinned == found(name, "torch").pinned


@pytest.mark.parametrize("framework", ["keras", "onnx"])
@pytest.mark.parametrize("name", NETWORKS)
def test_kept_indices_are_equal(name, framework):
    assert found(name, framework).kept == found(name, "torch").kept
    assert found(name, framework).kept


@pytest.mark.parametrize("framework", ["keras", "onnx"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_small_networks_compute_the_same(name, framework):
    ours, theirs = found(name, framework).small, found(name, "torch").small

    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_whole_heads_leave_the_transformer_block():
    heads = np.reshape(found("transformer-block", "onnx").kept["fc2.weight"][0], (-1, 4))

    assert len(heads) == 2
    assert (heads == heads[:, :1] + np.arange(4)).all()


@pytest.mark.parametrize("pruner", [getattr(nnc_pruning, name) for name in ("L1NormPruner", "L2NormPruner", "FPGMPruner", "LevelPruner")])
@pytest.mark.parametrize("framework", ["keras", "onnx"])
def test_every_data_free_pruner_masks_alike_without_a_graph(pruner, framework):
    (model, _), (module, _) = built("inverted-residual", framework), built("inverted-residual", "torch")

    assert plain(pruner(model, HALF).propose()) == plain(pruner(module, HALF).propose())


@pytest.mark.parametrize("framework", ["keras", "torch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_adapter_sees_what_the_reference_sees(name, framework):
    nnc.testing.check_same_network(lambda: built(name, framework), lambda: built(name, "onnx"))


def test_an_adapter_that_sees_another_network_is_named():
    with pytest.raises(AssertionError, match=r"TorchAdapter beside OnnxAdapter.*same names and numbers: the layers are"):
        nnc.testing.check_same_network(lambda: built("resnet-block", "torch"), lambda: built("dense-flatten", "onnx"))
