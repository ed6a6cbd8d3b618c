"""Loops that others wrote train with nnc: Hugging Face's Trainer, accelerate, Lightning's hooks, and Keras' fit."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import nnc
from nnc.arrays import to_numpy
from nnc.errors import ConfigError
from nnc.registry import adapter_for

torch = pytest.importorskip("torch")
TOKENS = np.random.default_rng(0).integers(1, 40, (16, 6))
LABELS = TOKENS[:, 0] % 2
MOVEMENT = {"algorithm": "movement", "op_partial_names": ["attention.self"], "granularity": "head", "sparsity": 0.5}
KL = {"algorithm": "kl", "temperature": 2, "weight": 3}


def bert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 24, "vocab_size": 40}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, **dropout, max_position_embeddings=8))


def example():
    return {"input_ids": torch.as_tensor(TOKENS[:2]), "attention_mask": torch.ones(2, 6, dtype=torch.long)}


def hugging_face(model, folder, callbacks=(), **options):
    """Train for two passes over 16 sentences as a user of transformers does."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    rows = [{"input_ids": row, "attention_mask": np.ones(6, int), "labels": int(label)} for row, label in zip(TOKENS, LABELS, strict=True)]
    given = {"per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 1e-2, "report_to": [], "disable_tqdm": True}
    arguments = transformers.TrainingArguments(str(folder), **{**given, **options}, save_strategy="no", use_cpu=True, logging_steps=1)
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=list(callbacks))
    trainer.train()
    return trainer


def head_scores(model):
    return next(arrays for (_, view), arrays in adapter_for(model).numbers().items() if view)


def test_hugging_faces_trainer_trains_scores_and_terms_and_lets_heads_go(tmp_path):
    compressed = nnc.compress(bert(), [MOVEMENT, KL], example())

    hugging_face(compressed.model, tmp_path, [compressed.callback()])

    assert (~compressed.masks["bert.encoder.layer.0.attention.self.query"]["bias"]).sum() == 8  # two of four heads of width 4
    small = compressed.speedup()
    assert small.bert.encoder.layer[0].attention.self.query.out_features == 8


def test_the_terms_are_part_of_hugging_faces_loss(tmp_path):
    compressed = nnc.compress(bert(), [{**KL, "task_weight": 0}], example())

    first = hugging_face(compressed.model, tmp_path, [compressed.callback()]).state.log_history[0]["loss"]

    assert abs(first) < 1e-5  # the student still is its teacher, and the labels do not count


def test_a_training_that_was_broken_off_goes_on_and_leaves_no_hook(tmp_path):
    transformers = pytest.importorskip("transformers")

    class Interrupted(transformers.TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            raise KeyboardInterrupt

    model = bert()
    compressed = nnc.compress(model, [MOVEMENT, KL], example())
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            hugging_face(model, tmp_path, [compressed.callback(), Interrupted()])

    assert len(hugging_face(model, tmp_path, [compressed.callback()]).state.log_history) > 0

    again = nnc.compress(compressed.unwrap(), [KL], example())
    with pytest.raises(KeyboardInterrupt):
        hugging_face(model, tmp_path, [again.callback(), Interrupted()])
    assert model._forward_hooks
    again.unwrap()
    assert not model._forward_hooks


@pytest.mark.parametrize("accumulate", [1, 2])
def test_accumulated_batches_give_the_terms_gradient_of_one_large_batch(tmp_path, accumulate):
    student, teacher = bert(), bert()
    with torch.no_grad():
        teacher.classifier.weight.mul_(9)
    # Without the task: transformers adds up, and does not average, the means of its own classification loss.
    config = [{**KL, "task_weight": 0}]
    compressed = nnc.compress(student, config, example(), teacher=teacher)
    sizes = {"per_device_train_batch_size": 16 // accumulate, "gradient_accumulation_steps": accumulate, "max_steps": 1, "optim": "sgd"}

    hugging_face(student, tmp_path, [compressed.callback()], **sizes, max_grad_norm=0)

    twin = bert()
    again = nnc.compress(twin, config, example(), teacher=teacher)
    optimizer = torch.optim.SGD(twin.parameters(), lr=1e-2)
    batch = {"input_ids": torch.as_tensor(TOKENS), "attention_mask": torch.ones(16, 6, dtype=torch.long)}
    again.loss(twin(**batch, labels=torch.as_tensor(LABELS)).loss).backward()
    optimizer.step()
    for (name, mine), (_, wanted) in zip(student.named_parameters(), twin.named_parameters(), strict=True):
        np.testing.assert_allclose(to_numpy(mine), to_numpy(wanted), atol=1e-6, err_msg=name)


def test_an_optimizer_that_accelerate_prepared_teaches_the_scores():
    accelerate = pytest.importorskip("accelerate")
    model = bert().train()
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    compressed = nnc.compress(model, [MOVEMENT, KL], example(), optimizer=optimizer)
    before = {name: array.copy() for name, array in head_scores(model).items()}

    for _ in range(2):
        optimizer.zero_grad()
        accelerator.backward(compressed.loss(model(**example(), labels=torch.as_tensor(LABELS[:2])).loss))
        optimizer.step()

    assert any((array != before[name]).any() for name, array in head_scores(model).items())


def test_lightnings_hooks_teach_the_scores_and_finish(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", SimpleNamespace(Callback=type("Callback", (), {})))
    compressed = nnc.compress(bert().train(), [MOVEMENT, KL], example())
    model = compressed.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loop, hooks = SimpleNamespace(optimizers=[optimizer]), compressed.callback("lightning")

    hooks.on_train_start(loop, model)
    for _ in range(2):
        optimizer.zero_grad()
        compressed.loss(model(**example(), labels=torch.as_tensor(LABELS[:2])).loss).backward()
        optimizer.step()
    hooks.on_train_end(loop, model)

    assert (~compressed.masks["bert.encoder.layer.0.attention.self.query"]["bias"]).sum() == 8


LIGHTNING = "lightning.pytorch", "pytorch_lightning"


def imported_lightning(monkeypatch, name):
    """Return Lightning under one of its two names, as in a program that uses this one alone."""
    package = pytest.importorskip(name, reason=f"{name} is not installed: pip install lightning pytorch-lightning")
    for other in LIGHTNING:
        if other != name:
            monkeypatch.delitem(sys.modules, other, raising=False)
    return package


@pytest.mark.parametrize("name", LIGHTNING)
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2, "precision": "bf16-mixed", "gradient_clip_val": 1.0}])
def test_lightnings_own_trainer_teaches_the_scores_and_finishes(monkeypatch, tmp_path, name, options):
    lightning = imported_lightning(monkeypatch, name)
    compressed = nnc.compress(bert(), [MOVEMENT, KL], example())
    loader = torch.utils.data.DataLoader([{**example(), "labels": torch.as_tensor(LABELS[:2])}] * 4, batch_size=None)

    class Module(lightning.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def training_step(self, batch, index):
            scores.append(head_scores(compressed.model)["scores0"])
            return compressed.loss(self.model(**batch).loss)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.model.parameters(), lr=1e-2)

    scores, callbacks = [], [compressed.callback("lightning")]
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=callbacks, **quiet, **options)
    trainer.fit(Module(compressed.model), loader)

    assert isinstance(callbacks[0], lightning.Callback)
    assert (scores[0] == 0).all() and (scores[-1] != 0).any()
    assert (~compressed.masks["bert.encoder.layer.0.attention.self.query"]["bias"]).sum() == 8


def test_keras_fit_ends_with_the_masks_that_it_learned():
    keras = pytest.importorskip("keras")
    hidden = keras.layers.Dense(8, "relu", name="hidden")
    model = keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(2, name="last")])
    config = [{"algorithm": "movement", "op_names": ["hidden"], "sparsity": 0.5}]
    compressed = nnc.compress(model, config, TOKENS[:2].astype("float32"))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    model.fit(TOKENS.astype("float32"), LABELS, epochs=2, verbose=0, callbacks=[compressed.callback()])

    assert (~compressed.masks["hidden"]["bias"]).sum() == 4
    assert adapter_for(model).numbers() == {}


def test_a_loop_that_does_not_train_the_model_is_refused():
    compressed = nnc.compress(bert(), [{"op_partial_names": ["intermediate"], "sparsity": 0.5}], example())

    with pytest.raises(ConfigError, match="loop: 'keras' is neither"):
        compressed.callback("keras")
