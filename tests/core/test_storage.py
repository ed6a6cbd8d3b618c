"""A folder holds the model whole, or the reader is told what is wrong with it."""

import json

import numpy as np
import pytest

import nnc
from nnc.graph.plan import Group, Member, Plan
from tests import fakes

pytestmark = pytest.mark.usefixtures("fake_framework")

#: Half of fc1's neurons leave, and fc2's inputs with them.
PLAN = Plan(
    (
        Group(
            tuple(
                Member(path, axis, 0, 1, 50, 1, tuple(range(25))) for path, axis in [("fc1.weight", 0), ("fc1.bias", 0), ("fc2.weight", 1)]
            )
        ),
    )
)


@pytest.fixture(name="small")
def give_small():
    return fakes.FakeAdapter(fakes.lenet()).shrink(PLAN, {}, {})


def test_a_small_model_is_cut_again_from_the_original_and_filled(small, tmp_path):
    nnc.save(small, tmp_path / "net")

    found = nnc.load(tmp_path / "net", model=lambda: fakes.lenet(seed=1))

    assert found.parameters["fc1"]["weight"].shape == (25, 80)
    assert found.made_by == (PLAN,)
    for layer, given in small.parameters.items():
        for key, value in given.items():
            np.testing.assert_array_equal(found.parameters[layer][key], value)


def test_a_masked_model_comes_back_masked(tmp_path):
    model = fakes.lenet()
    masks = nnc.compress(model, [{"op_names": "fc1", "sparsity": 0.5}]).masks
    nnc.save(model, tmp_path)

    found = nnc.load(tmp_path, fakes.lenet(seed=1))

    np.testing.assert_array_equal(found.masked["fc1"]["weight"], masks["fc1"]["weight"])
    np.testing.assert_array_equal(found.parameters["fc1"]["weight"], model.parameters["fc1"]["weight"])


def test_arrays_that_lie_transposed_in_memory_are_written_in_order(tmp_path):
    model = fakes.layer(np.arange(6.0).reshape(2, 3).T)
    nnc.save(model, tmp_path / "net")

    assert nnc.load(tmp_path / "net", fakes.layer(np.zeros((3, 2)))).parameters["fc"]["weight"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_the_folder_holds_no_pickle_and_may_be_written_again(small, tmp_path):
    nnc.save(small, tmp_path / "net")
    nnc.save(small, tmp_path / "net")

    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["model.safetensors", "nnc.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_folder_of_the_users_is_not_written_over(small, tmp_path):
    (tmp_path / "thesis.tex").write_text("...")

    with pytest.raises(nnc.StorageError, match=r"the folder holds other files and no nnc\.json"):
        nnc.save(small, tmp_path)


def test_a_file_is_no_folder(small, tmp_path):
    (tmp_path / "net").write_text("...")

    with pytest.raises(nnc.StorageError, match=r"is a file; nnc\.save writes a folder"):
        nnc.save(small, tmp_path / "net")


def test_a_failure_leaves_nothing_half_written(small, tmp_path, monkeypatch):
    def full(self, *given, **named):
        raise OSError("No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)

    with pytest.raises(nnc.StorageError, match="cannot be written: No space left"):
        nnc.save(small, tmp_path / "net")

    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(nnc.StorageError, match="nowhere: is no folder"):
        nnc.load(tmp_path / "nowhere", fakes.lenet())


def test_a_foreign_folder_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_text("...")

    with pytest.raises(nnc.StorageError, match=r"has no nnc.json, so nnc.save did not write it"):
        nnc.load(tmp_path, fakes.lenet())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors, index: tensors.unlink(), "model.safetensors: is missing"),
        (lambda tensors, index: tensors.write_bytes(tensors.read_bytes()[:-8]), "model.safetensors: is truncated or altered"),
        (lambda tensors, index: index.write_text(index.read_text()[:40]), "nnc.json: is truncated"),
        (lambda tensors, index: index.write_text("[]"), "nnc.json: is truncated, or nnc.save did not write it"),
        (lambda tensors, index: rewrite(index, format=99, nnc="7.0"), "has format 99; this nnc reads 1. Upgrade to nnc 7.0."),
        (lambda tensors, index: rewrite(index, framework="jax"), "holds a model of 'jax'; the model given is of 'fake'"),
        (lambda tensors, index: rewrite(index, plans=[{"groups": 3}]), "has a plan that this nnc cannot read"),
        (lambda tensors, index: index.write_text('{"format": 1}'), "lacks blueprint, framework, nnc, plans, sha256"),
    ],
)
def test_a_damaged_folder_says_what_is_damaged(small, tmp_path, damage, message):
    nnc.save(small, tmp_path)
    damage(tmp_path / "model.safetensors", tmp_path / "nnc.json")

    with pytest.raises(nnc.StorageError) as caught:
        nnc.load(tmp_path, fakes.lenet())

    assert message in str(caught.value)


def rewrite(index, **changes):
    index.write_text(json.dumps({**json.loads(index.read_text()), **changes}))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "holds a FakeModel, whose code is not saved. Pass model="),
        (lambda: fakes.layer(np.ones((4, 4))), "another architecture than the saved one: fc1.weight is missing; axis 0 had 50 or more"),
        (lambda size: fakes.lenet(), "cannot be called without arguments: missing a required argument: 'size'"),
    ],
)
def test_a_model_that_does_not_serve_is_told_why(small, tmp_path, model, message):
    nnc.save(small, tmp_path)

    with pytest.raises(nnc.ConfigError) as caught:
        nnc.load(tmp_path, model)

    assert message in str(caught.value)
