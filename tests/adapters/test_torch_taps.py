"""What passes a torch model's layers is read, and differentiated, without a trace."""

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.views import Site
from nnc_torch import ops
from nnc_torch.adapter import TorchAdapter
from tests.adapters.torch_views import Plus, Times, network, state_of, tiny_bert, tokens


def test_a_forward_pass_gives_inputs_outputs_and_parameters():
    model = network()
    x = torch.randn(2, 4)

    outputs, seen = TorchAdapter(model).forward(x, [Site("1", "input"), Site("1"), Site("", "output"), Site("2", "bias")])

    hidden = model[0](x)
    assert torch.equal(seen[Site("1", "input")], hidden)
    assert torch.equal(seen[Site("1")], torch.relu(hidden))
    assert torch.equal(outputs, seen[Site("")]) and torch.equal(outputs, model(x))
    assert torch.equal(seen[Site("2", "bias")], model[2].bias)
    assert not outputs.requires_grad


def test_a_model_that_fails_on_a_batch_is_told_with_the_layer():
    with pytest.raises(nnc.ConfigError, match=r"0: the model failed on a batch of shape \(2, 9\): RuntimeError: mat1"):
        TorchAdapter(network()).forward(torch.ones(2, 9))


def test_what_is_overwritten_in_place_is_read_as_it_passed():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
    x = torch.randn(8, 2)

    _, seen = TorchAdapter(model).forward(x, [Site("0")])

    assert torch.equal(seen[Site("0")], model[0](x))


def test_the_mode_of_each_module_comes_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Dropout(0.5))
    model[1].eval()
    adapter = TorchAdapter(model)
    torch.manual_seed(0)

    _, quiet = adapter.forward(torch.ones(64, 2), [Site("1")])
    _, noisy = adapter.forward(torch.ones(64, 2), [Site("1")], training=True)

    assert torch.count_nonzero(quiet[Site("1")]) == 128 > torch.count_nonzero(noisy[Site("1")])
    assert [module.training for module in model] == [True, False, True]


@pytest.mark.parametrize("name", ["output:logits", "output:hidden_states.1", "output:hidden_states[1]", "output:2"])
def test_parts_of_a_transformers_output_have_names(name):
    model = tiny_bert(output_hidden_states=True).eval()

    outputs, seen = TorchAdapter(model).forward(tokens(), [Site("", name)])

    assert torch.equal(seen[Site("", name)], outputs.logits if name.endswith("logits") else outputs.hidden_states[1])


def test_a_models_own_output_is_not_its_loss():
    model = tiny_bert().eval()

    outputs, seen = TorchAdapter(model).forward({**tokens(), "labels": torch.tensor([0, 1])}, [Site("")])

    assert torch.equal(seen[Site("")], outputs.logits)


def test_inputs_are_named_by_their_arguments():
    model = tiny_bert().eval()
    site = Site("bert.encoder.layer.0.attention.self", "input:hidden_states")

    _, seen = TorchAdapter(model).forward(tokens(), [site, Site("bert.embeddings")])

    assert torch.equal(seen[site], seen[Site("bert.embeddings")])


@pytest.mark.parametrize(
    ("site", "words"),
    [
        (Site("9"), "no layer '9'"),
        (Site("0", "output:logit"), "there is no such tensor"),
        (Site("0", "wieght"), "no parameter 'wieght'"),
    ],
)
def test_a_site_that_is_not_there_is_named_and_no_hook_stays(site, words):
    model = network()
    before = state_of(model)

    with pytest.raises(nnc.ConfigError, match=words):
        TorchAdapter(model).forward(torch.ones(1, 4), [Site("0"), site])

    assert state_of(model) == before


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


def test_a_layer_that_does_not_run_is_named():
    adapter = TorchAdapter(Unused())

    with pytest.raises(nnc.ConfigError, match=r"unused.output: no forward pass reaches it"):
        adapter.forward(torch.ones(1, 2), [Site("unused")])
    with pytest.raises(nnc.ConfigError, match=r"unused.weight: the loss does not depend on it"):
        adapter.gradients(lambda model: model(torch.ones(1, 2)).sum(), [Site("unused", "weight")])


def squared(model):
    return model(torch.tensor([[1.0, -2.0, 3.0, 0.5]])).square().sum()


def test_gradients_are_those_of_autograd():
    model = network()
    sites = [Site("0", "weight"), Site("2", "bias")]

    value, found = TorchAdapter(model).gradients(squared, sites)

    loss = squared(model)
    expected = torch.autograd.grad(loss, [model[0].weight, model[2].bias])
    assert value == loss.item()
    assert all(torch.equal(found[site], gradient) for site, gradient in zip(sites, expected, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_are_taken_in_inference_mode():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1, bias=False))

    _, found = TorchAdapter(model).gradients(lambda model: model(torch.ones(64, 1)).mean(), [Site("1", "weight")])

    assert found[Site("1", "weight")].item() == 1
    assert model.training and model[0].training


def test_masked_entries_have_the_gradient_of_the_effective_weight():
    # y = sum w_i x_i with w = (3, masked 3): y = 3 x_0; d y^2 / d w_i = 2 y x_i.
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    nn.init.constant_(model[0].weight, 3.0)
    adapter = TorchAdapter(model)
    adapter.set_masks({"0": {"weight": np.array([[True, False]])}})
    before = state_of(model)

    _, found = adapter.gradients(lambda model: model(torch.tensor([[1.0, 5.0]])).square().sum(), [Site("0", "weight")])

    assert found[Site("0", "weight")].tolist() == [[2 * 3 * 1, 2 * 3 * 5]]
    assert state_of(model) == before


def test_the_gradient_of_a_parameter_behind_views_is_that_of_what_is_seen():
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.constant_(model[0].weight, 3.0)
    adapter = TorchAdapter(model)
    adapter.set_views({Site("0", "weight"): (Times(), Plus())})  # 3 * 2 + 1

    _, found = adapter.gradients(lambda model: model(torch.ones(1, 1)).square().sum(), [Site("0", "weight")])

    assert found[Site("0", "weight")].tolist() == [[2 * 7]]


def test_frozen_parameters_have_gradients_too():
    model = network().requires_grad_(False)
    before = state_of(model)

    _, found = TorchAdapter(model).gradients(squared, [Site("0", "weight"), Site("2", "weight"), Site("0", "input")])

    twin = network()
    assert torch.allclose(found[Site("0", "weight")], torch.autograd.grad(squared(twin), twin[0].weight)[0])
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert state_of(model) == before


def test_a_tied_parameter_has_the_gradient_of_both_uses():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    adapter = TorchAdapter(model)

    def loss(model):
        return model(torch.tensor([[1.0, 2.0]])).square().sum()

    _, plain = adapter.gradients(loss, [Site("0", "weight")])
    adapter.set_masks({"0": {"weight": np.ones((2, 2), bool)}})
    _, masked = adapter.gradients(loss, [Site("1", "weight")])

    assert torch.allclose(plain[Site("0", "weight")], masked[Site("1", "weight")])


def test_gradients_of_transformers_conv1d_are_out_by_in():
    from transformers.pytorch_utils import Conv1D

    model = nn.Sequential(Conv1D(3, 4))

    _, found = TorchAdapter(model).gradients(squared, [Site("0", "weight")])

    assert torch.equal(found[Site("0", "weight")], torch.autograd.grad(squared(model), model[0].weight)[0].T)


def test_what_passes_a_layer_has_the_gradient_before_it_is_overwritten():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[0].bias.zero_()

    _, found = TorchAdapter(model).gradients(lambda model: model(torch.tensor([[3.0, -3.0]])).sum(), [Site("0"), Site("0", "input")])

    assert found[Site("0")].tolist() == [[1.0, 0.0]]
    assert found[Site("0", "input")].tolist() == [[1.0, 0.0]]


def test_whole_numbers_have_no_gradient():
    with pytest.raises(nnc.ConfigError, match=r"word_embeddings.input: what passes there is torch.int64"):
        TorchAdapter(tiny_bert()).gradients(lambda m: m(**tokens()).logits.sum(), [Site("bert.embeddings.word_embeddings", "input")])


@pytest.mark.parametrize("loss", [lambda model: model(torch.ones(2, 4)), lambda model: 3.0])
def test_a_loss_that_is_no_scalar_is_refused_and_leaves_no_hook(loss):
    model = network()
    before = state_of(model)

    with pytest.raises(nnc.ConfigError, match="one number is needed"):
        TorchAdapter(model).gradients(loss, [Site("0")])

    assert state_of(model) == before


@pytest.mark.parametrize("count", [0, 1, 4, torch.tensor(4), 7])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int64])
def test_the_lowest_leave_and_equal_ones_in_the_order_of_their_index(count, kind):
    x = torch.tensor([[5, 1, 4], [2, 4, 6]]).to(kind)
    x = torch.cat([x.reshape(-1), torch.tensor([4]).to(kind)])  # 1 and 2 leave first, then the 4 at 2, 4 and 6

    left = {0: [0, 1, 2, 3, 4, 5, 6], 1: [0, 2, 3, 4, 5, 6], 4: [0, 5, 6], 7: []}[int(count)]
    assert ops.without_lowest(x, count).nonzero().flatten().tolist() == left


def test_ops_have_the_names_of_the_array_api():
    x = torch.tensor([[1.0, -2.0], [3.0, 0.5]])

    assert ops.sum(x, axis=1).tolist() == [-1.0, 3.5]
    assert ops.clip(x, 0, 1).tolist() == [[1.0, 0.0], [1.0, 0.5]]
    assert ops.clip(x, torch.tensor(0.0), torch.tensor(1.0)).tolist() == [[1.0, 0.0], [1.0, 0.5]]
    assert ops.permute_dims(x, (1, 0)).tolist() == [[1.0, 3.0], [-2.0, 0.5]]
    assert ops.cumulative_sum(x, axis=1).tolist() == [[1.0, -1.0], [3.0, 3.5]]
    assert torch.allclose(ops.log_softmax(x, axis=0), torch.log(ops.softmax(x, axis=0)))
    assert not ops.stop_gradient(x.requires_grad_()).requires_grad


def test_only_shows_what_is_kept_and_hides_nan():
    x = torch.tensor([float("nan"), 2.0, -3.0], requires_grad=True)

    shown = ops.only(x, torch.tensor([False, True, False]))
    shown.backward(torch.tensor([float("inf"), 5.0, 7.0]))

    assert shown.tolist() == [0.0, 2.0, 0.0]
    assert x.grad.tolist() == [0.0, 5.0, 0.0]


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_only_is_where_in_every_type_and_layout(kind):
    x = torch.randn(6, 5).to(kind).T
    keep = x > 0

    assert torch.equal(ops.only(x, keep), torch.where(keep, x, 0.0))


def test_a_masked_model_can_be_exported():
    model = nn.Sequential(nn.Linear(2, 2))
    TorchAdapter(model).set_masks({"0": {"weight": np.array([[True, False], [True, True]])}})
    x = torch.randn(1, 2)

    program = torch.export.export(model.eval(), (x,), strict=False)

    assert torch.allclose(program.module()(x), model(x))
    assert not any("view.dtype" in str(node.target) for node in program.graph.nodes)


def test_an_adapter_of_the_model_can_be_made_while_gradients_are_taken():
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    TorchAdapter(model).set_masks({"0": {"weight": np.array([[True, False]])}})
    x = torch.tensor([[3.0, 5.0]])

    _, found = TorchAdapter(model).gradients(lambda m: TorchAdapter(m).model(x).sum(), [Site("0", "weight")])

    assert found[Site("0", "weight")].tolist() == [[3.0, 5.0]]
