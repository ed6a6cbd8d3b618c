"""Terms are added to a torch loss from what the student and its teacher show in one pass."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import nnc
from nnc.objective import Objective
from nnc.views import Learning, Site
from nnc_torch.adapter import TorchAdapter
from tests.adapters.torch_views import Match, Shrinkage, Times, network, one_weight, state_of, tiny_bert, tokens


class Calls(nn.Module):
    """Counts how often it runs, and notes the mode."""

    def __init__(self, model):
        super().__init__()
        self.model, self.modes = model, []

    def forward(self, x):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.model(x)


def test_terms_are_those_worked_out_by_hand():
    # Student 3 x, teacher 5 x, at x = 2: mse = (6 - 10)^2 = 16. Task 6, at weight 0.5.
    student, teacher = one_weight(3.0), one_weight(5.0)
    adapter = TorchAdapter(student)
    adapter.set_objectives([Match()], teacher)

    output = student(torch.tensor([[2.0]]))
    loss = adapter.total(output.sum())
    loss.backward()

    assert loss.item() == 0.5 * 6 + 16
    assert adapter.terms() == {"match.mse": 16.0, "task": 6.0}
    # d/dw [0.5 * 2 w + (2 w - 10)^2] at 3 = 1 + 2 (6 - 10) 2
    assert student[0].weight.grad.item() == 1 - 16
    assert teacher[0].weight.grad is None


def test_labels_are_not_needed():
    adapter = TorchAdapter(student := one_weight(3.0))
    adapter.set_objectives([Match()], one_weight(5.0))

    student(torch.tensor([[2.0]]))

    assert adapter.total(None).item() == 16


def test_the_teacher_runs_once_for_each_total_in_inference_mode_and_not_in_evaluation():
    student, teacher = network(), Calls(network()).train()
    adapter = TorchAdapter(student)
    adapter.set_objectives([Match()], teacher)

    student.eval()
    assert adapter.total(student(torch.ones(1, 4)).sum()).item() == student(torch.ones(1, 4)).sum().item()
    student.train()
    student(torch.ones(1, 4))
    assert teacher.modes == []
    adapter.total(student(torch.ones(1, 4)).sum())

    assert teacher.modes == [(False, False)]
    assert teacher.training


def test_parameters_are_read_as_stored_and_with_gradients():
    model = one_weight(-3.0)
    adapter = TorchAdapter(model)
    adapter.set_views({Site("0", "weight"): (Times(),)})
    adapter.learn({"factors": Learning(0.1)}, torch.optim.SGD(model.parameters(), 0.1))
    adapter.set_objectives([Shrinkage(Site("0", "weight"))])

    loss = adapter.total(0 * model(torch.ones(1, 1)).sum())
    loss.backward()

    assert loss.item() == pytest.approx(0.3)
    assert model[0].parametrizations.weight.original.grad.item() == pytest.approx(-0.1)


def test_hidden_states_are_read_as_they_passed():
    student = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
    teacher = copy.deepcopy(student)
    with torch.no_grad():
        teacher[0].bias += 1
    adapter = TorchAdapter(student)
    adapter.set_objectives([Match(Site("0"))], teacher)

    student(torch.randn(4, 2))

    assert adapter.total(None).item() == pytest.approx(1.0, rel=1e-5)


def test_a_model_without_labels_in_transformers_distils_by_name():
    student, teacher = tiny_bert().train(), tiny_bert(num_labels=2)
    with torch.no_grad():
        teacher.classifier.bias += 2
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    adapter = TorchAdapter(student)
    adapter.set_objectives([Match(Site("", "output:logits"))], teacher)

    student(**tokens(), labels=torch.tensor([0, 1]))

    assert adapter.total(None).item() == pytest.approx(4.0, rel=1e-5)


def test_a_teacher_is_no_part_of_the_model_or_its_copies():
    student, teacher = network(), network()
    before = state_of(student)
    adapter = TorchAdapter(student)
    adapter.set_objectives([Match(Site("0"))], teacher)

    assert len(list(student.parameters())) == 4
    student(torch.ones(1, 4))  # notes activations, which cannot be copied
    twin = copy.deepcopy(student)
    twin(torch.ones(1, 4))
    assert TorchAdapter(twin).total(None).item() == adapter.total(None).item()
    adapter.set_objectives(())

    assert state_of(student) == before


def test_shrinking_a_student_leaves_the_teacher_behind():
    from nnc.graph.plan import Plan

    student = network()
    plain = state_of(student)[2:]
    adapter = TorchAdapter(student)
    adapter.set_objectives([Match(Site("0"))], network())

    small = adapter.shrink(Plan(), {}, {})
    student(torch.ones(1, 4))

    assert state_of(small)[2][0] == plain[0][0] and "_nnc_instruments" not in vars(small)
    assert adapter.total(None).item() == 0


def test_a_mask_reaches_the_objective():
    class Masked(Objective):
        name = "masked"
        student = (Site("", "output"),)

        def terms(self, seen, ops):
            return {"sum": ops.sum(seen.student[Site("")] * seen.mask)}

    adapter = TorchAdapter(model := one_weight(1.0))
    adapter.set_objectives([Masked()])

    model(torch.tensor([[1.0], [10.0]]))

    assert adapter.total(None, mask=np.array([[1.0], [0.0]], "float32")).item() == 1


def test_a_total_without_a_pass_of_its_own_is_refused():
    adapter = TorchAdapter(model := network())
    adapter.set_objectives([Match()], network())
    loss = model(torch.ones(1, 4)).sum()
    adapter.total(loss)

    with pytest.raises(nnc.ConfigError, match="no forward pass in training mode"):
        adapter.total(loss)


def test_a_tapped_layer_that_a_checkpoint_runs_without_gradients_is_refused():
    class Checkpointed(nn.Sequential):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=True)

    adapter = TorchAdapter(student := Checkpointed(nn.Linear(2, 2)))
    adapter.set_objectives([Match(Site("0", "output"))], nn.Sequential(nn.Linear(2, 2)))

    with pytest.raises(nnc.ConfigError, match=r"0\.output: the model runs it without gradients.*use_reentrant=False"):
        student(torch.ones(1, 2, requires_grad=True))


def test_no_loss_and_no_objective_is_refused():
    with pytest.raises(nnc.ConfigError, match="no objective adds a term"):
        TorchAdapter(network()).total(None)


@pytest.mark.parametrize(
    ("objectives", "teacher", "words"),
    [
        ([Match()], None, "teacher: the objective 'match' reads one"),
        ([Match(Site("conv"))], network(), "no layer 'conv'"),
        ([Match(), Match()], network(), "two have one name"),
    ],
)
def test_objectives_that_do_not_fit_change_nothing(objectives, teacher, words):
    model = network()
    before = state_of(model)

    with pytest.raises(nnc.ConfigError, match=words):
        TorchAdapter(model).set_objectives(objectives, teacher)

    assert state_of(model) == before


def test_a_model_that_teaches_itself_is_refused():
    model = network()

    with pytest.raises(nnc.ConfigError, match="teacher: the model itself was given"):
        TorchAdapter(model).set_objectives([Match()], model)


def test_a_teacher_that_fails_on_the_students_inputs_is_named():
    adapter = TorchAdapter(student := network())
    adapter.set_objectives([Match()], nn.Linear(9, 2))

    loss = student(torch.ones(2, 4)).sum()

    with pytest.raises(nnc.ConfigError, match="teacher: it does not run on what the model is given: Linear: RuntimeError: mat1"):
        adapter.total(loss)


def test_a_teacher_that_takes_other_arguments_is_told_apart():
    student = tiny_bert().train()
    adapter = TorchAdapter(student)
    adapter.set_objectives([Match(Site("", "output"))], Calls(network()))

    student(**tokens())

    with pytest.raises(nnc.ConfigError, match=r"teacher: Calls.forward takes no input_ids, attention_mask"):
        adapter.total(None)
