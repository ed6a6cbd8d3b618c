"""keras_hub's language models generate with fewer heads."""

import numpy as np
import pytest

import nnc
from nnc_pruning import L1NormPruner
from tests.zoo_keras.architectures import randomise, tokens
from tests.zoo_keras.checks import difference, run

keras_hub = pytest.importorskip("keras_hub")
SIZES = {"vocabulary_size": 50, "num_layers": 2, "hidden_dim": 32, "intermediate_dim": 64}


def trained(model):
    """Draw weights with which a head more or less is another word."""
    draw = np.random.default_rng(0)
    for variable in randomise(model).variables:
        if len(variable.shape) > 1:
            variable.assign(draw.standard_normal(variable.shape) * 0.5)
    return model


def gpt2():
    backbone = keras_hub.models.GPT2Backbone(**SIZES, num_heads=4, max_sequence_length=16, name="backbone")
    return trained(keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None))


def llama():
    backbone = keras_hub.models.LlamaBackbone(**SIZES, num_query_heads=4, num_key_value_heads=2, name="backbone")
    return trained(keras_hub.models.LlamaCausalLM(backbone=backbone, preprocessor=None))


def batch():
    return {"token_ids": tokens(2, 8), "padding_mask": np.ones((2, 8), "int32")}


def generated(model, eagerly=True):
    """Return what a model says after four tokens, greedily."""
    model.compile(sampler="greedy", run_eagerly=eagerly, jit_compile=False)
    room = np.zeros((2, 8), "int32")
    given = {"token_ids": np.concatenate([tokens(2, 4), room], 1), "padding_mask": np.concatenate([room[:, :4] + 1, room], 1)}
    return model.generate(given, stop_token_ids=None)["token_ids"]


@pytest.mark.parametrize("build", [gpt2, pytest.param(llama, marks=pytest.mark.slow)])
def test_generate_gives_the_tokens_of_the_masked_model(build, tmp_path):
    model = build()
    untouched = generated(model)
    model, masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=batch()).compress()
    small = nnc.ModelSpeedup(model, batch(), masks).speedup_model()

    expected = generated(model)

    assert (generated(small) == expected).all()
    assert (generated(small, eagerly=False) == expected).all()
    assert (expected != untouched).any()
    nnc.save(small, tmp_path / "small")
    loaded = nnc.load(tmp_path / "small", model=build)
    assert difference(run(small, batch()), run(loaded, batch())) == 0
    assert (generated(loaded) == expected).all()


def test_layers_with_different_numbers_of_heads_say_that_they_cannot_share_a_cache():
    model = gpt2()
    config = [{"op_partial_names": ["layer_0"], "sparsity": 0.5}, {"op_partial_names": ["layer_1"], "sparsity": 0.25}]
    small = nnc.compress(model, config, batch()).speedup()

    with pytest.raises(nnc.NncError, match=r"the layers differ in their heads now .*Remove as many heads from each layer"):
        generated(small)
