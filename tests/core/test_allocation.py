"""Who leaves, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnc.allocation import Scored, allocate, count_of, lowest
from nnc_schemas import parse_config_list


def gone(scores, weights=1, **keys):
    """Return the indices that leave each of the layers "a", "b", ... under one entry."""
    sizes = weights if isinstance(weights, list) else [weights] * len(scores)
    scored = {name: Scored(np.array(row, float), size) for name, row, size in zip("abc", scores, sizes, strict=False)}
    keep = allocate(scored, dict.fromkeys(scored, 0), parse_config_list([keys]))
    return [np.flatnonzero(~keep[name]).tolist() for name in scored]


@pytest.mark.parametrize(
    ("granules", "sparsity", "count"), [(10, 0.5, 5), (7, 0.5, 3), (100, 0.29, 29), (10, 0.99, 9), (3, 0.3, 0), (1, 0.9, 0)]
)
def test_a_sparsity_removes_an_exact_count_rounded_down(granules, sparsity, count):
    assert count_of(granules, sparsity) == count


def test_a_layer_never_loses_its_last_granule():
    assert count_of(4, np.nextafter(1.0, 0.0)) == 3


def test_each_layer_loses_its_own_lowest():
    assert gone([[3, 1, 2, 4], [10, 40, 30, 20]], sparsity=0.5) == [[1, 2], [0, 3]]


def test_equal_scores_leave_by_index():
    assert gone([[1, 1, 1, 1]], sparsity=0.5) == [[0, 1]]


def test_a_total_ranks_all_layers_together():
    assert gone([[1, 2, 9, 9], [8, 8, 8, 3]], total_sparsity=0.375) == [[0, 1], [3]]


def test_a_total_counts_weights_not_channels():
    # a holds 4 x 1 weights, b 2 x 10: half of 24 is 12, so one channel of b (10) and the two lowest of a fit.
    assert gone([[1, 3, 5, 6], [2, 4]], weights=[1, 10], total_sparsity=0.5) == [[0, 1], [0]]


def test_a_total_stops_at_the_first_granule_that_does_not_fit():
    # The budget is 6 of 24: 1 fits, 10 does not, and nobody who scored higher leaves before it.
    assert gone([[1, 3, 5, 6], [2, 4]], weights=[1, 10], total_sparsity=0.25) == [[0], []]


def test_a_cap_protects_a_layer_and_others_give_instead():
    assert gone([[1, 2, 3, 4], [5, 6, 7, 8]], total_sparsity=0.5, max_sparsity_per_layer=0.5) == [[0, 1], [0, 1]]


def test_without_a_cap_a_layer_still_keeps_one():
    assert gone([[1, 2], [5, 6, 7, 8]], total_sparsity=0.5) == [[0], [0, 1]]


def test_a_cap_below_one_granule_protects_the_whole_layer():
    assert gone([[1, 2], [5, 6, 7, 8, 9, 10]], total_sparsity=0.25, max_sparse_ratio=0.4) == [[], [0, 1]]


def test_what_is_masked_already_leaves_first():
    assert gone([[3, -np.inf, 1, -np.inf]], sparsity=0.75) == [[1, 2, 3]]


def test_each_entry_allocates_among_its_own_layers():
    scored = {name: Scored(np.array([1.0, 2.0, 3.0, 4.0]), 1) for name in "ab"}
    specs = parse_config_list([{"sparsity": 0.25}, {"total_sparsity": 0.5}])

    keep = allocate(scored, {"a": 0, "b": 1}, specs)

    assert [int(keep[name].sum()) for name in "ab"] == [3, 2]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.data())
def test_a_partition_answers_as_a_stable_sort(values, data):
    count = data.draw(st.integers(0, len(values)))
    expected = np.zeros(len(values), bool)
    expected[np.argsort(values, kind="stable")[:count]] = True

    assert (lowest(np.array(values, float), count) == expected).all()


def test_rounding_lets_the_best_of_those_that_leave_stay():
    # 10 channels at 0.5 keep 5; rounded to blocks of 4 they are 8, and of the 5 that would leave the 2 lowest do.
    assert gone([[5, 1, 9, 2, 8, 3, 7, 4, 6, 10]], sparsity=0.5, round_to=4) == [[1, 3]]


def test_rounding_never_asks_for_more_than_there_is():
    assert gone([[3, 1, 2]], sparsity=0.5, round_to=16) == [[]]


def test_heads_round_by_the_channels_that_they_are():
    # Heads of 4 channels: blocks of 8 channels are 2 heads, so 3 of 6 heads become 4.
    scored = {"a": Scored(np.arange(6.0), 1, rows=4)}

    keep = allocate(scored, {"a": 0}, parse_config_list([{"sparsity": 0.5, "round_to": 8}]))

    assert np.flatnonzero(~keep["a"]).tolist() == [0, 1]


def test_a_threshold_takes_what_scores_below_it_and_leaves_one():
    assert gone([[3, 1, 2, 4], [1, 2, 1, 0]], sparse_threshold=3) == [[1, 2], [0, 2, 3]]


def test_a_threshold_minds_cap_and_floor():
    assert gone([[1, 2, 3, 4]], sparse_threshold=9, max_sparse_ratio=0.5) == [[0, 1]]
    assert gone([[1, 2, 3, 4]], sparse_threshold=0, min_sparse_ratio=0.25) == [[0]]


def test_a_floor_takes_its_share_of_each_layer_first():
    # 4 of 8 leave: one of b in any case, the other three are the lowest of all the rest.
    assert gone([[1, 2, 3, 4], [5, 6, 7, 8]], total_sparsity=0.5, min_sparse_ratio=0.25) == [[0, 1, 2], [0]]


def test_floors_above_a_total_still_hold():
    specs = [spec.model_copy(update={"min_sparse_ratio": 0.5}) for spec in parse_config_list([{"total_sparsity": 0.25}])]
    scored = {name: Scored(np.arange(4.0), 1) for name in "ab"}

    keep = allocate(scored, dict.fromkeys(scored, 0), specs)

    assert [int(keep[name].sum()) for name in "ab"] == [2, 2]


def test_a_cap_holds_in_a_global_group_for_the_layers_of_its_entry():
    scored = {"a": Scored(np.array([1.0, 2, 3, 4]), 1), "b": Scored(np.array([5.0, 6, 7, 8]), 1)}
    entries = [{"sparse_ratio": 0.5, "global_group_id": 1, "max_sparse_ratio": 0.25}, {"sparse_ratio": 0.5, "global_group_id": 1}]

    keep = allocate(scored, {"a": 0, "b": 1}, parse_config_list(entries))

    assert [np.flatnonzero(~keep[name]).tolist() for name in "ab"] == [[0], [0, 1, 2]]


def test_an_isomorphic_ranking_compares_layers_of_one_shape_only():
    rows = {"a": ([1, 2, 3, 4], "narrow"), "b": ([5, 6, 7, 8], "narrow"), "c": ([1, 1, 1, 9], "wide")}
    scored = {name: Scored(np.array(scores, float), 1, shape=shape) for name, (scores, shape) in rows.items()}

    def lost(**keys):
        keep = allocate(scored, dict.fromkeys(scored, 0), parse_config_list([{"total_sparsity": 0.5, **keys}]))
        return [np.flatnonzero(~keep[name]).tolist() for name in scored]

    assert lost() == lost(ranking="global") == [[0, 1, 2], [], [0, 1, 2]]
    assert lost(ranking="isomorphic") == [[0, 1, 2], [0], [0, 1]]
