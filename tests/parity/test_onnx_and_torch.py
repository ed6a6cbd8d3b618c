"""The same network as a torch module and as an .onnx file: the same layers, masks, groups and kept indices."""

import numpy as np
import pytest

import nnc
import nnc_pruning
from nnc.registry import adapter_for
from tests.adapters.onnx_nets import exported, network, randomised, relative
from tests.frameworks import LENET, images

torch = pytest.importorskip("torch")

HALF = [{"sparsity": 0.5}]
NETWORKS = [("lenet", images(), LENET), ("residual", images(2, 3, 12), HALF)]
PRUNERS = [getattr(nnc_pruning, f"{name}Pruner") for name in ("Level", "L1Norm", "L2Norm", "FPGM", "Random")]


def same(left, right):
    """Tell whether two dicts of dicts of arrays are equal."""
    return {name: given.keys() for name, given in left.items()} == {name: given.keys() for name, given in right.items()} and all(
        np.array_equal(array, right[name][key]) for name, given in left.items() for key, array in given.items()
    )


def kept(model, plan):
    """Return the kept indices of every parameter that the plan cuts and a layer lists."""
    shapes = {f"{layer.name}.{key}": shape for layer in nnc.layers(model) for key, shape in layer.parameters.items()}
    listed = {path: axes for path, axes in plan.axes().items() if path[0] in shapes}
    assert listed
    return {
        path: axes
        for path, axes in plan.kept_indices(shapes | {path: (10**4,) for path, _ in plan.axes() if path not in shapes}).items()
        if path in shapes
    }


@pytest.mark.parametrize(("name", "batch", "config"), NETWORKS)
@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("joint", [False, True])
def test_masks_are_equal(pruner, name, batch, config, joint):
    module, proto = network(name, batch)

    _, ours = pruner(proto, config, batch if joint else None).compress()
    _, theirs = pruner(module, config, torch.from_numpy(batch) if joint else None).compress()

    assert same(ours, theirs)


@pytest.mark.parametrize(("name", "batch", "config"), NETWORKS)
def test_layers_kept_indices_and_small_outputs_are_equal(name, batch, config):
    module, proto = network(name, batch)
    inputs = torch.from_numpy(batch)
    _, masks = nnc_pruning.L1NormPruner(proto, config, batch).compress()

    ours, theirs = nnc.ModelSpeedup(proto, batch, masks), nnc.ModelSpeedup(module, inputs, masks)
    small, other = ours.speedup_model(), theirs.speedup_model()

    assert [layer.name for layer in nnc.layers(proto)] == [layer.name for layer in nnc.layers(module)]
    assert same(kept(proto, ours.plan), kept(module, theirs.plan))
    assert relative(adapter_for(small).run(batch)[0], adapter_for(other).run(inputs)[0]) <= 1e-5


def test_a_transformer_block_loses_the_same_heads():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, vocab_size=50)
    module = randomised(transformers.BertModel(config))
    tokens = torch.arange(16).reshape(2, 8)
    proto = exported(module, (tokens,))
    asked = [{"sparsity": 0.5, "op_partial_names": ["query", "key", "value", "intermediate"]}]

    _, ours = nnc_pruning.L1NormPruner(proto, asked, tokens.numpy()).compress()
    _, theirs = nnc_pruning.L1NormPruner(module, asked, tokens).compress()

    assert same(ours, theirs)
