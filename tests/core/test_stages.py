"""A recipe of stages: what is run, what is kept on disk, and what goes on after a run that was killed."""

import json
import warnings

import numpy as np
import pytest

import nnc
from nnc.arrays import to_numpy
from nnc.errors import ConfigError
from nnc.registry import adapter_for

INPUTS = np.random.default_rng(0).standard_normal((16, 8)).astype("float32")
LABELS = (INPUTS[:, 0] > 0).astype("int64")
RECIPE = [
    {"name": "fit", "train": {"steps": 2}},
    {
        "name": "half",
        "config_list": [{"algorithm": "movement", "op_names": ["first"], "sparsity": 0.5}],
        "train": {"steps": 2},
        "speedup": True,
    },
    {"name": "distil", "config_list": [{"algorithm": "kl"}], "teacher": "fit", "train": {"steps": 2}},
]


def torch_parts():
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential()
    for name, layer in {"first": torch.nn.Linear(8, 12), "relu": torch.nn.ReLU(), "last": torch.nn.Linear(12, 2)}.items():
        model.add_module(name, layer)
    pairs = [(torch.tensor(INPUTS), torch.tensor(LABELS))]
    return model, pairs, torch.nn.functional.cross_entropy, lambda parameters: torch.optim.Adam(parameters, lr=1e-2)


def keras_parts():
    import keras

    keras.utils.set_random_seed(0)
    first = keras.layers.Dense(12, "relu", name="first")
    model = keras.Sequential([keras.Input((8,)), first, keras.layers.Dense(2, name="last")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def of_outputs(outputs, targets):
        return loss(targets, outputs)

    return model, [(INPUTS, LABELS)], of_outputs, lambda _: keras.optimizers.Adam(1e-2)


class Killed(Exception):
    """Stands for a run that ends in the middle."""


@pytest.fixture(name="go")
def give_go(framework, tmp_path):
    """Return a function that runs a recipe on a fresh model in one folder, and may die in the evaluation after some stages."""

    def go(recipe=RECIPE, dies_after=None, folder="run", model=None, instance=False, seed=0, data=None):
        fresh, pairs, loss, optimizer = {"torch": torch_parts, "keras": keras_parts}[framework.name]()
        model = fresh if model is None else model
        if instance:
            optimizer = optimizer(list(model.parameters()) if framework.name == "torch" else model.trainable_variables)
        asked = []

        def evaluate(model):
            asked.append(model)
            if dies_after is not None and len(said) == dies_after:
                raise Killed
            return float(len(asked))

        trainer = nnc.Trainer(data or pairs, loss, optimizer, evaluate, progress=False, seed=seed)
        said = []
        return nnc.run(model, recipe, trainer=trainer, example_inputs=pairs[0][0], folder=tmp_path / folder, say=said.append), said

    return go


def widths(model):
    return {layer.name: tuple(to_numpy(layer.weight).shape) for layer in nnc.layers(model) if layer.prunable}


def weights(model):
    return {layer.name: to_numpy(layer.weight).copy() for layer in nnc.layers(model) if layer.prunable}


def test_the_stages_run_one_after_the_other_and_the_width_really_leaves(go):
    result, said = go()

    assert [one.name for one in result.stages] == ["fit", "half", "distil"]
    assert widths(result.model) == {"first": (6, 8), "last": (2, 6)}
    assert [one.parameters for one in result.stages] == [134, 68, 68]  # 8*12+12 + 12*2+2, then 8*6+6 + 6*2+2
    assert [line.partition(",")[0] for line in said] == ["fit: 134 parameters", "half: 68 parameters", "distil: 68 parameters"]


def test_a_run_that_was_killed_goes_on_with_the_stage_that_it_was_in(go):
    whole, _ = go(folder="whole")
    with pytest.raises(Killed):
        go(dies_after=2)

    resumed, _ = go()

    assert [one.name for one in resumed.stages] == ["fit", "half", "distil"]
    for name, wanted in weights(whole.model).items():
        np.testing.assert_allclose(weights(resumed.model)[name], wanted, atol=1e-6, err_msg=name)


def test_data_that_shuffle_by_themselves_go_on_in_the_next_stage_of_another_process(go, framework):
    def shuffling():
        if framework.name == "torch":
            import torch

            rows = torch.utils.data.TensorDataset(torch.tensor(INPUTS), torch.tensor(LABELS))
            return torch.utils.data.DataLoader(rows, 4, shuffle=True, generator=torch.Generator().manual_seed(5))
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices((INPUTS, LABELS)).shuffle(16, seed=5).batch(4)

    whole, _ = go(folder="whole", data=shuffling())
    with pytest.raises(Killed):
        go(dies_after=2, data=shuffling())

    resumed, _ = go(data=shuffling())

    for name, wanted in weights(whole.model).items():
        np.testing.assert_allclose(weights(resumed.model)[name], wanted, atol=1e-6, err_msg=name)


def test_an_optimizer_serves_each_stage_as_a_function_that_builds_it_does(go):
    built, _ = go(folder="function")
    given, _ = go(folder="instance", instance=True)

    for name, wanted in weights(built.model).items():
        np.testing.assert_array_equal(weights(given.model)[name], wanted, err_msg=name)


def test_a_finished_run_is_only_read(go):
    first, _ = go()

    again, _ = go()

    assert again.stages == first.stages
    assert widths(again.model) == widths(first.model)


def test_a_run_goes_on_that_was_begun_before_a_key_was_known(go, tmp_path):
    go(RECIPE[:2])
    index = tmp_path / "run" / "stages.json"
    known = json.loads(index.read_text())
    for stage in known["recipe"]:
        del stage["calibrate"]
    index.write_text(json.dumps(known))

    result, _ = go()

    assert [one.name for one in result.stages] == ["fit", "half", "distil"]


def test_a_folder_of_another_recipe_is_refused(go):
    go(RECIPE[:1])

    with pytest.raises(ConfigError, match=r"holds a run whose stages\[0\] is another one"):
        go([{"name": "fit", "train": {"steps": 3}}])


def test_a_folder_of_other_settings_of_the_trainer_is_refused(go):
    go(RECIPE[:1])

    with pytest.raises(ConfigError, match=r"holds a run with trainer.seed 0, not 1; choose another folder"):
        go(seed=1)


def test_a_run_that_began_with_other_weights_is_gone_on_with_and_said(go, framework):
    with pytest.raises(Killed):
        go(dies_after=1)
    other = {"torch": torch_parts, "keras": keras_parts}[framework.name]()[0]
    adapter_for(other).load_tensors({path: array * 2 for path, array in adapter_for(other).tensors().items()})

    with pytest.warns(UserWarning, match="began with other weights than the model has; what 'fit' came to is gone on with"):
        result, _ = go(model=other)

    assert [one.name for one in result.stages] == ["fit", "half", "distil"]


def test_the_same_session_may_ask_again(go, framework):
    model = {"torch": torch_parts, "keras": keras_parts}[framework.name]()[0]
    first, _ = go(model=model)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, _ = go(model=model)

    assert again.stages == first.stages


CHAIN = {
    "name": "small",
    "config_list": [{"algorithm": "l1_norm", "op_names": ["first"], "sparsity": 0.5}, {"algorithm": "qat_ste"}, {"algorithm": "kl"}],
    "train": {"steps": 4},
    "speedup": True,
    "calibrate": True,
    "export": "small.onnx",
}


def test_pruning_quantising_and_distilling_in_one_stage_end_in_a_small_file(go, tmp_path):
    onnx = pytest.importorskip("onnx")

    result, said = go([CHAIN])

    file = onnx.load(tmp_path / "run" / "small.onnx")
    shapes = {tuple(tensor.dims) for tensor in file.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    assert widths(result.model) == {"first": (6, 8), "last": (2, 6)}
    assert {frozenset(shape) for shape in shapes if len(shape) == 2} == {frozenset((6, 8)), frozenset((2, 6))}
    assert said[0].startswith("small: small.onnx, ")
    assert "as fast in ONNX Runtime" in said[0]


def test_grids_end_with_their_stage(go):
    result, _ = go([CHAIN])

    exact = [to_numpy(layer.weight) for layer in nnc.layers(result.model) if layer.prunable]

    assert all(len(np.unique(weight)) == weight.size for weight in exact)


def test_a_stage_that_calibrates_without_a_quantizer_is_refused(go):
    with pytest.raises(ConfigError, match="'small' calibrates, but no entry of its config_list quantises"):
        go([{"name": "small", "train": {"steps": 1}, "calibrate": True}])
    with pytest.raises(ConfigError, match=r"calibrate\(\): nothing quantises this model"):
        go([{**CHAIN, "config_list": CHAIN["config_list"][:1]}])


def late(**stage):
    """Return a recipe whose second stage says so."""
    return [RECIPE[0], {"name": "late", "train": {"steps": 1}, **stage}]


PRUNING = {"op_names": ["first"], "sparsity": 0.5}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (late(config_list=[{**PRUNING, "op_names": ["frist"]}]), r"stages\[1\].config_list\[0\].op_names: 'frist' .* nearest: 'first'"),
        (late(config_list=[PRUNING], schedule={"name": "agq"}), r"stages\[1\]: schedule: 'agq' is no schedule; nearest: 'agp'"),
        (late(config_list=[PRUNING], schedule={"options": {"x": 1}}), r"stages\[1\]: schedule: 'agp' does not take x"),
        (late(config_list=[{**PRUNING, "granularity": "head"}], schedule={"options": {"noise": 1}}), "does not take noise"),
        (late(config_list=[PRUNING], calibrate=True), r"stages\[1\]: calibrate\(\): nothing quantises this model"),
        (late(name="../late"), r"stages\[1\].name: '../late' is no name of something new in the run's folder"),
        (late(name="/late"), r"stages\[1\].name: '/late' is no name"),
        (late(name="stages.json"), r"stages\[1\].name: 'stages.json' is no name"),
        (late(export="../small.onnx"), r"stages\[1\].export: '../small.onnx' is no name"),
    ],
)
def test_a_late_stage_is_checked_before_the_first_one_trains(framework, go, tmp_path, recipe, message):
    model, *_ = {"torch": torch_parts, "keras": keras_parts}[framework.name]()
    before = weights(model)

    with pytest.raises(ConfigError, match=message):
        go(recipe, model=model)

    assert not (tmp_path / "run").exists()
    np.testing.assert_array_equal(weights(model)["first"], before["first"])


@pytest.mark.parametrize("stage", [{"speedup": True}, {"export": "small.onnx"}])
def test_what_runs_the_model_needs_example_inputs_before_the_first_stage_trains(framework, tmp_path, stage):
    model, pairs, loss, optimizer = {"torch": torch_parts, "keras": keras_parts}[framework.name]()
    trainer = nnc.Trainer(pairs, loss, optimizer, progress=False)

    with pytest.raises(ConfigError, match=r"stages\[1\]: example_inputs: (speedup|export) runs the model"):
        nnc.run(model, late(config_list=[PRUNING], **stage), trainer=trainer, example_inputs=None, folder=tmp_path / "run")


def test_a_run_without_a_trainer_or_a_folder_is_one_clear_error(framework, tmp_path):
    model, pairs, loss, optimizer = {"torch": torch_parts, "keras": keras_parts}[framework.name]()
    (tmp_path / "file").touch()
    trainer = nnc.Trainer(pairs, loss, optimizer, progress=False)

    with pytest.raises(ConfigError, match=r"trainer: None is no nnc.Trainer; pass nnc.Trainer"):
        nnc.run(model, RECIPE, trainer=None, example_inputs=None, folder=tmp_path / "run")
    with pytest.raises(ConfigError, match="file is a file; the stages need a folder"):
        nnc.run(model, RECIPE, trainer=trainer, example_inputs=pairs[0][0], folder=tmp_path / "file")


def test_after_an_exception_the_users_model_is_as_it_was_and_the_same_call_goes_on(framework, go):
    whole, _ = go(folder="whole")
    model, *_ = {"torch": torch_parts, "keras": keras_parts}[framework.name]()
    before = weights(model)

    with pytest.raises(Killed):
        go(dies_after=0, model=model)

    np.testing.assert_array_equal(weights(model)["first"], before["first"])
    resumed, _ = go(model=model)
    np.testing.assert_allclose(weights(resumed.model)["first"], weights(whole.model)["first"], atol=1e-6)


def test_a_stages_algorithm_is_that_of_its_entries_that_name_none(go):
    moved = {"op_names": ["first"], "sparsity": 0.5, "cool_down": 2}
    named, _ = go(
        [{"name": "half", "config_list": [{**moved, "algorithm": "movement"}], "train": {"steps": 2}, "speedup": True}], folder="named"
    )

    result, _ = go([{"name": "half", "algorithm": "movement", "config_list": [moved], "train": {"steps": 2}, "speedup": True}])

    np.testing.assert_allclose(weights(result.model)["first"], weights(named.model)["first"], atol=1e-6)
