"""Torch parameters and activations are seen through views, which leave no trace when they are taken away."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.views import Learning, Site, Variable, View
from nnc_torch.adapter import TorchAdapter
from tests.adapters.torch_views import Counted, Identity, Plus, Rounded, Times, Wrong, network, one_weight, state_of, tiny_bert, tokens


def test_a_mask_comes_first_and_then_the_views_in_their_order():
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    nn.init.constant_(model[0].weight, 3.0)
    adapter = TorchAdapter(model)

    adapter.set_views({Site("0", "weight"): (Plus(), Times())})
    adapter.set_masks({"0": {"weight": np.array([[True, False]])}})

    assert model[0].weight.tolist() == [[(3 + 1) * 2, (0 + 1) * 2]]


def test_masks_come_and_go_under_views_and_views_over_masks():
    model = network()
    before = state_of(model)
    adapter = TorchAdapter(model)
    mask = {"0": {"weight": np.zeros((3, 4), bool), "bias": np.ones(3, bool)}}

    adapter.set_masks(mask)
    adapter.set_views({Site("0", "weight"): (Plus(),), Site("0", "output"): (Plus(),)})
    adapter.set_masks({})
    assert torch.equal(model[0].weight, model[0].parametrizations.weight.original + 1)
    adapter.set_masks(mask)
    adapter.set_views({})
    assert torch.count_nonzero(model[0].weight) == 0
    adapter.set_masks({})

    assert state_of(model) == before


def test_a_rounded_weight_has_the_straight_through_gradient():
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.6, 1.6]]))
    TorchAdapter(model).set_views({Site("0", "weight"): (Rounded(),)})

    output = model(torch.tensor([[5.0, 7.0]]))
    output.sum().backward()

    assert output.item() == 1 * 5 + 2 * 7
    assert model[0].parametrizations.weight.original.grad.tolist() == [[5.0, 0.0]]


def test_inputs_and_outputs_are_seen_through_views():
    model = network()
    x = torch.randn(2, 4)
    expected = model[2](model[1](model[0](x + 1)) * 2)

    TorchAdapter(model).set_views({Site("0", "input"): (Plus(),), Site("1", "output"): (Times(),)})

    assert torch.allclose(model(x), expected)


def test_a_named_part_of_a_dict_output_is_seen_through_a_view():
    model = tiny_bert().eval()
    before = model(**tokens())["logits"]

    TorchAdapter(model).set_views({Site("", "output:logits"): (Plus(),)})
    after = model(**tokens())

    assert torch.equal(after.logits, before + 1)
    assert torch.equal(after["logits"], after[0])


def test_trained_variables_are_no_parameters_of_the_model():
    model = network()
    names = list(model.state_dict())
    TorchAdapter(model).set_views({Site("0", "output"): (Times(),), Site("2", "weight"): (Times(),)})

    assert [name.replace("parametrizations.weight.original", "weight") for name in model.state_dict()] == [
        names[0],
        names[1],
        names[3],
        names[2],
    ]
    assert len(list(model.parameters())) == 4


def test_taking_views_away_gives_the_users_model_back():
    model = network()
    hook = model[0].register_forward_hook(lambda *_: None)
    before = state_of(model)
    adapter = TorchAdapter(model)

    adapter.set_views({Site("0", name): (Times(),) for name in ("weight", "bias", "input", "output")})
    adapter.set_views({})

    assert state_of(model) == before
    assert hook.id in model[0]._forward_hooks


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ({Site("0", "weight"): (Times(),), Site("2", "weight"): (Wrong(),)}, "2.weight: the views .* shape"),
        ({Site("0", "weight"): (Times(),), Site("9", "weight"): (Times(),)}, "no layer '9'"),
        ({Site("0", "wieght"): (Times(),)}, "no parameter 'wieght'.*nearest: 'weight'"),
    ],
)
def test_views_that_do_not_fit_leave_the_earlier_ones_on(views, words):
    model = network()
    adapter = TorchAdapter(model)
    adapter.set_views({Site("0", "output"): (Plus(),)})
    before, x = state_of(model), torch.ones(1, 4)
    shown = model(x)

    with pytest.raises(nnc.ConfigError, match=words):
        adapter.set_views(views)

    assert state_of(model) == before
    assert torch.equal(model(x), shown)
    assert list(adapter.views()) == [Site("0", "output")]


def test_views_that_stay_keep_their_numbers():
    adapter = TorchAdapter(network())
    adapter.set_views({Site("0", "weight"): (Times(),)})
    adapter.set_numbers({("0.weight", "times"): {"factor": np.float32(7)}})

    adapter.set_views({Site("0", "weight"): (Plus(), Times()), Site("2", "weight"): (Times(),)})

    assert adapter.numbers() == {("0.weight", "times"): {"factor": 7}, ("2.weight", "times"): {"factor": 2}}


def test_numbers_of_a_wrong_shape_change_nothing():
    adapter = TorchAdapter(network())
    adapter.set_views({Site("0", "weight"): (Times(), Counted())})

    with pytest.raises(nnc.ConfigError, match=r"0.weight counted: .* shape"):
        adapter.set_numbers({("0.weight", "times"): {"factor": np.float32(7)}, ("0.weight", "counted"): {"passes": np.ones(3)}})

    assert adapter.numbers()["0.weight", "times"]["factor"] == 2


def test_a_tied_parameter_has_one_view_under_all_its_names():
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 3, bias=False))
    model[1].weight = model[0].weight
    adapter = TorchAdapter(model)

    adapter.set_views({Site("1", "weight"): (Times(),)})
    adapter.set_numbers({("1.weight", "times"): {"factor": np.float32(5)}})

    stored = model[0].parametrizations.weight.original
    assert torch.equal(model[0].weight, stored * 5) and torch.equal(model[1].weight, stored * 5)


def test_variables_of_one_shared_name_are_one():
    model = network()
    adapter = TorchAdapter(model)
    adapter.set_views({Site("0", "weight"): (Times(shared="scale"),), Site("2", "weight"): (Times(shared="scale"),)})
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    adapter.learn({"factors": Learning(1.0, "sgd")}, optimizer)
    with torch.no_grad():
        model[0].bias.fill_(1.0)
        model[2].bias.fill_(0.0)

    # Both layers scale by s: d(s W2 relu(s W1 x + 1)) / ds at 2, by finite differences of the plain network.
    def plain(s):
        w1, w2 = (model[i].parametrizations.weight.original.detach().double() for i in (0, 2))
        return (s * w2 @ torch.relu(s * w1 @ torch.ones(4, dtype=torch.float64) + 1)).sum().item()

    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()

    slope = (plain(2 + 1e-6) - plain(2 - 1e-6)) / 2e-6
    found = adapter.numbers()
    assert found["0.weight", "times"] == found["2.weight", "times"]
    assert found["0.weight", "times"]["factor"] == pytest.approx(2 - slope, rel=1e-4)


def test_untrained_variables_are_assigned_in_training_only():
    model = network()
    adapter = TorchAdapter(model)
    adapter.set_views({Site("0", "output"): (Counted(),)})

    model(torch.ones(1, 4))
    model(torch.ones(1, 4)).sum().backward()
    model.eval()(torch.ones(1, 4))
    adapter.run(torch.ones(1, 4))

    assert adapter.numbers()["0.output", "counted"]["passes"] == 2


def test_to_look_at_a_weight_is_no_step_of_training():
    adapter = TorchAdapter(network())
    adapter.set_views({Site("0", "weight"): (Counted(), Plus())})

    assert torch.equal(adapter.layers()[0].weight, adapter.model[0].parametrizations.weight.original + 1)

    assert adapter.numbers()["0.weight", "counted"]["passes"] == 0


class ByColumn(View):
    """Weights of the canonical (out, in, *kernel) times 1, 2, ... by their output."""

    name = "by_column"

    def __call__(self, x, state, ops, training):
        factors = ops.arange(1, x.shape[0] + 1)
        return x * ops.reshape(factors, (-1, *(1 for _ in x.shape[1:])))


def test_a_view_sees_transformers_conv1d_as_out_by_in():
    from transformers.pytorch_utils import Conv1D

    model = nn.Sequential(Conv1D(3, 4))  # stored (in, out)
    stored = model[0].weight.detach().clone()

    TorchAdapter(model).set_views({Site("0", "weight"): (ByColumn(),)})

    assert torch.equal(model[0].weight, stored * torch.tensor([1.0, 2.0, 3.0]))


def test_a_view_sees_grouped_transposed_convolutions_by_output_channel():
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2))
    x = torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        model[0].bias.zero_()
    plain = model(x)

    TorchAdapter(model).set_views({Site("0", "weight"): (ByColumn(),)})

    assert torch.allclose(model(x), plain * torch.arange(1, 7).reshape(6, 1, 1), atol=1e-5)


def test_fused_attention_reads_its_weights_through_views():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 3, 8)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.self_attn.in_proj_weight.mul_(3)

    TorchAdapter(model).set_views({Site("self_attn", "weight"): (Times(3.0),)})

    with torch.no_grad():  # the fused kernel
        assert torch.allclose(model(x), twin(x), atol=1e-6)
    assert torch.allclose(model(x), twin(x), atol=1e-6)


def test_a_copied_model_has_views_of_its_own():
    model = one_weight()
    TorchAdapter(model).set_views({Site("0", "weight"): (Times(),), Site("0", "output"): (Plus(),)})

    twin = copy.deepcopy(model)
    TorchAdapter(twin).set_numbers({("0.weight", "times"): {"factor": np.float32(10)}})

    assert model(torch.ones(1, 1)).item() == 3 * 2 + 1
    assert twin(torch.ones(1, 1)).item() == 3 * 10 + 1
    TorchAdapter(twin).set_views({})
    assert twin(torch.ones(1, 1)).item() == 3
    assert model(torch.ones(1, 1)).item() == 3 * 2 + 1


def test_shrinking_and_tracing_see_the_model_without_views():
    from nnc.graph.plan import Plan

    model = network()
    adapter = TorchAdapter(model)
    x = torch.ones(1, 4)
    plain = model(x)
    adapter.set_views({Site("0", "weight"): (Times(),), Site("0", "output"): (Times(),)})
    before, shown = state_of(model), model(x)

    traced = adapter.trace(x, {})
    small = adapter.shrink(Plan(), {}, {})

    assert np.allclose(traced.outputs[0], plain.detach())
    assert torch.equal(small(x), plain) and type(small[0]) is nn.Linear
    assert TorchAdapter(small).views() == {}
    assert state_of(model) == before and torch.equal(model(x), shown)


def test_a_half_precision_weight_stays_half_precision_under_a_float32_scale():
    model = one_weight().to(torch.bfloat16)
    TorchAdapter(model).set_views({Site("0", "weight"): (Times(),)})

    assert model[0].weight.dtype == torch.bfloat16


def test_variables_follow_the_model_to_another_type_of_device():
    model = one_weight()
    adapter = TorchAdapter(model)
    adapter.set_views({Site("0", "weight"): (Times(), Counted())})

    model.to("meta")

    assert model(torch.ones(1, 1, device="meta")).device.type == "meta"


def test_identity_views_change_no_number_of_a_training_step():
    losses = []
    for views in ({}, {Site("0", "weight"): (Identity(),), Site("2", "input"): (Identity(),)}):
        model = network()
        TorchAdapter(model).set_views(views)
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(torch.ones(2, 4)).square().sum()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())

    assert losses[0] == losses[1]


def test_parameters_are_written_in_the_canonical_shape():
    from transformers.pytorch_utils import Conv1D

    model = nn.Sequential(Conv1D(3, 4))
    parameter, adapter = model[0].weight, TorchAdapter(model)
    new = np.arange(12, dtype="float32").reshape(3, 4)

    before = adapter.write({Site("0", "weight"): new})

    assert model[0].weight is parameter and np.array_equal(parameter.detach().numpy(), new.T)
    adapter.write(before)
    assert before[Site("0", "weight")].shape == (3, 4)


def test_parameters_of_which_one_does_not_fit_are_not_written():
    model = network()
    before = model[0].weight.detach().clone()

    with pytest.raises(nnc.ConfigError, match=r"2\.weight"):
        TorchAdapter(model).write({Site("0", "weight"): np.zeros((3, 4)), Site("2", "weight"): np.zeros(3)})

    assert torch.equal(model[0].weight, before)


def test_a_variable_says_that_it_is_trained():
    assert Times().variables()["factor"] == Variable(np.float32(2), True, "factors")
