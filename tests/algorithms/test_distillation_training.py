"""Distillation in training: terms are what the formulas say, they fall, and nothing of it stays behind."""

import numpy as np
import pytest

import nnc
from nnc.arrays import to_numpy
from nnc.instruments import trainable
from nnc.registry import adapter_for
from nnc.views import Site
from tests.algorithms import distillation_numpy as formula
from tests.algorithms.distillation_models import MODELS, tokens
from tests.frameworks import images

EVERYTHING = [
    {"algorithm": "kl", "temperature": 2, "weight": 10},
    {"algorithm": "mse_hidden_states"},
    {"algorithm": "mse_attention"},
    {"algorithm": "minilm"},
    {"algorithm": "minilmv2", "relation_heads": 2},
    {"algorithm": "ce_logits", "annealing_T": 3, "steps_per_epoch": 1},
]
PROJECTED = [{"algorithm": "kl", "task_weight": 0.0}, {"algorithm": "tinybert", "stage": 1}, {"algorithm": "minilm"}]


@pytest.fixture(scope="module", params=sorted(MODELS, reverse=True), name="models")
def give_models(request):
    return MODELS[request.param]


def seen(model, inputs, names):
    """Return what passes layers (those of a Keras backbone by their names within it), `(batch, length, width)`."""
    adapter, names = trainable(adapter_for(model), "a test"), list(names)
    full = {name: next(layer.name for layer in adapter.layers() if within(name, layer.name)) for name in names}
    sites = {name: Site(full[name][: full[name].index(name) + len(name)]) for name in names}
    _, found = adapter.forward(inputs, list(sites.values()))
    return [to_numpy(found[site]).reshape(*found[site].shape[:2], -1).astype("float64") for site in sites.values()]


def within(name, layer):
    return f".{name}." in f".{layer}."


class Step:
    """One step of training with every kind of term, and the tensors from which the terms were computed."""

    def __init__(self, models):
        ids, self.mask = tokens()
        inputs = models.inputs(ids, self.mask)
        student, teacher = models.bert(layers=1), models.bert(layers=2)
        self.logits = [models.logits(model, inputs).astype("float64") for model in (student, teacher)]
        self.hidden = [seen(student, inputs, [models.block(0)]), seen(teacher, inputs, [models.block(1)])]
        self.qkv = [
            [seen(model, inputs, [f"{models.block(number)}.{part}" for part in models.qkv]) for number in layers]
            for model, layers in ((student, [0]), (teacher, [1]))
        ]

        def compress(optimizer):
            return nnc.compress(student, EVERYTHING, inputs, teacher=teacher, optimizer=optimizer)

        _, losses = models.train(compress, student, inputs, steps=1, labels=np.arange(len(ids)) % 3)
        self.loss, self.terms = losses[0], adapter_for(student).terms()


@pytest.fixture(scope="module", name="step")
def give_step(models):
    return Step(models)


CLOSE = {"rtol": 2e-4, "atol": 1e-7}


def test_the_term_of_kl_is_weighted(step):
    np.testing.assert_allclose(step.terms["kl.outputs"], 10 * formula.kl_logits(*step.logits, 2.0), **CLOSE)


def test_hidden_states_are_compared_by_the_layer_map_at_valid_tokens(step):
    expected = sum(formula.mse(s, t, step.mask) for s, t in zip(*step.hidden, strict=True))

    np.testing.assert_allclose(step.terms["mse_hidden_states.hidden"], expected, **CLOSE)


def test_attention_scores_are_compared_by_the_layer_map_at_valid_pairs(step):
    expected = sum(formula.mse_scores(*s[:2], *t[:2], 4, step.mask) for s, t in zip(*step.qkv, strict=True))

    np.testing.assert_allclose(step.terms["mse_attention.attention"], expected, **CLOSE)


def test_minilm_compares_the_last_layers(step):
    (sq, sk, sv), (tq, tk, tv) = step.qkv[0][-1], step.qkv[1][-1]

    np.testing.assert_allclose(step.terms["minilm.attention"], formula.relation((sq, sk), (tq, tk), 4, step.mask), **CLOSE)
    np.testing.assert_allclose(step.terms["minilm.value"], formula.relation((sv, sv), (tv, tv), 4, step.mask), **CLOSE)


def test_minilmv2_splits_the_last_layers_into_relation_heads(step):
    expected = sum(formula.relation((s, s), (t, t), 2, step.mask) for s, t in zip(step.qkv[0][-1], step.qkv[1][-1], strict=True))

    np.testing.assert_allclose(step.terms["minilmv2.relations"], expected, **CLOSE)


def test_an_annealed_temperature_begins_at_its_start(step):
    np.testing.assert_allclose(step.terms["ce_logits.outputs"], formula.ce_logits(*step.logits, 3.0), **CLOSE)


def test_the_loss_is_the_task_and_all_terms(step):
    np.testing.assert_allclose(step.loss, sum(step.terms.values()), rtol=1e-5)


class Run:
    """A student of another depth and width than its teacher, trained without labels."""

    def __init__(self, models):
        ids, mask = tokens()
        self.inputs = models.inputs(ids, mask)
        self.student, teacher = models.bert(width=16, layers=1), models.bert(width=32, layers=2)
        self.taught = models.parameters(teacher)
        self.names = set(models.parameters(self.student))

        def compress(optimizer):
            return nnc.compress(self.student, PROJECTED, self.inputs, teacher=teacher, optimizer=optimizer)

        adapter = adapter_for(self.student)
        self.compressed, self.losses = models.train(compress, self.student, self.inputs, steps=20)
        self.teacher_moved = any((array != self.taught[name]).any() for name, array in models.parameters(teacher).items())
        self.terms, self.numbers = adapter.terms(), adapter.numbers()
        self.wrapped, self.wrapped_names = models.logits(self.student, self.inputs), set(models.parameters(self.student))
        self.compressed.unwrap()
        self.unwrapped, self.unwrapped_names = models.logits(self.student, self.inputs), set(models.parameters(self.student))


@pytest.fixture(scope="module", name="run")
def give_run(models):
    return Run(models)


def test_the_loss_falls_without_labels(run):
    assert run.losses[-1] < 0.7 * run.losses[0]


def test_labels_do_not_count_with_a_task_weight_of_zero(run):
    np.testing.assert_allclose(run.losses[-1], sum(term for name, term in run.terms.items() if name != "task"), rtol=1e-5)


def test_projections_learn_beside_the_student(run):
    weight = run.numbers["tinybert", ""]["shared_weight"]

    assert weight.shape == (32, 16)
    assert run.numbers["tinybert", ""]["embeddings_0_weight"].shape == (32, 16)
    assert run.numbers["tinybert", ""]["shared_bias"].any()  # it began at 0


def test_projections_are_no_part_of_the_model(run):
    assert run.wrapped_names == run.names


def test_the_teacher_stays_as_it_was(run):
    assert not run.teacher_moved


def test_unwrapping_leaves_the_trained_student_and_nothing_else(run):
    assert run.unwrapped_names == run.names
    np.testing.assert_array_equal(run.unwrapped, run.wrapped)
    assert adapter_for(run.student).numbers() == {}


def test_a_small_student_learns_digits_from_its_teacher_alone(framework):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    teacher, student = framework_mlp(framework.name, 128), framework_mlp(framework.name, 24)
    fit(framework.name, lambda optimizer: None, teacher, x[:1200], y[:1200], epochs=15)
    config = [{"algorithm": "kl", "temperature": 2, "task_weight": 0}]

    def compress(optimizer):
        return nnc.compress(student, config, teacher=teacher, optimizer=optimizer)

    fit(framework.name, compress, student, x[:1200], None, epochs=15)

    assert accuracy(framework.name, teacher, x[1200:], y[1200:]) > 0.88
    assert accuracy(framework.name, student, x[1200:], y[1200:]) > 0.86


def framework_mlp(name, width):
    if name == "torch":
        import torch

        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10))
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((64,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(10)])


def fit(name, compress, model, x, y, epochs):
    """Train; without labels y, on what `compress` adds."""
    if name == "torch":
        fit_torch(compress, model, x, y, epochs)
        return
    import keras

    compress(None)
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, np.zeros(len(x), int) if y is None else y, batch_size=100, epochs=epochs, verbose=0)


def fit_torch(compress, model, x, y, epochs):
    import torch

    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    c = compress(optimizer)
    for start in [*range(0, len(x), 100)] * epochs:
        outputs = model(torch.from_numpy(x[start : start + 100]))
        task = None if y is None else torch.nn.functional.cross_entropy(outputs, torch.from_numpy(y[start : start + 100]))
        loss = task if c is None else c.loss(task)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def accuracy(name, model, x, y):
    if name == "torch":
        import torch

        with torch.no_grad():
            return (model(torch.from_numpy(x)).argmax(1).numpy() == y).mean()
    return (np.asarray(model(x)).argmax(1) == y).mean()


KL = {"algorithm": "kl"}
HALF = {"op_names": ["conv1"], "sparsity": 0.5}


@pytest.mark.parametrize(
    ("config", "differs"), [([{"algorithm": "kl"}], False), ([HALF, {"algorithm": "kl"}], True)], ids=["whole", "pruned"]
)
def test_the_untouched_model_teaches_unless_another_is_given(framework, config, differs):
    model = framework.build("lenet")
    c = nnc.compress(model, config, framework.inputs(images()), trainer=standing_still(framework.name, framework.inputs(images())))

    c.train()

    assert (abs(adapter_for(model).terms()["kl.outputs"]) > 1e-4) is differs


def standing_still(name, inputs):
    """Return a trainer of one step at a learning rate of 0."""
    labels = np.array([0, 1])
    if name == "torch":
        import torch

        def optimizer(parameters):
            return torch.optim.SGD(parameters, 0.0)

        return nnc.Trainer([(inputs, torch.from_numpy(labels))], torch.nn.functional.cross_entropy, optimizer, steps=1, progress=False)
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return nnc.Trainer([(inputs, labels)], loss, keras.optimizers.SGD(0.0), steps=1, progress=False)
