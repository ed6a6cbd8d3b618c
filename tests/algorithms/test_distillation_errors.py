"""What cannot be distilled is refused before anything is touched, with the place, what was given and what is allowed."""

import numpy as np
import pytest

import nnc
from nnc.errors import ConfigError, ModelError
from nnc_distillation import KL, PKD, MiniLM, MiniLMv2, MSEHiddenStates, MSELastHidden
from nnc_schemas.distill import LayeredStatesSpec, SoftTargetSpec
from tests.algorithms.distillation_models import MODELS, tokens
from tests.frameworks import images


def refused(cls, message, student, teacher, entry, inputs=None):
    with pytest.raises(ConfigError, match=message):
        cls(student, [entry], inputs, teacher=teacher)


@pytest.mark.parametrize("entry", [{"temperature": 0}, {"temperature": -1}, {"annealing_T": 0, "steps_per_epoch": 1}])
def test_a_temperature_is_above_zero(framework, entry):
    model = framework.build("lenet")

    refused(KL, r"config_list\[0\]\.\w+: (0|-1) is not above 0; it divides the logits", model, model, entry)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"op_types": ["Linear"]}, "op_types: an entry that distils selects no layers"),
        ({"temprature": 2}, "unknown key; nearest: 'temperature'"),
        ({"annealing_T": 4}, "annealing_T and steps_per_epoch belong together"),
        ({"weight": -1}, "-1 is not a number of 0 or more"),
        ({"reduction": "avg"}, "'avg'"),
    ],
)
def test_an_entry_is_checked(framework, entry, message):
    model = framework.build("lenet")

    refused(KL, message, model, model, entry)


@pytest.mark.parametrize(
    "written", [[["a", "b"]], "a:b", ["a:b"], {"a": "b"}, "[post]a:[post]b"], ids=["pair", "string", "list", "dict", "bmcook"]
)
def test_pairs_may_be_written_as_people_do(written):
    spec = LayeredStatesSpec(pairs=written)

    assert [tuple(name.removeprefix("[post]") for name in pair) for pair in spec.pairs] == [("a", "b")]


def test_a_teacher_that_is_no_model_is_refused(framework):
    with pytest.raises(ModelError, match=r"^teacher: the model is a builtins\.str"):
        nnc.compress(framework.build("lenet"), {"algorithm": "kl"}, framework.inputs(images()), teacher="bert")


def test_an_entry_survives_json():
    spec = SoftTargetSpec(algorithm="kl", temperature=2, outputs="logits")

    assert SoftTargetSpec.model_validate_json(spec.model_dump_json(exclude_unset=True)) == spec


def test_a_teacher_with_other_classes_is_refused_with_both_shapes(models, inputs):
    student, teacher = models.bert(classes=2), models.bert(classes=5)

    refused(KL, r"the student's output\S* is \(8, 2\), the teacher's output\S* is \(8, 5\)", student, teacher, {}, inputs)


def test_a_layer_map_out_of_range_names_the_number_of_layers(models, inputs):
    student, teacher = models.bert(layers=1), models.bert(layers=2)

    refused(
        MSEHiddenStates, r"layer_map: there is no layer 2; the teacher has 2 layers, 0 to 1", student, teacher, {"layer_map": [2]}, inputs
    )


def test_heads_that_differ_are_for_minilmv2(models, inputs):
    student, teacher = models.bert(heads=2), models.bert(heads=4)

    refused(MiniLM, "has 2 heads, the teacher's .* 4; .* minilmv2 splits both", student, teacher, {}, inputs)


def test_relation_heads_have_to_divide_both_widths(models, inputs):
    student, teacher = models.bert(width=16), models.bert(width=24)

    message = r"relation_heads: 16 heads do not divide the widths \[16, 24\]"
    refused(MiniLMv2, message, student, teacher, {"relation_heads": 16}, inputs)


def test_pkd_compares_equal_widths_only(models, inputs):
    student, teacher = models.bert(width=16), models.bert(width=24)

    refused(PKD, r"\(8, 7, 16\), .* \(8, 7, 24\); pkd compares them as they are", student, teacher, {}, inputs)


def test_one_projection_cannot_bring_several_widths_together(framework):
    model, inputs = framework.build("lenet"), framework.inputs(images())
    entry = {"pairs": [["fc1", "fc2"], ["fc2", "fc1"]], "projection": "shared"}

    refused(MSEHiddenStates, "'shared' is one for all pairs, and their widths differ: 10 -> 500, 500 -> 10", model, model, entry, inputs)


def test_queries_keys_and_values_may_be_named(models, inputs):
    model = models.bert(layers=1)
    (found,) = MiniLM(model, [{}], inputs, teacher=model).objectives()
    three = [site.layer for site in found.teacher]

    (named,) = MiniLM(model, [{"student_qkv": three, "teacher_qkv": three, "heads": 4}], inputs, teacher=model).objectives()

    assert named.student == found.student
    refused(MiniLM, "heads: is missing", model, model, {"student_qkv": three, "teacher_qkv": three}, inputs)


def test_an_attention_layer_out_of_range_names_the_number_of_layers(models, inputs):
    model = models.bert()

    refused(MiniLM, "teacher_layer: there is no layer 7; the teacher has 2 layers", model, model, {"teacher_layer": 7}, inputs)


def test_widths_that_differ_need_a_projection(models, inputs):
    student, teacher = models.bert(width=16), models.bert(width=24)

    message = r"\(8, 7, 16\), .* \(8, 7, 24\); widths that differ need a projection"
    refused(MSELastHidden, message, student, teacher, {"projection": "none"}, inputs)


@pytest.fixture(params=sorted(MODELS, reverse=True), name="models")
def give_models(request):
    return MODELS[request.param]


@pytest.fixture(name="inputs")
def give_inputs(models):
    return models.inputs(*tokens())


def test_a_network_without_repeated_blocks_is_told_to_name_pairs(framework):
    model = framework.build("lenet")

    refused(MSEHiddenStates, "the student has no repeated blocks, .* with pairs", model, model, {}, framework.inputs(images()))


def test_a_network_without_attention_is_told_so(framework):
    model = framework.build("lenet")

    refused(MiniLM, "no attention is found in the student", model, model, {}, framework.inputs(images()))


def test_a_layer_that_is_not_there_is_named(framework):
    model = framework.build("lenet")

    refused(MSEHiddenStates, "fc9", model, model, {"pairs": [["fc9", "fc1"]]}, framework.inputs(images()))


def test_what_is_found_by_running_needs_inputs(framework):
    model = framework.build("lenet")

    refused(MSEHiddenStates, "example_inputs: the student is run to see its shapes", model, model, {"pairs": ["fc1"]})


def test_student_and_teacher_are_of_one_framework():
    from tests.frameworks import FRAMEWORKS

    student, teacher = (FRAMEWORKS[name].build("lenet") for name in ("torch", "keras"))

    refused(KL, "they need one framework", student, teacher, {})


def test_convolutions_are_compared_by_pairs_of_layers(framework):
    model = framework.build("lenet")

    (objective,) = MSEHiddenStates(model, [{"pairs": ["conv1", "fc1"]}], framework.inputs(images()), teacher=model).objectives()

    assert [str(site) for site in objective.student] == ["conv1.output", "fc1.output"]


def test_the_model_that_does_not_take_the_examples_is_named(framework):
    lenet, other = framework.build("lenet"), two_headed(framework.name)
    examples = framework.inputs(images())

    refused(KL, r"^the teacher: .*\(2, ", lenet, other, {}, examples)
    refused(KL, r"^the student: .*\(2, ", other, lenet, {}, examples)


def test_outputs_are_compared_by_key(framework):
    student, teacher = two_headed(framework.name), two_headed(framework.name)
    inputs = framework.inputs(np.ones((2, 4), "float32")) if framework.name == "torch" else np.ones((2, 4), "float32")

    (both,) = KL(student, [{}], inputs, teacher=teacher).objectives()
    (one,) = KL(student, [{"outputs": ["b"]}], inputs, teacher=teacher).objectives()

    assert [str(site) for site in both.student] == ["output:a", "output:b"]
    assert [str(site) for site in one.teacher] == ["output:b"]
    refused(KL, r"outputs: 'c' is no output of the student.*It has a, b", student, teacher, {"outputs": "c"}, inputs)


def two_headed(name):
    if name == "keras":
        import keras

        given = keras.Input((4,))
        return keras.Model(given, {key: keras.layers.Dense(3, name=f"dense_{key}")(given) for key in "ab"})
    import torch

    class TwoHeaded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)

        def forward(self, x):
            return {"a": self.a(x), "b": self.b(x)}

    return TwoHeaded()


def test_a_refused_entry_leaves_the_model_as_it_was(framework):
    model = framework.build("lenet")
    before = framework.run(model, images())

    with pytest.raises(ConfigError):
        nnc.compress(model, [{"algorithm": "kl"}, {"algorithm": "minilm"}], framework.inputs(images()))

    np.testing.assert_array_equal(framework.run(model, images()), before)


@pytest.mark.parametrize("algorithm", ["kl", "reverse_kl", "ce_logits", "mse_logits"])
@pytest.mark.parametrize("classes", [1, 5])
def test_a_teacher_with_other_classes_that_no_example_showed_is_refused_in_training(models, algorithm, classes):
    """One class would be broadcast: every class of the student would learn it."""
    ids, mask = tokens()
    student, teacher = models.bert(classes=2), models.bert(classes=classes)

    with pytest.raises(
        ConfigError, match=rf"config_list\[0\]: outputs need one shape.*\((8|None), 2\), the teacher's \((8|None), {classes}\)"
    ):
        models.train(
            lambda optimizer: nnc.compress(student, [{"algorithm": algorithm}], teacher=teacher, optimizer=optimizer),
            student,
            models.inputs(ids, mask),
            steps=1,
        )


def test_the_token_that_pkd_compares_is_there(models, inputs):
    model = models.bert()

    refused(PKD, r"position: 99 is no token of \S+, which has 7 of them", model, model, {"position": 99}, inputs)


@pytest.mark.parametrize("given", [{"mask": "attention_mask"}, {"lengths": [[1], [1, 2]]}, {"mask": [[1]], "lengths": [1]}])
def test_a_mask_that_is_none_is_refused(models, inputs, given):
    c = nnc.compress(models.bert(), [{"algorithm": "mse_last_hidden"}], inputs)

    with pytest.raises(ConfigError, match=r"holds no numbers; give a tensor|mask and lengths say the same"):
        c.loss(None, **given)


@pytest.mark.parametrize(
    ("cls", "entry", "message"),
    [
        (MSELastHidden, {"mask": "masc"}, r"config_list\[0\]\.mask: 'masc' is no input of the student.*It is given \S+, \S+mask"),
        (MSEHiddenStates, {"pairs": [["nope", "nope"]]}, r"config_list\[0\]\.pairs: the student: .*'?nope"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_its_entry(models, inputs, cls, entry, message):
    refused(cls, message, models.bert(), models.bert(), entry, inputs)


def test_an_output_of_a_dict_may_be_named_by_its_number():
    models = MODELS["torch"]
    ids, mask = tokens()
    student = models.bert()

    for outputs in (["logits"], ["0"], [0], 0):
        kl = KL(student, [{"outputs": outputs}], models.inputs(ids, mask), teacher=models.bert())
        assert [str(site) for objective in kl.objectives() for site in objective.teacher] == ["output:logits"]
