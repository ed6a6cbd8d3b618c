"""`nnc.Trainer`: what it refuses before it trains, and how data of several kinds are split and told apart."""

import numpy as np
import pytest

import nnc
from nnc.errors import ConfigError
from nnc.losses import calls_model, of_pair
from nnc.trainer import inputs_and_targets


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"data": 3}, "Trainer.data: a int has no batches"),
        ({"data": iter([1])}, "Trainer.data: a list_iterator can be run through once only"),
        ({"data": (each for each in [1])}, "Trainer.data: a generator can be run through once only"),
        ({"data": [], "loss": 1}, "Trainer.loss: 1 is no function"),
        ({"data": [], "evaluate": 1}, "Trainer.evaluate: 1 is no function"),
        ({"data": [], "epochs": 0}, "Trainer.epochs: 0 is no whole number above 0"),
        ({"data": [], "steps": 1.5}, "Trainer.steps: 1.5 is no whole number above 0"),
        ({"data": [], "epochs": True}, "Trainer.epochs: True is no whole number above 0"),
        ({"data": [], "accumulate": "3"}, "Trainer.accumulate: '3' is no whole number above 0"),
        ({"data": [], "seed": "a"}, "Trainer.seed: 'a' is no whole number from 0"),
        ({"data": [], "seed": -1}, "Trainer.seed: -1 is no whole number from 0"),
        ({"data": [], "loss": lambda outputs: 0}, r"Trainer.loss: .*<lambda>\(outputs\) is called with \(outputs, targets\): too many"),
        ({"data": [], "loss": lambda model, batch, more: 0}, r"\(model, batch, more\) is called with \(model, batch\): missing .* 'more'"),
        ({"data": [], "evaluate": lambda: 0}, r"Trainer.evaluate: .*<lambda>\(\) is called with \(model\): too many"),
        ({"data": [], "optimizer": lambda: 0}, r"Trainer.optimizer: .*<lambda>\(\) is called with \(parameters\): too many"),
        ({"data": lambda epoch: []}, r"Trainer.data: .*<lambda>\(epoch\) is called with \(\): missing a required argument: 'epoch'"),
        ({"data": (np.zeros((8, 3)), np.zeros(8))}, r"two arrays, \(8, 3\) and \(8,\), are one batch.*data=\[\(inputs, targets\)\]"),
        ({"data": (np.zeros(8), np.zeros(8)), "loss": lambda outputs, targets: 0}, r"two arrays, \(8,\) and \(8,\), are one batch"),
        ({"data": [], "precision": "int8"}, "Trainer.precision: 'int8' is none of float32, bfloat16, float16"),
    ],
)
def test_what_cannot_be_trained_with_is_refused_at_once(given, problem):
    with pytest.raises(ConfigError, match=problem):
        nnc.Trainer(**given)


def test_a_data_function_that_returns_nothing_is_told():
    with pytest.raises(ConfigError, match=r"Trainer\.data: the function returned a NoneType, which has no batches"):
        nnc.Trainer(lambda: None).batches()


def test_numbers_of_numpy_are_numbers():
    trainer = nnc.Trainer([], epochs=np.int64(2), steps=np.int32(3), accumulate=np.int64(4), seed=np.uint8(5))

    assert (trainer.epochs, trainer.steps, trainer.accumulate, trainer.seed) == (2, 3, 4, 5)


def test_two_batches_of_inputs_are_data():
    assert len(list(nnc.Trainer((np.zeros((8, 3)), np.zeros((8, 3)))).batches())) == 2


def test_a_function_gives_a_fresh_run_through_the_data_each_time():
    trainer = nnc.Trainer(lambda: iter([1, 2]))

    assert [list(trainer.batches()), list(trainer.batches())] == [[1, 2], [1, 2]]


def test_a_loss_whose_first_parameter_is_the_model_is_given_the_batch():
    assert calls_model(lambda model, batch: 0)
    assert not calls_model(lambda outputs, targets: 0)
    assert not calls_model(max)


@pytest.mark.parametrize("loss", [lambda outputs, targets: (outputs, targets), lambda y_true, y_pred: (y_pred, y_true)])
def test_a_loss_is_given_outputs_and_targets_in_its_own_order(loss):
    assert of_pair(loss, "outputs", "targets") == ("outputs", "targets")


def test_a_loss_that_is_a_module_is_told_by_its_forward():
    class Module:
        def __call__(self, *args):
            return self.forward(*args)

        def forward(self, labels, outputs):
            return outputs, labels

    assert of_pair(Module(), "outputs", "targets") == ("outputs", "targets")


def test_a_loss_that_cannot_be_hashed_is_told_too():
    class Unhashable:
        __hash__ = None

        def __call__(self, y_true, y_pred):
            return y_pred, y_true

    assert of_pair(Unhashable(), "outputs", "targets") == ("outputs", "targets")


def test_a_dict_loses_its_labels_to_the_loss():
    assert inputs_and_targets({"ids": 1, "labels": 2}) == ({"ids": 1}, 2)
    assert inputs_and_targets((1, 2)) == (1, 2)


def test_one_array_is_inputs_without_targets():
    images = np.zeros((2, 3))

    assert inputs_and_targets(images) == (images, None)


def test_a_batch_of_three_needs_a_loss_of_its_own():
    with pytest.raises(ConfigError, match=r"a batch is a tuple of 3; \(inputs, targets\) or a dict is needed"):
        inputs_and_targets((1, 2, 3))


def test_a_metric_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match=r"Trainer\.evaluate: returned 'good'; a number is needed"):
        nnc.Trainer([], evaluate=lambda model: "good").evaluate(None)


def test_what_is_no_trainer_is_refused_by_every_algorithm(framework):
    model = framework.build("lenet")

    for algorithm in ("l1_norm", "taylor_fo", "kl", "ptq"):
        entry = {"algorithm": algorithm, **({"sparsity": 0.5} if algorithm in ("l1_norm", "taylor_fo") else {})}
        with pytest.raises(ConfigError, match=r"trainer: a str was given; it is to be nnc\.Trainer"):
            nnc.compress(model, [entry], trainer="adam")
