"""Every loss equals its formula in NumPy, on both frameworks, with and without padding; gradients are those of the formula."""

import re

import numpy as np
import pytest

from nnc.errors import ConfigError
from nnc.objective import Seen
from nnc.views import Site
from nnc_distillation import hidden, relations, soft_targets
from nnc_distillation.objective import Comparison, Distillation, Temperature
from nnc_distillation.rows import masked_mean
from nnc_distillation.sources import Source
from tests.algorithms import distillation_numpy as formula
from tests.algorithms.distillation_tensors import OPS

B, L, H, D = 3, 5, 4, 16
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
MASKS = pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "padded"])
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=["torch", "keras"])
def tensors(request):
    return OPS[request.param]()


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def logits(width=7):
    return drawn(B, L, width, seed=1) * 3, drawn(B, L, width, seed=2) * 3


def qkv(width=D, seed=0):
    return [drawn(B, L, width, seed=seed + number) * 2 for number in range(3)]


@MASKS
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_is_the_mean_over_rows_times_t_squared(tensors, temperature, mask):
    s, t = logits()

    found = tensors.value(soft_targets.kl, s, t, temperature=temperature, mask=mask)

    np.testing.assert_allclose(found, formula.kl_logits(s, t, temperature, mask), **CLOSE)


def test_kl_by_hand(tensors):
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2).
    found = tensors.value(soft_targets.kl, np.zeros((1, 2), "float32"), np.log([[3.0, 1.0]]).astype("float32"))

    np.testing.assert_allclose(found, 0.75 * np.log(1.5) + 0.25 * np.log(0.5), rtol=1e-6)


def test_kl_is_zero_where_the_student_is_the_teacher(tensors):
    s, _ = logits()

    assert abs(tensors.value(soft_targets.kl, s, s, temperature=2.0)) < 1e-6


@MASKS
def test_the_other_reductions_are_the_same_rows(tensors, mask):
    s, t = logits()
    rows = B * L if mask is None else mask.sum()
    mean = formula.kl_logits(s, t, 2.0, mask)

    def found(reduction):
        return tensors.value(soft_targets.kl, s, t, temperature=2.0, reduction=reduction, mask=mask)

    np.testing.assert_allclose(found("mean"), mean / 7, **CLOSE)
    np.testing.assert_allclose(found("sum"), mean * rows, **CLOSE)
    np.testing.assert_allclose(found("none").sum(), mean * rows, **CLOSE)
    assert found("none").shape == (B, L)


def test_without_t2_scaling_kl_is_a_t_squared_part(tensors):
    s, t = logits()

    found = tensors.value(soft_targets.kl, s, t, temperature=3.0, t2_scaling=False)

    np.testing.assert_allclose(found, formula.kl_logits(s, t, 3.0) / 9, **CLOSE)


@MASKS
def test_reverse_kl_exchanges_the_two(tensors, mask):
    s, t = logits()

    found = tensors.value(soft_targets.reverse_kl, s, t, temperature=2.0, mask=mask)

    np.testing.assert_allclose(found, formula.kl_logits(t, s, 2.0, mask), **CLOSE)


@MASKS
def test_cross_entropy_has_the_teachers_probabilities_as_labels(tensors, mask):
    s, t = logits()

    found = tensors.value(soft_targets.ce_logits, s, t, temperature=2.0, mask=mask)

    np.testing.assert_allclose(found, formula.ce_logits(s, t, 2.0, mask), **CLOSE)


def test_one_logit_is_a_binary_cross_entropy_with_soft_targets(tensors):
    s, t = drawn(B, 1, seed=3), drawn(B, 1, seed=4)

    found = tensors.value(soft_targets.ce_logits, s, t, temperature=2.0)

    np.testing.assert_allclose(found, formula.binary_ce(s, t, 2.0), **CLOSE)


def test_labels_of_their_own_are_binary_each(tensors):
    s, t = drawn(B, 6, seed=3), drawn(B, 6, seed=4)

    found = tensors.value(soft_targets.ce_logits, s, t, binary=True)

    np.testing.assert_allclose(found, formula.binary_ce(s, t), **CLOSE)


def test_the_gradient_of_kl_is_t_times_the_difference_of_probabilities(tensors):
    s, t = drawn(6, 5, seed=1) * 2, drawn(6, 5, seed=2) * 2

    found = tensors.gradient(soft_targets.kl, s, t, temperature=3.0)

    np.testing.assert_allclose(found, 3.0 * (formula.softmax(s / 3) - formula.softmax(t / 3)) / 6, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [soft_targets.kl, soft_targets.ce_logits, hidden.mse, hidden.cosine, hidden.pkd, hidden.mse_scores])
def test_no_gradient_reaches_the_teacher(tensors, loss):
    x = drawn(B, 2, L, L)

    assert (
        tensors.teacher_gradient(loss, x if loss is hidden.mse_scores else x[:, 0], (x if loss is hidden.mse_scores else x[:, 0]) + 1)
        is None
    )


def test_half_precision_logits_are_compared_in_float32(tensors):
    s, t = (z.astype("float16") for z in logits())

    found = tensors.value(soft_targets.kl, s, t)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, formula.kl_logits(s.astype("float64"), t.astype("float64")), **CLOSE)


@MASKS
@pytest.mark.parametrize("name", ["mse", "normalised_mse", "cosine"])
def test_hidden_states_are_compared_at_valid_tokens(tensors, name, mask):
    s, t = drawn(B, L, D, seed=1), drawn(B, L, D, seed=2)

    found = tensors.value(getattr(hidden, name), s, t, mask=mask)

    np.testing.assert_allclose(found, getattr(formula, name)(s, t, mask), **CLOSE)


def test_a_mask_does_not_count_in_logits_without_tokens(tensors):
    s, t = drawn(B, 7, seed=1), drawn(B, 7, seed=2)

    np.testing.assert_allclose(tensors.value(soft_targets.mse_logits, s, t, mask=MASK), formula.mse(s, t), **CLOSE)


def test_a_projection_brings_the_student_to_the_teachers_width(tensors):
    s, matrix, bias = drawn(B, L, 4, seed=1), drawn(D, 4, seed=2), drawn(D, seed=3)

    found = tensors.value(hidden.projected, s, matrix, bias)

    np.testing.assert_allclose(found, s @ matrix.T + bias, **CLOSE)


def test_pkd_compares_directions_of_the_first_token(tensors):
    s, t = drawn(B, L, D, seed=1), drawn(B, L, D, seed=2)

    np.testing.assert_allclose(tensors.value(hidden.pkd, s, t), formula.pkd(s, t), **CLOSE)


@MASKS
def test_attention_scores_are_recomputed_from_queries_and_keys(tensors, mask):
    (sq, sk, _), (tq, tk, _) = qkv(), qkv(24, seed=5)
    found = [tensors.value(relations.attention_scores, q, k, heads=H) for q, k in ((sq, sk), (tq, tk))]

    loss = tensors.value(hidden.mse_scores, *found, mask=mask)

    np.testing.assert_allclose(loss, formula.mse_scores(sq, sk, tq, tk, H, mask), **CLOSE)


def test_scores_that_a_model_masked_itself_do_not_count(tensors):
    s, t = np.array([[[[1.0, -np.inf], [2, 3]]]], "float32"), np.array([[[[2.0, 7], [-10000, 5]]]], "float32")

    # (1 - 2)^2 and (3 - 5)^2 count.
    assert tensors.value(hidden.mse_scores, s, t) == 2.5
    assert np.isfinite(tensors.gradient(hidden.mse_scores, s, t)).all()


@MASKS
@pytest.mark.parametrize("snip_norm", [False, True])
def test_minilm_equals_a_loop_over_samples(tensors, mask, snip_norm):
    s, t = qkv(), qkv(24, seed=5)
    expected = sum(formula.relation((s[a], s[b]), (t[a], t[b]), H, mask, snip_norm=snip_norm) for a, b in ((0, 1), (2, 2)))

    found = tensors.value(relations.minilm, s, t, heads=H, mask=mask, snip_norm=snip_norm)

    np.testing.assert_allclose(found, expected, **CLOSE)


def test_minilm_divides_scores_by_the_temperature(tensors):
    s, t = qkv(), qkv(seed=5)

    found = tensors.value(relations.minilm, s, t, heads=H, mask=MASK, temperature=2.0, values=False)

    np.testing.assert_allclose(found, formula.relation(s[:2], t[:2], H, MASK, 2.0), **CLOSE)


@MASKS
def test_causal_relations_are_of_a_token_to_itself_and_those_before_it(tensors, mask):
    s, t = qkv(), qkv(24, seed=5)
    scores = [tensors.value(relations.attention_scores, q, k, heads=H) for q, k, _ in (s, t)]
    pairs = [formula.relation((s[a], s[b]), (t[a], t[b]), H, mask, causal=True) for a, b in ((0, 1), (2, 2), (0, 0), (1, 1))]

    found = tensors.value(relations.minilm, s, t, heads=H, mask=mask, causal=True)
    second = tensors.value(relations.minilmv2, s, t, relation_heads=H, mask=mask, causal=True)
    squares = tensors.value(hidden.mse_scores, *scores, mask=mask, causal=True)

    np.testing.assert_allclose(found, pairs[0] + pairs[1], **CLOSE)
    np.testing.assert_allclose(second, sum(pairs[1:]), **CLOSE)
    np.testing.assert_allclose(squares, formula.mse_scores(*s[:2], *t[:2], H, mask, causal=True), **CLOSE)


@MASKS
@pytest.mark.parametrize("relation_heads", [2, 8])
def test_minilmv2_relates_queries_keys_and_values_in_heads_of_its_own(tensors, relation_heads, mask):
    s, t = qkv(), qkv(24, seed=5)
    weight = (1.0, 2.0, 0.5)
    expected = sum(w * formula.relation((a, a), (b, b), relation_heads, mask) for w, a, b in zip(weight, s, t, strict=True))

    found = tensors.value(relations.minilmv2, s, t, relation_heads=relation_heads, mask=mask, weight=weight)

    np.testing.assert_allclose(found, expected, **CLOSE)


@MASKS
def test_pp_minilm_mixes_relations_of_heads_and_of_samples(tensors, mask):
    s, t = qkv(), qkv(24, seed=5)
    expected = sum(
        0.3 * formula.relation((a, a), (b, b), H, mask)
        + 0.2 * formula.between_heads(a, b, H, mask)
        + 0.5 * formula.between_samples(a, b, H, mask)
        for a, b in zip(s, t, strict=True)
    )

    found = tensors.value(relations.minilmv2, s, t, relation_heads=H, mask=mask, alpha=0.2, beta=0.5)

    np.testing.assert_allclose(found, expected, **CLOSE)


def test_padding_gets_no_gradient_from_minilm(tensors):
    s, t = qkv(), qkv(seed=5)

    gradients = tensors.gradients(lambda *x, ops: relations.minilm(x, tensors.all(t), H, ops, mask=tensors.one(MASK)), s)

    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert not gradient[MASK == 0].any()
        assert gradient[MASK == 1].any()


@pytest.mark.parametrize(
    "loss",
    [
        lambda q, k, v, ops, t: relations.minilm((q, k, v), t, H, ops),
        lambda q, k, v, ops, t: relations.minilmv2((q, k, v), t, 2, ops, alpha=0.3, beta=0.3),
        lambda q, k, v, ops, t: hidden.cosine(q, t[0], ops) + hidden.pkd(k, t[1], ops) + hidden.normalised_mse(v, t[2], ops),
    ],
)
def test_gradients_are_the_finite_differences(tensors, loss):
    s, t = qkv(), qkv(seed=5)
    step = [drawn(B, L, D, seed=9 + number) for number in range(3)]
    gradients = tensors.gradients(lambda *x, ops: loss(*x, ops, tensors.all(t)), s)

    def at(h):
        return tensors.float64(lambda *x, ops: loss(*x, ops, tensors.all(t)), [x + h * d for x, d in zip(s, step, strict=True)])

    slope = sum(float((g * d).sum()) for g, d in zip(gradients, step, strict=True))
    np.testing.assert_allclose((at(1e-2) - at(-1e-2)) / 2e-2, slope, rtol=1e-2, atol=1e-4)


def test_a_masked_mean_divides_by_what_counts(tensors):
    # (1 + 3) / 2; a batch of padding alone gives 0, not NaN.
    assert tensors.value(masked_mean_of, np.array([[1.0, 3, 9]], "float32"), np.array([[1, 1, 0]])) == 2
    assert tensors.value(masked_mean_of, np.array([[1.0, 3, 9]], "float32"), np.zeros((1, 3))) == 0


def masked_mean_of(values, mask, ops):
    return masked_mean(values, mask, ops)


class Kept(dict):
    """A state as adapters keep it, without one."""

    assign = dict.__setitem__


def test_an_annealed_temperature_falls_by_one_each_epoch_down_to_one(tensors):
    temperature = Temperature(3.0, steps_per_epoch=2)
    state = Kept({name: tensors.one(variable.value) for name, variable in temperature.variables().items()})

    found = [float(tensors.numpy(temperature.now(state, tensors.ops))) for _ in range(7)]

    assert found == [3, 3, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("given", [True, False], ids=["with the loss", "as the model's input"])
def test_a_mask_comes_with_the_loss_or_else_from_the_models_input(tensors, given):
    hidden_states, input_mask = Site("block"), Site("", "input:attention_mask")
    s, t = drawn(B, L, D, seed=1), drawn(B, L, D, seed=2)
    source = (Source(hidden_states),)
    entry = Comparison("hidden", source, source, lambda s, t, m, _, ops: hidden.mse(s[0], t[0], ops, mask=m))
    objective = Distillation("mse", [entry], weight=2.0, mask=input_mask)
    shown = {hidden_states: tensors.one(s), input_mask: tensors.one(np.ones_like(MASK) if given else MASK)}

    terms = objective.terms(Seen(shown, {hidden_states: tensors.one(t)}, Kept(), mask=tensors.one(MASK) if given else None), tensors.ops)

    assert objective.student == (hidden_states, input_mask)
    np.testing.assert_allclose(tensors.numpy(terms["hidden"]), 2 * formula.mse(s, t, MASK), **CLOSE)


def terms_of(loss, s, t, mask, tensors, tokens=1):
    entry = Comparison("term", (Source(Site("block")),), (Source(Site("block")),), loss, tokens=tokens)
    seen = Seen({Site("block"): tensors.one(s)}, {Site("block"): tensors.one(t)}, Kept(), mask=tensors.one(mask))
    return tensors.numpy(Distillation("entry", [entry]).terms(seen, tensors.ops)["term"])


def test_the_length_of_each_sample_is_as_good_as_a_mask(tensors):
    """Also where there are as many samples as tokens, so that the two could be taken for one another."""
    mask = np.arange(L)[None] < np.array([[3], [1], [L], [2], [1]])[:L]
    s, t = drawn(L, L, D, seed=1), drawn(L, L, D, seed=2)

    found = terms_of(lambda s, t, m, _, ops: hidden.mse(s[0], t[0], ops, mask=m), s, t, mask.sum(axis=1), tensors)

    np.testing.assert_allclose(found, formula.mse(s, t, mask), **CLOSE)


def test_scores_have_their_tokens_behind_their_heads(tensors):
    s, t = drawn(B, 2, L, L, seed=1), drawn(B, 2, L, L, seed=2)

    def loss(s, t, mask, _, ops):
        return hidden.mse_scores(s[0], t[0], ops, mask=mask)

    found = [terms_of(loss, s, t, given, tensors, tokens=2) for given in (MASK, MASK.sum(axis=1))]

    pairs = np.broadcast_to(MASK[:, None, :, None] * MASK[:, None, None, :], s.shape)
    np.testing.assert_allclose(found, [((s - t) ** 2 * pairs).sum() / pairs.sum()] * 2, **CLOSE)


@pytest.mark.parametrize("shape", [(B, L + 1), (B + 1, L), (B + 1,), (B, 1, 1, L)])
def test_a_mask_of_another_shape_is_refused_with_both(tensors, shape):
    s = drawn(B, L, D, seed=1)

    with pytest.raises(
        ConfigError, match=rf"mask: its shape is {re.escape(str(shape))}, and the tokens' \(batch, length\) is \({B}, {L}\)"
    ):
        terms_of(lambda s, t, m, _, ops: hidden.mse(s[0], t[0], ops, mask=m), s, s, np.ones(shape), tensors)
