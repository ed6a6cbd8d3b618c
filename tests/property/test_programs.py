"""Random networks under random masks, on every adapter: the small model computes what the masked one does.

`NNC_EXAMPLES=2000 pytest tests/property` tries that many on each adapter, other ones each time.
"""

from __future__ import annotations

import os
import re
import warnings
from importlib import import_module

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings

import nnc
from nnc.registry import adapter_for
from tests.property.found import AVERAGED, CONSTANT, LOOSE, MAXIMUM, OUTSIDE, PIXELS, REPEATED, UNUSED
from tests.property.masking import masks_of
from tests.property.programs import Program, Value, Writer, programs

MANY = int(os.environ.get("NNC_EXAMPLES", "0"))


def tried(count):
    """Return the settings of a test that CI runs on `count` examples, the same each time."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=MANY or count, deadline=None, derandomize=not MANY, database=None, suppress_health_check=slow)


def shrunk(framework: str, program: Program):
    """Return (model, inputs, speedup) of a program in a framework, or None where no mask is possible."""
    builder = import_module(f"tests.property.{framework}_builder")
    model, inputs = builder.build(program)
    try:
        masks = masks_of(program, model, inputs, last=framework == "keras")
    except nnc.ConfigError as error:
        assert "can leave" in str(error) or "has no layer that can be pruned" in str(error)
        return None
    if not masks:
        return None
    speedup = nnc.ModelSpeedup(model, inputs, masks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        speedup.speedup_model()
    assert builder.learning(speedup.model) == builder.learning(model)
    return model, inputs, speedup


def moved(framework: str, program: Program) -> tuple[float, float]:
    """Return how far the small model is from the masked one, and that from the original, relative to what is larger of the two."""
    made = shrunk(framework, program)
    if made is None:
        return 0.0, 0.0
    model, inputs, speedup = made
    adapter = adapter_for(model)
    (original,) = adapter.run(inputs)
    adapter.set_masks(speedup.masks)
    (masked,) = adapter.run(inputs)
    (small,) = adapter_for(speedup.model).run(inputs)
    scale = float(np.abs([original, masked]).max())
    return float(np.abs(small - masked).max()) / scale, float(np.abs(original - masked).max()) / scale


def groups_volumes(program: Program) -> bool:
    """Return whether a program has a grouped convolution of volumes: on a CPU, TensorFlow cannot run one."""
    convs = [step for step in program.steps if step.op == "conv" and step.results[0].kind == "volume"]
    return any(step.attrs["groups"] > 1 for step in convs)


def groups_queries_of_another_width(program: Program) -> bool:
    """Return whether a program has attention with shared heads whose values are not as wide as its queries: Keras refuses these."""
    attentions = [(step.attrs, step.results[0].channels) for step in program.steps if step.op == "attention"]
    return any(a["shared"] > 1 and a["source"] != width for a, width in attentions)


@tried(60)
@given(programs())
@example(LOOSE)
@example(AVERAGED)
def test_small_torch_modules_compute_what_the_masked_ones_do(program):
    pytest.importorskip("torch")
    assert moved("torch", program)[0] <= 1e-5


@tried(40)
@given(programs())
@example(PIXELS)
def test_small_onnx_models_compute_what_the_masked_ones_do(program):
    pytest.importorskip("onnx")
    assert moved("onnx", program)[0] <= 1e-5


@tried(6)
@given(programs())
@example(OUTSIDE)
def test_small_keras_models_compute_what_the_masked_ones_do(program):
    pytest.importorskip("keras")
    assume(not groups_volumes(program) and not groups_queries_of_another_width(program))
    assert moved("keras", program)[0] <= 1e-5


def groups(framework: str, program: Program, **options) -> list:
    """Return (layers, granules) of every group that may leave; what no module holds is a layer in a file only, and not listed."""
    model, inputs = import_module(f"tests.property.{framework}_builder").build(program, **options)
    held = program.modules()
    found = [
        ({_module(layer) for layer in group.layers if layer.partition(".")[0] in held}, group.granules)
        for group in nnc.prunability(model, inputs).groups
    ]
    return sorted((sorted(layers), granules) for layers, granules in found if layers)


def _module(layer: str) -> str:
    """Return the name of the attention that holds a projection's weights together with two others'; a file has three layers there."""
    return re.sub(r"((attn\d+|self_attn))\.[qkv]$", r"\1", layer)


@tried(30)
@given(programs())
@example(MAXIMUM)
@example(CONSTANT)
@example(REPEATED)
@example(PIXELS)
@example(AVERAGED)
def test_a_torch_module_and_an_onnx_file_of_one_network_have_the_same_groups(program):
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    assume(not _single_headed(program) and not _turned(program) and not _both_ways(program))
    module, file = groups("torch", program), groups("onnx", program)

    if _gets_additions(program):
        assert all(group in file for group in module)
    elif not _holds_tables(program):
        assert file == module


def _single_headed(program: Program) -> bool:
    """In a file the positions within a single head may leave; torch's modules fix a head's size, and the scale that follows from it."""
    attentions = [step.attrs for step in program.steps if step.op in ("attention", "encoder")]
    return any(1 in (a["heads"], a["heads"] // a.get("shared", 1)) for a in attentions)


def _both_ways(program: Program) -> bool:
    """A file has the two directions of a recurrent layer on an axis of their own, which a slice or a concat behind it cuts across."""
    return any(step.attrs.get("both") for step in program.steps)


def _turned(program: Program) -> bool:
    """A transposed convolution's weight, held by code of the user's, is (in, out): its first axis is taken for its outputs."""
    layers = program.layers()
    return any(layers[name][0].op == "transposed" for name in program.held)


def _gets_additions(program: Program) -> bool:
    """A constant before a product without a bias can leave from a file, which gets an addition behind it; code of the user's does not."""
    layers = program.layers()
    lacking = any(not layers[name][0].attrs.get("bias", True) for name in (*program.held, *program.loose))
    return not _holds_tables(program) and (lacking or any(step.op in ("bare", "tied") for step in program.steps))


def _holds_tables(program: Program) -> bool:
    """What the network itself holds can be masked, and so leave, in a module only: in a file it belongs to no layer.

    That is a table that is added, and a vector or an einsum's matrix behind a product; a matrix of a product is a layer in a file.
    """
    ops = {step.op for step in program.steps}
    return "placed" in ops or ops >= {"bare", "scaled"}


def test_what_only_an_unused_layer_reads_is_offered_no_more_than_in_a_file_that_lacks_the_layer():
    pytest.importorskip("torch")
    pytest.importorskip("onnx")

    assert groups("torch", UNUSED) == groups("onnx", UNUSED, whole=False) == [(["conv0"], 3)]


@pytest.mark.parametrize("framework", ["torch", "onnx", "keras"])
@pytest.mark.parametrize(("cell", "units"), [("LSTM", 4), ("RNN", 4), ("GRU", 4), ("GRU", 3)])
def test_a_constant_that_a_recurrent_layer_reads_goes_into_its_bias(framework, cell, units):
    """The bias of masked rows stays, and a sigmoid makes a constant of it. A GRU of 3 has one bias in Keras, not two."""
    pytest.importorskip(framework)
    writer = Writer(Value("plain", (2, 3, 6)))
    x = writer.recurrent(writer.act(writer.linear(0, 6), "sigmoid"), cell, units, both=False)
    writer.linear(writer.mean(x, (1,)), 3)
    model, inputs = import_module(f"tests.property.{framework}_builder").build(writer.program("rows", 3))
    rows = np.ones((6, 6), bool)
    rows[[1, 4]] = False

    speedup = nnc.ModelSpeedup(model, inputs, {"fc0": {"weight": rows}})
    speedup.speedup_model()

    assert speedup.plan.groups[0].members[0].removed == (1, 4)
    assert speedup.difference <= 1e-6
    assert speedup.plan.kept == ()


@pytest.mark.parametrize("framework", ["torch", "onnx", "keras"])
def test_the_width_of_an_embedding_leaves_whose_columns_are_masked(framework):
    """No layer norm follows, and no layer that a pruner scores makes that width: a user masks it."""
    pytest.importorskip(framework)
    writer = Writer(Value("indices", (2, 5)))
    x = writer.embedding(0, 7, 6)
    y = writer.pair("add", writer.linear(x, 4), writer.linear(writer.act(x, "gelu"), 4))
    writer.linear(writer.mean(y, (1,)), 3)
    model, inputs = import_module(f"tests.property.{framework}_builder").build(writer.program("rows", 3))
    columns = np.ones((7, 6), bool)
    columns[:, [0, 4]] = False

    speedup = nnc.ModelSpeedup(model, inputs, {"table0": {"weight": columns}})
    speedup.speedup_model()

    removed = {(member.tensor, member.axis): member.removed for group in speedup.plan.groups for member in group.members}
    assert removed == {("table0.weight", 1): (0, 4), ("fc1.weight", 1): (0, 4), ("fc2.weight", 1): (0, 4)}
    assert speedup.difference <= 1e-6
    assert speedup.plan.kept == ()
