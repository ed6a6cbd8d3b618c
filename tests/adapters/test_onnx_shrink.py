"""Small ONNX models compute what the masked ones do, in ONNX Runtime, and onnx's checker accepts them."""

from contextlib import nullcontext

import numpy as np
import onnx
import onnxruntime
import pytest

import nnc
import nnc_pruning
from nnc.registry import adapter_for
from nnc_onnx.examples import residual_network
from tests.adapters.onnx_nets import exported, network, randomised, relative
from tests.frameworks import LENET, images

torch = pytest.importorskip("torch")


def runtime(model, *arrays):
    """Return the first output that plain ONNX Runtime gives."""
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {given.name: array for given, array in zip(session.get_inputs(), arrays, strict=True)})[0]


def halved(model, inputs, config=None, pruner=nnc_pruning.L1NormPruner):
    """Prune, run the masked model, shrink; return the small model, the plan, and how far its output is from the masked one's."""
    arrays = inputs if isinstance(inputs, tuple) else (inputs,)
    masked, masks = pruner(model, config or [{"sparsity": 0.5}], inputs).compress()
    expected = runtime(masked, *arrays)
    speedup = nnc.ModelSpeedup(model, inputs, masks)
    small = speedup.speedup_model()
    return small, speedup.plan, relative(runtime(small, *arrays), expected)


def sizes(model):
    return {layer.name: layer.parameters["weight"] for layer in nnc.layers(model)}


def test_the_masked_file_itself_computes_what_its_masks_say():
    model, x = residual_network()
    before = runtime(model, x)
    pruner = nnc_pruning.L1NormPruner(model, [{"sparsity": 0.5}])

    masked, _ = pruner.compress()

    assert relative(runtime(masked, x), before) > 1e-3
    assert np.array_equal(runtime(pruner.unwrap_model(), x), before)


def test_taking_masks_away_restores_the_file_byte_for_byte():
    model, _ = residual_network()
    before = model.SerializeToString(deterministic=True)
    pruner = nnc_pruning.L1NormPruner(model, [{"sparsity": 0.5}])

    pruner.compress()
    pruner.unwrap_model()

    assert model.SerializeToString(deterministic=True) == before


def test_lenet_is_halved_exactly_and_its_reshape_follows():
    _, model = network("lenet", images())

    small, plan, difference = halved(model, images(), LENET)

    assert difference <= 1e-5
    assert sizes(small) == {"conv1": (10, 1, 5, 5), "conv2": (25, 10, 5, 5), "fc1": (250, 400), "fc2": (10, 250)}
    assert [reshape.new for reshape in plan.reshapes] == [(-1, 400)]


def test_a_residual_network_with_depthwise_concat_and_batch_norm_is_halved_exactly():
    _, model = network("residual", images(2, 3, 12))

    small, plan, difference = halved(model, images(2, 3, 12))

    assert difference <= 1e-5
    assert sizes(small)["depthwise"] == (4, 1, 3, 3)
    assert [(size.attribute, size.new) for size in plan.sizes] == [("groups", 4)]


@pytest.mark.parametrize("name", ["LevelPruner", "L1NormPruner", "L2NormPruner", "FPGMPruner", "RandomPruner"])
def test_every_pruner_without_data_gives_a_small_model_that_computes_the_same(name):
    model, x = residual_network()

    with pytest.warns(nnc.NothingRemoved) if name == "LevelPruner" else nullcontext():
        _, _, difference = halved(model, x, pruner=getattr(nnc_pruning, name))

    assert difference <= 1e-5


def test_the_original_file_stays_as_it_was(tmp_path):
    model, x = residual_network()
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    before = path.read_bytes()

    masked, masks = nnc_pruning.L1NormPruner(path, [{"sparsity": 0.5}], x).compress()
    small = nnc.ModelSpeedup(str(path), x, masks).speedup_model()

    assert path.read_bytes() == before
    assert relative(runtime(small, x), runtime(masked, x)) <= 1e-5


def test_compress_takes_a_path(tmp_path):
    model, x = residual_network()
    onnx.save(model, tmp_path / "net.onnx")

    done = nnc.compress(str(tmp_path / "net.onnx"), [{"sparsity": 0.5}], x)
    small = done.speedup()

    assert done.report().after.parameters < 0.5 * done.report().before.parameters
    assert adapter_for(small).masks() == {}


def test_an_exported_bert_loses_whole_heads_and_neurons_exactly():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=50, max_position_embeddings=16
    )
    tokens = torch.randint(0, 50, (2, 8), generator=torch.Generator().manual_seed(0))
    model = exported(randomised(transformers.BertModel(config)), (tokens,))
    whole = runtime(model, tokens.numpy())

    masked = [{"sparsity": 0.5, "op_partial_names": ["query", "key", "value", "intermediate"]}]
    small, plan, difference = halved(model, tokens.numpy(), masked)

    assert difference <= 1e-5
    assert relative(runtime(small, tokens.numpy()), whole) > 1e-2
    attention = next(group for group in plan.groups if "query" in group.members[0].tensor)
    assert (attention.members[0].size, len(attention.members[0].removed)) == (4, 2)
    assert sizes(small)["encoder.layer.0.attention.self.query"] == (16, 32)
    assert sizes(small)["encoder.layer.1.output.dense"] == (32, 32)
