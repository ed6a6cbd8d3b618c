"""What the README and the pages on training and distillation show runs as it stands there, given what a reader has: a model and data."""

import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

import nnc

torch = pytest.importorskip("torch")
F = torch.nn.functional
ROOT = Path(__file__).parents[2]
PIXELS = np.random.default_rng(0).standard_normal((16, 1, 8, 8)).astype("float32")
CLASSES = np.arange(16) % 3
TOKENS = np.random.default_rng(0).integers(1, 40, (8, 6))


def block(page, part, language="python"):
    """Return the block of a page that contains `part`."""
    found = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return next(code for code in found if part in code)


def loader(inputs, size=4):
    pairs = [(torch.as_tensor(x), int(y)) for x, y in zip(inputs, CLASSES, strict=True)]
    return torch.utils.data.DataLoader(pairs, batch_size=size)


def dense():
    """Return a network whose layers are called as on the pages: "0", "2" and "4"."""
    return torch.nn.Sequential(*(torch.nn.Linear(64, 12), torch.nn.ReLU(), torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)))


def named():
    layers = {"first": torch.nn.Linear(64, 12), "relu": torch.nn.ReLU(), "second": torch.nn.Linear(12, 8), "relu2": torch.nn.ReLU()}
    return torch.nn.Sequential(OrderedDict({**layers, "last": torch.nn.Linear(8, 3)}))


def convolutional():
    first = torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten()
    return torch.nn.Sequential(*first, torch.nn.Linear(144, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def bert(layers, width=16):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 24, "vocab_size": 40}
    return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, max_position_embeddings=8))


def sentences():
    tokens = torch.as_tensor(TOKENS)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def accuracy(model):
    return float((model(torch.as_tensor(PIXELS.reshape(16, 64))).argmax(1) == torch.as_tensor(CLASSES)).float().mean())


def run(code, **given):
    scope = {"nnc": nnc, "torch": torch, "F": F, **given}
    exec(code, scope)
    return scope


@pytest.mark.filterwarnings("ignore:.*cool_down:UserWarning")
def test_the_readmes_loop_learns_what_leaves():
    flat = torch.as_tensor(PIXELS.reshape(16, 64))

    shown = run(block("README.md", "c.loss is new"), model=dense(), images=flat, loader=loader(flat), cross_entropy=F.cross_entropy)

    assert shown["small"][0].out_features < 12


def test_the_readmes_pruned_and_quantised_network_is_exported(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    given = {"data": loader(PIXELS), "loss": F.cross_entropy, "optimizer": lambda parameters: torch.optim.AdamW(parameters, 1e-3)}

    # So small a network is not faster in int8, and would be refused.
    code = block("README.md", "small_int8.onnx").replace('"small_int8.onnx"', '"small_int8.onnx", force=True')
    run(code, model=convolutional(), inputs=torch.as_tensor(PIXELS), evaluate=None, **given)

    assert (tmp_path / "small_int8.onnx").stat().st_size > 0


@pytest.mark.filterwarnings("ignore:.*cool_down:UserWarning")
def test_the_page_on_trainings_own_loop_runs():
    flat = torch.as_tensor(PIXELS.reshape(16, 64))
    config = [{"algorithm": "movement", "op_names": ["first"], "sparsity": 0.5}]

    shown = run(block("docs/training.md", "c.loss(loss)"), model=named(), config=config, example_inputs=flat[:2], loader=loader(flat))

    assert shown["small"].first.out_features == 6


@pytest.mark.filterwarnings("ignore:.*cool_down:UserWarning")
def test_entries_of_all_kinds_train_at_the_same_time_cut_and_export(tmp_path):
    pytest.importorskip("onnxruntime")
    flat = torch.as_tensor(PIXELS.reshape(16, 64))
    config = run(block("docs/training.md", '"qat_ste"'))["config"]
    trainer = nnc.Trainer(loader(flat), F.cross_entropy, lambda parameters: torch.optim.AdamW(parameters, 1e-3), progress=False)
    c = nnc.compress(named(), config, flat[:2], trainer=trainer)

    c.train(steps=3)
    small = c.speedup()
    c.export(tmp_path / "small.onnx", force=True)  # so small a network is not faster in int8

    assert (small.first.out_features, small.second.out_features) == (9, 4)


def test_the_pages_trainers_train_on_both_frameworks():
    keras = pytest.importorskip("keras")
    code = block("docs/training.md", "trainer = nnc.Trainer(loader")
    flat = torch.as_tensor(PIXELS.reshape(16, 64))
    of_torch, of_keras, *rest = code.splitlines()
    config = [{"algorithm": "l1_norm", "op_names": ["first"], "sparsity": 0.5}]

    run("\n".join([of_torch, *rest]), model=named(), config=config, example_inputs=flat, loader=loader(flat), accuracy=accuracy)
    layers = [keras.layers.Dense(12, "relu", name="first"), keras.layers.Dense(3, name="last")]
    model = keras.Sequential([keras.Input((64,)), *layers])
    dataset = [(PIXELS.reshape(16, 64), CLASSES)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    given = {"dataset": dataset, "loss": loss, "keras": keras, "accuracy": lambda model: 0.5}
    shown = run("\n".join([of_keras, *rest]), model=model, config=config, example_inputs=dataset[0][0], **given)

    assert len(shown["c"].masks["first"]["bias"]) == 12


@pytest.mark.filterwarnings("ignore:.*cool_down:UserWarning")
def test_the_pages_optimizer_warms_up():
    rates = []

    def optimizer(parameters):
        made = run(block("docs/training.md", "warm_up ="))["optimizer"](parameters)
        made.register_step_post_hook(lambda *_: rates.append(made.param_groups[0]["lr"]))
        return made

    flat = torch.as_tensor(PIXELS.reshape(16, 64))
    nnc.Trainer(loader(flat), F.cross_entropy, optimizer, progress=False, steps=3).train(named())

    assert rates == pytest.approx([1.09e-5 + 9e-7 * step for step in range(3)])  # 1e-5 to 1e-4 in 100 steps


def test_the_pages_line_before_compile_and_fit_is_all_that_keras_needs():
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    layers = [keras.layers.Dense(12, "relu", name="first"), keras.layers.Dense(3, name="last")]
    dataset = tf.data.Dataset.from_tensor_slices((PIXELS.reshape(16, 64), CLASSES)).batch(8)
    given = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "dataset": dataset}
    config = [{"algorithm": "movement", "op_names": ["first"], "sparsity": 0.5}, {"algorithm": "kl"}]
    model = keras.Sequential([keras.Input((64,)), *layers])

    shown = run(block("docs/training.md", "model.fit(dataset"), model=model, config=config, example_inputs=PIXELS.reshape(16, 64), **given)

    assert shown["small"].get_layer("first").units == 6


@pytest.mark.filterwarnings("ignore:.*nothing leaves:UserWarning", "ignore::nnc.errors.NothingRemoved")
def test_the_pages_rounds_end_with_a_small_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flat = torch.as_tensor(PIXELS.reshape(16, 64))
    trainer = nnc.Trainer(loader(flat), F.cross_entropy, lambda parameters: torch.optim.Adam(parameters), progress=False, steps=2)
    config = [{"op_names": ["first"], "sparsity": 0.5}]

    shown = run(block("docs/training.md", "ScheduledPruner"), model=named(), config=config, example_inputs=flat, trainer=trainer)

    assert shown["small"].first.out_features == 6


@pytest.mark.filterwarnings("ignore:.*cool_down:UserWarning")
def test_the_pages_recipe_of_stages_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(block("docs/training.md", "stages:", "yaml"), encoding="utf-8")
    batch = sentences()
    optimizer = lambda parameters: torch.optim.AdamW(parameters, 1e-3)  # noqa: E731
    batches = [{**batch, "labels": torch.as_tensor(CLASSES[:8] % 2)}]
    trainer = nnc.Trainer(batches, lambda outputs, labels: F.cross_entropy(outputs.logits, labels), optimizer, progress=False)

    run(block("docs/training.md", "nnc.run("), model=bert(1), trainer=trainer, batch=batch)

    assert Path("runs/bert").is_dir()


def test_the_page_on_distillations_loop_runs():
    code = block("docs/distillation.md", '"layer_map": [1, 3, 5]')
    torchs = "\n".join(line for line in code.splitlines() if "compile" not in line)
    step = "    optimizer.zero_grad(); loss.backward(); optimizer.step()"
    student = bert(3)
    batches = [(sentences(), torch.as_tensor(CLASSES[:8] % 2))]
    given = {"loss_of": lambda outputs, labels: F.cross_entropy(outputs.logits, labels), "loader": batches, "batch": sentences()}
    optimizer = torch.optim.AdamW(student.parameters(), 1e-3)

    shown = run(torchs.replace("    ...", step), student=student, teacher=bert(6, 32), optimizer=optimizer, **given)

    assert shown["c"].model is student
