"""A torch model trains on batches of any form, and says where it went wrong."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import nnc
from nnc.views import Learning, Site
from nnc_torch.adapter import TorchAdapter
from tests.adapters.torch_views import Match, Times, network, one_weight, tiny_bert, tokens

INPUTS, LABELS = torch.linspace(-1, 1, 16).reshape(4, 4), torch.tensor([0, 1, 1, 0])


def sgd(rate=0.1):
    return lambda parameters: torch.optim.SGD(parameters, rate)


def of_model(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


def test_a_step_is_the_step_of_the_optimizer():
    model, twin = network(), network()
    step = TorchAdapter(model).trainer(functional.cross_entropy, sgd(), "float32", 1)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)

    for _ in range(3):
        value = step((INPUTS, LABELS))
        optimizer.zero_grad()
        loss = functional.cross_entropy(twin(INPUTS), LABELS)
        loss.backward()
        optimizer.step()

    assert value == loss.item()
    assert all(torch.equal(left, right) for left, right in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize(
    ("loss", "batch"),
    [
        (functional.cross_entropy, (INPUTS, LABELS)),
        (functional.cross_entropy, [INPUTS, LABELS]),
        (functional.cross_entropy, (INPUTS.numpy(), LABELS.numpy())),
        (functional.cross_entropy, (INPUTS.numpy().astype("float64"), LABELS.numpy())),
        (functional.cross_entropy, {"input": INPUTS, "labels": LABELS}),
        (of_model, (INPUTS, LABELS)),
        (lambda outputs, targets: functional.cross_entropy(outputs, targets), (INPUTS, LABELS)),
        (lambda labels, outputs: functional.cross_entropy(outputs, labels), (INPUTS, LABELS)),
    ],
)
def test_a_batch_may_have_any_form(loss, batch):
    expected = functional.cross_entropy(network()(INPUTS), LABELS).item()

    assert TorchAdapter(network()).trainer(loss, sgd(), "float32", 1)(batch) == expected
    assert TorchAdapter(network()).batch_loss(loss, batch).item() == expected


def test_real_numbers_of_numpy_come_in_the_models_type_and_whole_ones_in_their_own():
    seen = []

    def loss(model, batch):
        seen.extend(value.dtype for value in batch.values())
        return model(batch["x"]).mean()

    batch = {"x": INPUTS.numpy(), "labels": LABELS.numpy(), "weight": np.float64(0.5), "tensor": INPUTS}
    TorchAdapter(network().double()).batch_loss(loss, batch)

    assert seen == [torch.float64, torch.int64, torch.float64, torch.float32]


@pytest.mark.parametrize(
    ("loss", "batch", "words"),
    [
        (None, (INPUTS, LABELS), r"Trainer\.data: Sequential\.forward\(.* With loss=None the model is given all of a batch"),
        (functional.cross_entropy, {"inputs": INPUTS, "labels": LABELS}, r"Trainer\.data: .* it has no 'inputs'; nearest: 'input'"),
        (functional.cross_entropy, ("text", LABELS), r"Trainer\.data: a builtins\.str"),
    ],
)
def test_a_batch_that_the_model_does_not_take_is_told_of_the_data(loss, batch, words):
    with pytest.raises(nnc.ConfigError, match=words):
        TorchAdapter(network()).batch_loss(loss, batch)


def test_a_model_may_bring_its_own_loss():
    model = tiny_bert().eval()
    batch = {**tokens(), "labels": torch.tensor([0, 1])}

    assert TorchAdapter(model).batch_loss(None, batch).item() == model(**batch).loss.item()
    with pytest.raises(nnc.ConfigError, match=r"Trainer.loss: None was given.* labels"):
        TorchAdapter(model).batch_loss(None, tokens())


def test_accumulated_batches_make_one_step_of_their_mean():
    model, twin = network(), network()
    step = TorchAdapter(model).trainer(functional.cross_entropy, sgd(), "float32", 2)
    halves = [(INPUTS[:2], LABELS[:2]), (INPUTS[2:], LABELS[2:])]
    before = model[0].weight.detach().clone()

    step(halves[0])
    assert torch.equal(model[0].weight, before)
    step(halves[1])
    TorchAdapter(twin).trainer(functional.cross_entropy, sgd(), "float32", 1)((INPUTS, LABELS))

    assert all(torch.allclose(left, right) for left, right in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize(("epochs", "accumulate", "large"), [(1, 4, [2]), (2, 3, [3, 1]), (1, 2, [2])])
def test_batches_that_are_left_over_make_a_step_of_their_own_mean(epochs, accumulate, large):
    model, twin, told = one_weight(3.0), one_weight(3.0), []
    for each in (model, twin):
        TorchAdapter(each).set_views({Site("0", "weight"): (Times(1.0),)})
        TorchAdapter(each).learn({"factors": Learning(0.1, "sgd")})
    ones, zeros = torch.ones(1, 1), torch.zeros(1, 1)

    nnc.Trainer([(ones, zeros)] * 2, functional.mse_loss, sgd(0.01), epochs=epochs, accumulate=accumulate, progress=False).train(
        model, after_step=told.append
    )
    nnc.Trainer([(ones.repeat(n, 1), zeros.repeat(n, 1)) for n in large], functional.mse_loss, sgd(0.01), progress=False).train(twin)

    assert told == list(range(1, len(large) + 1))
    assert model[0].parametrizations.weight.original.item() == pytest.approx(twin[0].parametrizations.weight.original.item())
    assert TorchAdapter(model).numbers()["0.weight", "times"]["factor"] == pytest.approx(
        TorchAdapter(twin).numbers()["0.weight", "times"]["factor"]
    )


def test_so_many_steps_take_all_their_batches_across_runs_through_the_data():
    trainer = nnc.Trainer([(INPUTS, LABELS)] * 3, functional.cross_entropy, sgd(), accumulate=2, progress=False)
    told = []

    history = trainer.train(network(), steps=4, after_step=told.append)

    assert (len(history.losses), told) == (8, [1, 2, 3, 4])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_keeps_the_weights_in_float32(precision):
    model = network()
    kinds = []
    model[2].register_forward_hook(lambda module, args, output: kinds.append(output.dtype))

    value = TorchAdapter(model).trainer(functional.cross_entropy, sgd(), precision, 1)((INPUTS, LABELS))

    assert kinds == [getattr(torch, precision)]
    assert model[0].weight.dtype == torch.float32
    assert value == pytest.approx(functional.cross_entropy(network()(INPUTS), LABELS).item(), abs=0.02)


def test_views_and_objectives_train_with_the_step():
    model = one_weight(3.0)
    adapter = TorchAdapter(model)
    adapter.set_views({Site("0", "weight"): (Times(1.0),)})
    adapter.set_objectives([Match()], one_weight(5.0))
    adapter.learn({"factors": Learning(0.1, "sgd"), "projections": Learning(0.0, "sgd")})

    # task (3 - 0)^2 * 0.5 + (3 - 5)^2; d / d factor = (0.5 * 2 * 3 + 2 * (3 - 5)) * 3 = -3.
    value = adapter.trainer(functional.mse_loss, sgd(0.0), "float32", 1)((torch.ones(1, 1), torch.zeros(1, 1)))

    assert value == pytest.approx(0.5 * 9 + 4)
    assert adapter.numbers()["0.weight", "times"]["factor"] == pytest.approx(1 + 0.1 * 3)


def test_after_training_the_users_own_optimizer_teaches_again():
    model = one_weight(3.0)
    adapter = TorchAdapter(model)
    adapter.set_views({Site("0", "weight"): (Times(1.0),)})
    own = torch.optim.SGD(model.parameters(), 0.0)
    adapter.learn({"factors": Learning(0.1, "sgd")}, own)
    step = adapter.trainer(functional.mse_loss, sgd(0.0), "float32", 1)
    step((torch.ones(1, 1), torch.zeros(1, 1)))  # d (3 f)^2 / d f = 18 at 1
    assert adapter.numbers()["0.weight", "times"]["factor"] == pytest.approx(1 - 1.8)

    step.close()
    model(torch.ones(1, 1)).sum().backward()
    own.step()

    assert adapter.numbers()["0.weight", "times"]["factor"] == pytest.approx(1 - 1.8 - 0.3)


def test_after_training_an_optimizer_that_nnc_was_not_told_of_is_stopped():
    model = one_weight(3.0)
    adapter = TorchAdapter(model)
    adapter.set_views({Site("0", "weight"): (Times(1.0),)})
    adapter.learn({"factors": Learning(0.1, "sgd")})
    step = adapter.trainer(functional.mse_loss, sgd(0.0), "float32", 1)
    step((torch.ones(1, 1), torch.zeros(1, 1)))
    step.close()

    with pytest.raises(nnc.ConfigError, match="would not learn"):
        torch.optim.SGD(model.parameters(), 0.1).step()


def test_the_mode_comes_back_when_training_ends():
    model = network().eval()
    step = TorchAdapter(model).trainer(functional.cross_entropy, sgd(), "float32", 1)
    step((INPUTS, LABELS))
    assert model.training

    step.close()

    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def normalised():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def accuracy_in_eval(model):
    model.eval()
    return 0.5


def accuracy_and_back(model):
    model.eval()
    model.train()
    return 0.5


@pytest.mark.parametrize("evaluate", [None, accuracy_in_eval, accuracy_and_back])
def test_a_module_that_the_user_froze_stays_frozen_and_all_modes_come_back(evaluate):
    model = normalised()
    model[1].eval()
    modes = [module.training for module in model.modules()]

    nnc.Trainer([(INPUTS, LABELS)], functional.cross_entropy, sgd(), evaluate, epochs=2, progress=False).train(model)

    assert [module.training for module in model.modules()] == modes == [True, True, False, True]
    assert model[1].num_batches_tracked == 0


@pytest.mark.parametrize("evaluate", [None, accuracy_in_eval, accuracy_and_back])
def test_a_model_in_inference_mode_trains_as_a_whole_and_goes_back(evaluate):
    model = normalised().eval()

    nnc.Trainer([(INPUTS, LABELS)], functional.cross_entropy, sgd(), evaluate, epochs=2, progress=False).train(model)

    assert not any(module.training for module in model.modules())
    assert model[1].num_batches_tracked == 2


def test_modes_come_back_when_evaluate_raises():
    model = normalised()

    def broken(model):
        model.eval()
        raise RuntimeError("no validation data")

    with pytest.raises(RuntimeError, match="no validation data"):
        nnc.Trainer([(INPUTS, LABELS)], functional.cross_entropy, sgd(), broken, progress=False).train(model)

    assert all(module.training for module in model.modules())


class Failing(nn.Module):
    """Its second layer gives inf, or has a gradient that is inf, from the third step on."""

    def __init__(self, operation):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 3), nn.Identity(), nn.Linear(3, 2)
        self.second.forward = lambda x: operation(x) if self.steps >= 2 else x
        self.steps = 0

    def forward(self, x):
        return self.third(self.second(self.first(x)))


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda x: x / 0, r"step 3: the loss is nan; the output of 'second' was the first that is not finite"),
        (lambda x: x * (x * 0).sqrt(), r"step 3: the gradient is not finite; the gradient of the output of 'first' was the first"),
    ],
)
def test_a_number_that_is_not_finite_is_named_by_step_and_layer(operation, words):
    model = Failing(operation)
    step = TorchAdapter(model).trainer(functional.cross_entropy, sgd(), "float32", 1)
    for _ in range(2):
        step((INPUTS, LABELS))
        model.steps += 1
    before = model.third.weight.detach().clone()

    with pytest.raises(nnc.TrainingError, match=words):
        step((INPUTS, LABELS))

    assert torch.equal(model.third.weight, before)


def test_a_loss_of_finite_outputs_that_is_not_finite_is_told_apart():
    step = TorchAdapter(network()).trainer(lambda outputs, targets: outputs.sum() / 0, sgd(), "float32", 1)

    with pytest.raises(nnc.TrainingError, match=r"step 1: the loss is -?inf; every layer's output is finite"):
        step((INPUTS, LABELS))


@pytest.mark.parametrize(("loss", "words"), [(lambda o, t: o, r"a tensor of shape \(4, 2\)"), (lambda o, t: 1.0, "a float")])
def test_a_loss_that_is_no_scalar_is_refused(loss, words):
    step = TorchAdapter(network()).trainer(loss, sgd(), "float32", 1)

    with pytest.raises(nnc.TrainingError, match=f"Trainer.loss: returned {words}; one number is needed"):
        step((INPUTS, LABELS))


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("adam", "'adam' is neither an optimizer"),
        (lambda parameters: None, "returned a NoneType"),
        (torch.optim.SGD(network().parameters(), 0.1), "4 of its 4 parameters are not the model's.*Pass a function"),
    ],
)
def test_an_optimizer_that_does_not_fit_is_refused(optimizer, words):
    model = network().eval()

    with pytest.raises(nnc.ConfigError, match=words):
        TorchAdapter(model).trainer(functional.cross_entropy, optimizer, "float32", 1)

    assert not model.training


def test_a_run_continues_from_its_state_as_if_it_had_not_stopped():
    def start():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        adapter = TorchAdapter(model)
        adapter.set_views({Site("0", "weight"): (Times(1.0),)})
        adapter.learn({"factors": Learning(0.01)})
        return model, adapter, adapter.trainer(functional.cross_entropy, lambda p: torch.optim.AdamW(p, 0.01), "float32", 1)

    _, _, step = start()
    whole = [step((INPUTS, LABELS)) for _ in range(6)]
    _, stopped, step = start()
    for _ in range(3):
        step((INPUTS, LABELS))
    saved = {name: np.array(array) for name, array in step.state().items()}
    tensors, numbers = {name: array.copy() for name, array in stopped.tensors().items()}, stopped.numbers()

    _, adapter, step = start()
    adapter.load_tensors(tensors)
    adapter.set_numbers(numbers)
    step.load_state(saved)

    assert [step((INPUTS, LABELS)) for _ in range(3)] == whole[3:]


def test_states_are_flat_arrays_that_safetensors_takes(tmp_path):
    from safetensors.numpy import load_file, save_file

    step = TorchAdapter(network()).trainer(functional.cross_entropy, lambda p: torch.optim.AdamW(p, 0.01), "float32", 1)
    step((INPUTS, LABELS))
    path = str(tmp_path / "state.safetensors")
    state = step.state()

    save_file(state, path)
    step.load_state(load_file(path))

    assert all(np.array_equal(array, step.state()[name]) for name, array in state.items())


def test_the_trainer_trains_a_model():
    model = network()
    trainer = nnc.Trainer([(INPUTS, LABELS)] * 5, functional.cross_entropy, lambda p: torch.optim.Adam(p, 0.05), epochs=10, progress=False)

    history = trainer.train(model)

    assert len(history.losses) == 50
    assert history.losses[-1] < 0.8 * history.losses[0]
