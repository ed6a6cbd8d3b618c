"""Trained variables learn when the user's optimizer steps, and never enter it."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch.optim import optimizer as torch_optimizer

import nnc
from nnc.views import Learning, Site
from nnc_torch.adapter import TorchAdapter
from tests.adapters.torch_views import Match, Times, network, one_weight, tiny_bert, tokens

WEIGHT = Site("0", "weight")


def viewed(rate=0.1, rule="sgd", value=3.0):
    """y = 3 * 2 * x, the factor 2 in training; with the user's optimizer."""
    model = one_weight(value)
    adapter = TorchAdapter(model)
    adapter.set_views({WEIGHT: (Times(),)})
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    adapter.learn({"factors": Learning(rate, rule)}, optimizer)
    return model, adapter, optimizer


def factor(adapter):
    return adapter.numbers()["0.weight", "times"]["factor"].item()


def test_a_variable_moves_as_sgd_says_and_the_users_state_is_its_own():
    model, adapter, optimizer = viewed()

    model(torch.tensor([[5.0]])).sum().backward()
    optimizer.step()

    # d y / d factor = 3 * 5, d y / d w = 2 * 5.
    assert factor(adapter) == pytest.approx(2 - 0.1 * 15)
    assert model[0].parametrizations.weight.original.item() == pytest.approx(3 - 0.01 * 10)
    assert len(optimizer.param_groups) == 1 and list(optimizer.state) == list(model.parameters())


def test_a_variable_moves_as_adam_says():
    model, adapter, optimizer = viewed(rule="adam")

    model(torch.tensor([[5.0]])).sum().backward()
    optimizer.step()

    assert factor(adapter) == pytest.approx(2 - 0.1, rel=1e-6)  # Adam's first step is the rate, whatever the gradient


def test_gradients_add_up_until_the_user_steps():
    model, adapter, optimizer = viewed()

    for x in (5.0, 1.0):
        model(torch.tensor([[x]])).sum().backward()
    assert factor(adapter) == 2
    optimizer.step()
    optimizer.zero_grad()
    model(torch.tensor([[0.0]])).sum().backward()
    optimizer.step()

    assert factor(adapter) == pytest.approx(2 - 0.1 * (15 + 3))


def test_projections_of_objectives_learn_too():
    # (3 f - 5)^2 at f = 1: d / d f = 2 * (3 - 5) * 3 = -12.
    model = one_weight(3.0)
    adapter = TorchAdapter(model)
    adapter.set_objectives([Match()], one_weight(5.0))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    adapter.learn({"projections": Learning(0.1, "sgd")}, optimizer)

    model(torch.ones(1, 1))
    adapter.total(None).backward()
    optimizer.step()

    assert adapter.numbers()["match", ""]["factor"] == pytest.approx(1 + 1.2)


def test_a_scaled_loss_moves_a_variable_as_an_unscaled_one():
    model, adapter, optimizer = viewed()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    scaler.scale(model(torch.tensor([[5.0]])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()

    assert factor(adapter) == pytest.approx(2 - 0.1 * 15)


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_is_left_out(number):
    model, adapter, optimizer = viewed()

    model(torch.tensor([[number]])).sum().backward()
    optimizer.step()
    assert factor(adapter) == 2
    with torch.no_grad():
        model[0].parametrizations.weight.original.fill_(3.0)
    model(torch.tensor([[5.0]])).sum().backward()
    optimizer.step()

    assert factor(adapter) == pytest.approx(2 - 0.1 * 15)


def test_an_optimizer_that_nnc_was_not_told_of_is_stopped():
    model = network()
    adapter = TorchAdapter(model)
    adapter.set_views({WEIGHT: (Times(),)})
    optimizer, other = torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(network().parameters(), 0.1)
    other.step()
    before = model[2].weight.detach().clone()
    model(torch.ones(1, 4)).sum().backward()

    with pytest.raises(nnc.ConfigError, match=r"variables of factors would not learn.*optimizer=optimizer"):
        optimizer.step()

    assert torch.equal(model[2].weight, before)
    adapter.learn({"factors": Learning(0.1)}, optimizer)
    optimizer.step()


def test_a_loop_that_forgets_the_objectives_is_stopped():
    model = network()
    adapter = TorchAdapter(model)
    adapter.set_objectives([Match()], network())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    adapter.learn({"projections": Learning(0.1)}, optimizer)
    model(torch.ones(1, 4)).sum().backward()

    with pytest.raises(nnc.ConfigError, match=r"loss: what match adds to it is missing.*compressed.loss\(loss\)"):
        optimizer.step()

    adapter.total(model(torch.ones(1, 4)).sum()).backward()
    optimizer.step()


def test_no_hook_on_all_optimizers_stays():
    before = dict(torch_optimizer._global_optimizer_pre_hooks)
    model, adapter = network(), None
    adapter = TorchAdapter(model)

    adapter.set_views({WEIGHT: (Times(),)})
    assert len(torch_optimizer._global_optimizer_pre_hooks) == len(before) + 1
    adapter.set_views({})
    assert torch_optimizer._global_optimizer_pre_hooks == before
    adapter.set_views({WEIGHT: (Times(),)})
    reference = weakref.ref(model)
    del model, adapter
    gc.collect()

    assert reference() is None
    assert torch_optimizer._global_optimizer_pre_hooks == before


def test_untrained_variables_need_no_optimizer():
    model = one_weight()
    adapter = TorchAdapter(model)
    adapter.set_views({WEIGHT: (Times(),)})
    adapter.set_views({})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()

    assert model[0].weight.item() == pytest.approx(2.9)


def test_a_group_without_a_rate_is_refused():
    adapter = TorchAdapter(one_weight())
    adapter.set_views({WEIGHT: (Times(),)})

    with pytest.raises(nnc.ConfigError, match="no rate for the group 'factors'; nearest: 'factor'"):
        adapter.learn({"factor": Learning(0.1)})


def test_what_is_no_optimizer_is_refused():
    adapter = TorchAdapter(one_weight())
    adapter.set_views({WEIGHT: (Times(),)})

    with pytest.raises(nnc.ConfigError, match="optimizer: a str is no torch"):
        adapter.learn({"factors": Learning(0.1)}, "adam")


def test_an_optimizer_of_another_model_is_refused():
    adapter = TorchAdapter(network())

    with pytest.raises(nnc.ConfigError, match=r"none of the parameters of this SGD is the model's.*model.parameters"):
        adapter.learn({}, torch.optim.SGD(network().parameters(), 0.1))


def test_views_taken_away_no_longer_learn():
    model, adapter, optimizer = viewed()
    adapter.set_views({})

    assert not optimizer._optimizer_step_post_hooks
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()


def test_variables_that_stay_keep_their_moments():
    model, adapter, optimizer = viewed(rule="adam")
    x = torch.tensor([[5.0]])

    def step():
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()

    step()
    state = adapter.numbers()
    adapter.set_views({WEIGHT: (Times(), Times(1.0, "again"))})
    step()

    twin, other, twins = viewed(rule="adam")
    twins.zero_grad()
    twin(x).square().sum().backward()
    twins.step()
    assert other.numbers() == state
    twins.zero_grad()
    twin(x).square().sum().backward()
    twins.step()
    assert factor(adapter) == pytest.approx(factor(other), rel=1e-6)


def test_accelerate_steps_the_variables():
    accelerate = pytest.importorskip("accelerate")
    model = one_weight()
    adapter = TorchAdapter(model)
    adapter.set_views({WEIGHT: (Times(),)})
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.01))
    adapter.learn({"factors": Learning(0.1, "sgd")}, optimizer)

    accelerator.backward(model(torch.tensor([[5.0]])).sum())
    optimizer.step()

    assert factor(adapter) == pytest.approx(2 - 0.1 * 15)


def test_the_transformers_trainer_steps_the_variables(tmp_path):
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    model = tiny_bert()
    adapter = TorchAdapter(model)
    adapter.set_views({Site("classifier", "weight"): (Times(1.0),)})
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    adapter.learn({"factors": Learning(0.25, "adam")}, optimizer)
    rows = [{name: value[i] for name, value in tokens(4).items()} | {"labels": torch.tensor(i % 2)} for i in range(4)]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True
    )

    Trainer(model, arguments, train_dataset=rows, optimizers=(optimizer, None)).train()

    moved = adapter.numbers()["classifier.weight", "times"]["factor"] - np.float32(1)
    assert 0.2 < abs(moved) <= 0.5  # two steps of Adam, of 0.25 at most


def test_a_compiled_model_learns_as_a_plain_one():
    found = []
    for backend in (None, "aot_eager"):
        model, adapter, optimizer = viewed()
        adapter.set_masks({"0": {"weight": np.ones((1, 1), bool)}})
        run = torch.compile(model, backend=backend) if backend else model
        for x in (5.0, 1.0):
            optimizer.zero_grad()
            run(torch.tensor([[x]])).square().sum().backward()
            optimizer.step()
        found.append((factor(adapter), model[0].parametrizations.weight.original.item()))

    assert found[0] == pytest.approx(found[1], rel=1e-6)
