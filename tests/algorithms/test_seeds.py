"""A run that was interrupted goes on to the result of one that was not, also where data and layers draw random numbers."""

import numpy as np
import pytest

import nnc
from nnc.errors import ConfigError
from tests.algorithms.test_runs import Killed
from tests.algorithms.tiny_networks import ROWS, mlp, numbered, seen, tensor, trainer

#: Scores of one batch: which one, the shuffling says.
MEASURED = [{"algorithm": "taylor_fo", "op_names": ["hidden"], "sparsity": 0.67, "batches": 1}]


def finished(framework, folder, training, build=mlp, dies_in=None, **options):
    """Return the weights of a run of three rounds, of which the last may be interrupted the first time.

    `training` is a trainer, or a function that makes one, as the process that goes on does.
    """
    make = training if callable(training) else lambda: training
    training = make()
    if dies_in is not None:
        training.metric = lambda model: raised() if len(first.done) == dies_in - 1 else 1.0
        first = nnc.ScheduledPruner(build(framework), MEASURED, schedule="linear", rounds=3, trainer=training, folder=folder, **options)
        with pytest.raises(Killed):
            first.compress()
        np.random.seed(99)  # the process that goes on has drawn other numbers before
        disturbed(framework)
        training = make()
    training.metric = lambda model: 1.0
    run = nnc.ScheduledPruner(build(framework), MEASURED, schedule="linear", rounds=3, trainer=training, folder=folder, **options)
    assert len(run.done) == (0 if dies_in is None else dies_in - 1)
    return seen(run.compress()[0], "hidden")


def raised():
    raise Killed


def disturbed(framework):
    if framework.name == "torch":
        import torch

        torch.rand(5)
    else:
        import keras

        keras.random.uniform((5,))


def shuffled(framework):
    """Return the rows as the framework's own pipeline shuffles them, built anew for each run through them."""
    x, y = (np.concatenate(part) for part in zip(*ROWS, strict=True))
    if framework.name == "torch":
        import torch

        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), 6, shuffle=True)
    import tensorflow as tf

    return lambda: tf.data.Dataset.from_tensor_slices((x, y)).shuffle(24).batch(6)


def drawn(framework):
    """Return a function that shuffles with NumPy's numbers."""
    batches = [(tensor(framework, x), tensor(framework, y)) for x, y in ROWS]
    return lambda: iter([batches[index] for index in np.random.permutation(len(batches))])


@pytest.mark.parametrize("data", [shuffled, drawn])
def test_measuring_and_training_draw_what_they_would_have_drawn(framework, tmp_path, data):
    seen_first = {}

    def training(name):
        made, given, first = trainer(framework, ROWS, steps=2), data(framework), seen_first.setdefault(name, [])
        made.data = lambda: (first.append(float(batch[0][0][0])) or batch for batch in (given() if callable(given) else given))
        return made

    whole = finished(framework, tmp_path / "whole", training("whole"))
    resumed = finished(framework, tmp_path / "killed", training("killed"), dies_in=3)

    # A round measures on one batch and trains on two: those of the resumed third round are the last three.
    assert seen_first["killed"][-3:] == seen_first["whole"][-3:]
    np.testing.assert_array_equal(resumed, whole)


def shuffling_by_itself(framework):
    """Return a pipeline whose order depends on how often it has been run through, and on no seed but its own."""
    x, y = (np.concatenate(part) for part in zip(*ROWS, strict=True))
    if framework.name == "torch":
        import torch

        rows = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
        return torch.utils.data.DataLoader(rows, 6, shuffle=True, generator=torch.Generator().manual_seed(5))
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(24, seed=5).batch(6)


@pytest.mark.parametrize("lasting", [{"epochs": 2}, {"steps": 2}])
def test_data_that_shuffle_by_themselves_go_on_in_another_process(framework, tmp_path, lasting):
    def training():
        made = trainer(framework, ROWS, **lasting)
        made.data = shuffling_by_itself(framework)
        return made

    whole = finished(framework, tmp_path / "whole", training)

    np.testing.assert_array_equal(finished(framework, tmp_path / "killed", training, dies_in=3), whole)


def dropping(framework):
    """Return 4 -> 3, dropout, -> 2."""
    if framework.name == "torch":
        from collections import OrderedDict

        from torch import nn

        return numbered(nn.Sequential(OrderedDict(hidden=nn.Linear(4, 3), drop=nn.Dropout(0.3), classes=nn.Linear(3, 2))))
    import keras

    layers = keras.layers
    return numbered(
        keras.Sequential([keras.Input((4,)), layers.Dense(3, name="hidden"), layers.Dropout(0.3), layers.Dense(2, name="classes")])
    )


def test_dropout_draws_what_it_would_have_drawn(framework, tmp_path):
    def run(folder, **options):
        if framework.name == "keras":
            import keras

            keras.utils.set_random_seed(0)  # a Dropout without a seed takes one when it is built
        return finished(framework, tmp_path / folder, trainer(framework, ROWS, steps=2), dropping, **options)

    whole = run("whole")

    np.testing.assert_array_equal(run("killed", dies_in=3), whole)


def parameters_in_two_groups(hidden, others):
    return [{"params": hidden, "lr": 0.05}, {"params": others, "weight_decay": 0.1}]


def test_an_optimizer_of_torch_begins_again_in_each_round(tmp_path):
    import torch

    from tests.frameworks import FRAMEWORKS

    framework, model = FRAMEWORKS["torch"], mlp(FRAMEWORKS["torch"])
    inputs = tensor(framework, ROWS[0][0])

    def run(folder, optimizer, **options):
        training = trainer(framework, ROWS, steps=2)
        training.optimizer = optimizer
        return finished(framework, tmp_path / folder, training, lambda _: model, example_inputs=inputs, speedup=True, **options)

    def built(parameters):
        return torch.optim.AdamW(parameters_in_two_groups(parameters[:2], parameters[2:]), lr=0.01)

    given = built(list(model.parameters()))
    given.param_groups[0]["params"][0].grad = torch.ones_like(model.hidden.weight)
    before = model.hidden.weight.detach().clone()
    given.step()  # it has been used, so it has a state
    with torch.no_grad():
        model.hidden.weight.copy_(before)
    whole = run("whole", given)

    np.testing.assert_array_equal(run("killed", given, dies_in=3), whole)
    np.testing.assert_array_equal(run("function", built), whole)
    assert given.state[model.hidden.weight]["step"] == 1


def test_an_optimizer_that_cannot_begin_again_is_refused_before_anything_is_touched():
    import torch

    from tests.frameworks import FRAMEWORKS

    class Own(torch.optim.SGD):
        def __init__(self, params, secret):
            super().__init__(params, lr=secret)

    model, framework = mlp(FRAMEWORKS["torch"]), FRAMEWORKS["torch"]
    training = trainer(framework, ROWS)
    training.optimizer = Own(model.parameters(), 0.01)
    with pytest.raises(ConfigError, match=r"Trainer.optimizer: a Own is given, .* 'secret'. Pass a function"):
        nnc.ScheduledPruner(model, MEASURED, trainer=training)

    training.optimizer = torch.optim.SGD(mlp(framework).parameters(), 0.01)
    with pytest.raises(ConfigError, match=r"Trainer.optimizer: 4 of its 4 parameters are not the model's"):
        nnc.ScheduledPruner(model, MEASURED, trainer=training)


def compiled(framework):
    import keras

    model = mlp(framework)
    model.compile(keras.optimizers.Adam(0.05))
    return model


@pytest.mark.parametrize("given", ["instance", "compiled"])
def test_an_optimizer_of_keras_begins_again_in_each_round(tmp_path, given):
    import keras

    from tests.frameworks import FRAMEWORKS

    framework = FRAMEWORKS["keras"]

    def run(folder, **options):
        training = trainer(framework, ROWS, steps=2)
        training.optimizer = keras.optimizers.Adam(0.05) if given == "instance" else None
        inputs = tensor(framework, ROWS[0][0])
        return finished(framework, tmp_path / folder, training, compiled, example_inputs=inputs, speedup=True, **options)

    whole = run("whole")

    np.testing.assert_array_equal(run("killed", dies_in=3), whole)
