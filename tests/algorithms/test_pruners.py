"""Every built-in pruner on both frameworks: the contract, the counts, and the same choice from the same weights."""

import numpy as np
import pytest

import nnc
import nnc.testing
import nnc_pruning
from tests.frameworks import FRAMEWORKS, LENET, images

PRUNERS = [getattr(nnc_pruning, name) for name in nnc_pruning.__all__]
CHANNELS = [pruner for pruner in PRUNERS if pruner.granularity == "channel" and not nnc.testing.needs_trainer(pruner)]
WEIGHTS = [pruner for pruner in PRUNERS if not nnc.testing.needs_trainer(pruner)]
#: Without example inputs network slimming takes BatchNorm layers; one alternation of ADMM tells as much as three.
CONFIGS = {"slim": [{"op_types": ["BatchNorm2d"]}], "admm": [{"iterations": 1}]}
SIZES = {"conv1": (10, 1, 5, 5), "conv2": (25, 10, 5, 5), "fc1": (250, 400), "fc2": (10, 250)}


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_a_pruner_keeps_its_contract(pruner):
    nnc.testing.check_pruner(pruner, config=CONFIGS.get(pruner.name))


@pytest.mark.parametrize("pruner", CHANNELS)
def test_lenet_loses_exactly_half_of_each_layer_but_the_last(framework, pruner):
    for name in framework.lenets:
        model = framework.build(name)
        assert framework.count(model) == 431_080

        _, masks = pruner(model, LENET).compress()
        masked = framework.run(model, images())
        small = nnc.ModelSpeedup(model, framework.inputs(images()), masks).speedup_model()

        assert {layer.name: layer.parameters["weight"] for layer in nnc.layers(small)} == SIZES
        assert framework.count(small) == 109_295
        np.testing.assert_allclose(framework.run(small, images()), masked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pruner", WEIGHTS)
def test_the_same_weights_give_the_same_masks(pruner):
    found = {}
    for framework in FRAMEWORKS.values():
        _, masks = pruner(framework.build("lenet"), LENET).compress()
        found[framework.name] = {**masks, "fc1": {**masks["fc1"], "weight": framework.columns(masks["fc1"]["weight"])}}

    assert found["torch"].keys() == found["keras"].keys()
    for layer, given in found["torch"].items():
        for key, mask in given.items():
            np.testing.assert_array_equal(mask, found["keras"][layer][key], err_msg=f"{layer}.{key}")


@pytest.mark.parametrize("total", [{"sparsity": 0.5}, {"total_sparsity": 0.5, "max_sparsity_per_layer": 0.75}])
@pytest.mark.parametrize("pruner", CHANNELS)
def test_the_same_weights_keep_the_same_indices_and_give_the_same_outputs(pruner, total):
    config = [total, {"op_names": "classes", "exclude": True}]
    gone, outputs = {}, {}
    for framework in FRAMEWORKS.values():
        model = framework.build("residual")
        _, masks = pruner(model, config).compress()
        speedup = nnc.ModelSpeedup(model, framework.inputs(images(2, 3, 12)), masks)
        small = speedup.speedup_model()
        gone[framework.name] = sorted((axis, member.removed) for axis, members in speedup.plan.axes().items() for member in members)
        outputs[framework.name] = framework.run(small, images(2, 3, 12))

    assert gone["torch"] == gone["keras"] != []
    np.testing.assert_allclose(outputs["torch"], outputs["keras"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pruner", CHANNELS)
def test_unwrapping_gives_the_outputs_back(framework, pruner):
    model = framework.build("residual")
    kind, before = type(model), framework.run(model, images(2, 3, 12))
    wrapped = pruner(model, [{"sparsity": 0.5}])
    wrapped.compress()

    assert wrapped.unwrap_model() is model
    assert type(model) is kind
    np.testing.assert_array_equal(framework.run(model, images(2, 3, 12)), before)
