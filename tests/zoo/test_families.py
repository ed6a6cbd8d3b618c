"""Models of many families in transformers, by their own code: half of what can leave leaves, exactly, and comes back from a folder."""

import pytest
import torch

import nnc
from nnc_torch.inference import tensors_in

pytest.importorskip("transformers")
from tests.zoo.families import FAMILIES

#: Whose code met what others' does not: shapes in a variable, sizes behind a root, copies that one head needs not, random patches.
TELLING = (
    *("blip", "codegen", "convbert", "deberta_v2", "falcon", "funnel", "gemma2", "levit", "olmo2", "pvt", "segformer", "squeezebert"),
    *("swinv2", "vilt", "xglm", "xlm"),
)
#: What must stay, and why.
STAYS = {
    "deberta_v2": "follows from the size",  # scores are divided by the root of a tensor's last size
    "olmo2": "needs its size",  # torch takes another kernel for values that are narrower than keys
    "segformer": "needs its size",
}


def made(name):
    torch.manual_seed(0)
    build, inputs = FAMILIES[name]
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model, inputs


def shrinks_and_comes_back(name, folder):
    model, inputs = made(name)
    before = sum(parameter.numel() for parameter in model.parameters())

    c = nnc.compress(model, [{"algorithm": "l1_norm", "sparsity": 0.5}], example_inputs=inputs)
    small = c.speedup()

    report = c.report()
    assert report.difference <= 1e-5
    assert report.after.parameters < 0.97 * before
    assert bool(report.plan.kept) == (name in STAYS)
    assert all(STAYS[name] in kept.reason for kept in report.plan.kept)
    nnc.save(small, folder)
    again = nnc.load(folder, model=lambda: made(name)[0])
    assert all(map(torch.equal, outputs(small, inputs), outputs(again.eval(), inputs)))


def outputs(model, inputs):
    torch.manual_seed(0)
    with torch.no_grad():
        return list(tensors_in(model(**inputs)))


@pytest.mark.parametrize("name", TELLING)
def test_a_family_with_code_of_its_own_shrinks_exactly(name, tmp_path):
    shrinks_and_comes_back(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FAMILIES) - set(TELLING)))
def test_a_family_shrinks_exactly(name, tmp_path):
    shrinks_and_comes_back(name, tmp_path)
