"""Models of many families in keras_hub and keras.applications, by their own code: half of what can leave leaves, exactly."""

import keras
import pytest

import nnc
from nnc_pruning import L1NormPruner
from tests.zoo_keras.architectures import randomise
from tests.zoo_keras.checks import difference, run

pytest.importorskip("keras_hub")
from tests.zoo_keras.backbones import FAMILIES

#: Quick ones whose code met what others' does not: a layer called twice, masks of truth values, zeros for what sees nothing, windows.
TELLING = ("albert", "clip_text", "gemma", "swin", "xlnet")
#: What must stay, and why.
STAYS = {
    "bloom": "may make others for another size",  # slopes of ALiBi, which the code makes for so many heads
    "falcon": "needs its size",  # likewise
}


def made(name):
    keras.utils.set_random_seed(0)
    build, inputs = FAMILIES[name]
    return randomise(build()), inputs


def shrinks_and_comes_back(name, folder):
    model, inputs = made(name)
    before = model.count_params()

    masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=inputs).propose()
    speedup = nnc.ModelSpeedup(model, inputs, masks)
    small = speedup.speedup_model()

    assert speedup.difference <= 1e-5
    assert small.count_params() < 0.9 * before
    assert bool(speedup.plan.kept) == (name in STAYS)
    assert all(STAYS[name] in kept.reason for kept in speedup.plan.kept)
    nnc.save(small, folder)
    again = nnc.load(folder, model=lambda: made(name)[0])
    assert difference(run(small, inputs), run(again, inputs)) == 0


@pytest.mark.parametrize("name", TELLING)
def test_a_backbone_with_code_of_its_own_shrinks_exactly(name, tmp_path):
    shrinks_and_comes_back(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FAMILIES) - set(TELLING)))
def test_a_backbone_shrinks_exactly(name, tmp_path):
    shrinks_and_comes_back(name, tmp_path)
