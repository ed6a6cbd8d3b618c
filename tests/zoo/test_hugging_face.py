"""A small Hugging Face model is a Hugging Face model: its config, generate, Trainer and model(**batch) with labels."""

import numpy as np
import pytest
import torch

import nnc
from nnc.registry import adapter_for
from nnc_pruning import L1NormPruner
from nnc_torch.inference import run
from tests.zoo.test_torch_zoo import ZOO, apart, made

transformers = pytest.importorskip("transformers")
HALF = [{"sparsity": 0.5}]


def pruned(name, config=None):
    """Return a masked model, the small one, and the speedup."""
    model, inputs = made(name)
    model, masks = L1NormPruner(model, config or HALF, example_inputs=inputs).compress()
    speedup = nnc.ModelSpeedup(model, inputs, masks)
    return model, speedup.speedup_model(), speedup


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("bert-sdpa", {"num_attention_heads": 2, "intermediate_size": 64, "hidden_size": 64}),
        ("vit", {"num_attention_heads": 2, "intermediate_size": 64}),
        ("distilbert", {"n_heads": 2, "hidden_dim": 64, "dim": 64}),
        ("gpt2", {"n_head": 2, "n_inner": 128, "n_embd": 64}),
        ("llama", {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64}),
        ("t5", {"num_heads": 2, "d_kv": 16, "d_ff": 64, "d_model": 64}),
        ("whisper", {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "d_model": 64}),
        ("swin", {"num_heads": [2, 4], "embed_dim": 32}),
        ("resnet", {"hidden_sizes": [16, 24, 32, 48], "embedding_size": 8}),
    ],
)
def test_the_config_says_what_the_small_model_is_and_the_users_own_stays(name, fields):
    model, small, _ = pruned(name)

    assert {field: getattr(small.config, field) for field in fields} == fields
    assert model.config.to_dict() == ZOO[name][0]().config.to_dict()


def test_a_field_whose_layers_differ_stays_and_the_report_says_so():
    config = [
        {"op_partial_names": ["layer.0.attention", "layer.0.intermediate"], "sparsity": 0.5},
        {"op_partial_names": ["layer.1.attention", "layer.1.intermediate"], "sparsity": 0.25},
    ]
    _, small, speedup = pruned("bert-sdpa", config)

    assert (small.config.num_attention_heads, small.config.intermediate_size) == (4, 128)
    heads, neurons = speedup.plan.notes
    one, other = (f"bert.encoder.layer.{number}" for number in (0, 1))
    assert heads == f"config.num_attention_heads stays 4, since the layers differ: {one}.attention.self: 2, {other}.attention.self: 3"
    assert neurons.startswith("config.intermediate_size stays 128, since the layers differ: ")
    assert "layer.0.intermediate.dense: 64" in neurons
    assert "config.num_attention_heads stays 4" in " ".join(str(speedup.report()).split())


def test_a_field_follows_width_on_request():
    model, inputs = made("llama")
    small = nnc.compress(model, HALF, inputs, allow_inexact=True).speedup()

    assert (small.config.hidden_size, small.config.head_dim) == (32, 16)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_where_the_config_says_all_save_pretrained_and_from_pretrained_work(name, tmp_path):
    _, small, _ = pruned(name)
    small.save_pretrained(tmp_path)

    loaded = type(small).from_pretrained(tmp_path)

    inputs = ZOO[name][1]()
    assert apart(run(small, inputs), run(loaded.eval(), inputs)) == 0


def test_a_model_pruned_twice_is_saved_and_loaded_without_its_class(tmp_path):
    _, small, _ = pruned("llama", [{"op_partial_names": ["self_attn"], "sparsity": 0.5}])
    inputs = ZOO["llama"][1]()
    small, masks = L1NormPruner(small, [{"op_partial_names": ["mlp"], "sparsity": 0.5}], example_inputs=inputs).compress()
    smaller = nnc.ModelSpeedup(small, inputs, masks).speedup_model()
    smaller.config.pad_token_id = 7

    nnc.save(smaller, tmp_path / "small")
    loaded = nnc.load(tmp_path / "small")

    assert smaller.config.intermediate_size == loaded.config.intermediate_size == 64
    assert smaller.config.num_attention_heads == loaded.config.num_attention_heads == 2
    assert loaded.config.pad_token_id == 7
    assert apart(run(smaller, inputs), run(loaded, inputs)) == 0


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "whisper"])
def test_generate_gives_the_tokens_of_the_masked_model(name):
    model, small, _ = pruned(name)
    inputs = {key: value for key, value in ZOO[name][1]().items() if not key.startswith("decoder")}

    tokens = [each.generate(**inputs, max_new_tokens=8, do_sample=False, pad_token_id=0) for each in (model, small)]

    assert torch.equal(*tokens)
    assert len(np.unique(tokens[0])) > 3 or name == "whisper"  # whose random weights say one word


def test_generate_with_beams_and_a_static_cache_works():
    model, small, _ = pruned("llama")
    inputs = ZOO["llama"][1]()

    for options in ({"num_beams": 3}, {"cache_implementation": "static"}):
        asked = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, **options}
        assert torch.equal(*(each.generate(**inputs, **asked) for each in (model, small)))


def test_labels_in_a_batch_give_a_loss():
    model, small, _ = pruned("bert-sdpa")
    batch = {**ZOO["bert-sdpa"][1](), "labels": torch.tensor([0, 1])}

    losses = [each(**batch).loss for each in (model, small)]

    assert torch.allclose(*losses, rtol=1e-4)
    losses[1].backward()


def test_trainer_trains_a_small_classifier_and_its_shapes_stay(tmp_path):
    pytest.importorskip("accelerate")
    _, small, _ = pruned("bert-sdpa")
    batch = {**ZOO["bert-sdpa"][1](), "labels": torch.tensor([0, 1])}
    data = [{key: value[row] for key, value in batch.items()} for row in (0, 1)]
    shapes = {name: parameter.shape for name, parameter in small.named_parameters()}
    before = {name: array.copy() for name, array in adapter_for(small).tensors().items()}
    options = {"max_steps": 2, "per_device_train_batch_size": 2, "report_to": [], "use_cpu": True, "save_strategy": "no"}
    options |= {"learning_rate": 1e-3, "disable_tqdm": True, "warmup_steps": 0}

    trainer = transformers.Trainer(small, transformers.TrainingArguments(output_dir=str(tmp_path), **options), train_dataset=data)
    result = trainer.train()

    assert np.isfinite(result.training_loss)
    assert {name: parameter.shape for name, parameter in small.named_parameters()} == shapes
    after = adapter_for(small).tensors()
    assert any((after[name] != before[name]).any() for name in before)
    assert set(trainer.predict(data).metrics) >= {"test_loss"}
