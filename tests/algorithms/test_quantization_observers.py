"""Observers find the ranges of other implementations where the definitions are one, and forget the data."""

import tracemalloc

import numpy as np
import pytest

from nnc.errors import ConfigError
from nnc.grid import Grid
from nnc_quantization.observers import BINS, OBSERVERS
from tests.algorithms.quantization_tensors import ANSWERS

BATCHES = [np.array(batch, np.float32) for batch in ANSWERS["observer_batches"]]


def seeded():
    """Return normal numbers with twenty outliers, and squares of normal numbers, as the answers of other tools were made from."""
    draw = np.random.default_rng(3)
    normal = draw.standard_normal(20000).astype("f4")
    normal[:20] *= 8
    return {"A": normal, "B": np.abs(draw.standard_normal(20000)).astype("f4") ** 2}


def observed(name, batches, bits=8):
    observer = OBSERVERS[name](bits)
    for batch in batches:
        observer.observe(batch)
    return observer


def test_minmax_is_torchs_minmax_observer():
    answer = ANSWERS["torch_ao_observers"]["results"]["minmax_u8_asym"]
    low, high = observed("minmax", BATCHES).range()

    assert (low, high) == pytest.approx((answer["min"], answer["max"]))
    grid = Grid.between(low, high)
    assert float(grid.scale) == pytest.approx(answer["scale"][0], rel=1e-6)
    assert int(grid.zero_point) == answer["zero_point"][0]


@pytest.mark.parametrize("data", ["A", "B"])
def test_minmax_is_onnx_runtimes(data):
    answer = ANSWERS["ort_calibration"]["results"][f"{data}:minmax"]
    low, high = observed("minmax", [seeded()[data]]).range()

    assert (low, high) == pytest.approx((min(answer["lo"], 0), answer["hi"]))


@pytest.mark.parametrize("data", ["A", "B"])
@pytest.mark.parametrize("percent", [99.9, 99.999])
def test_percentile_is_modelopts_to_a_bin(data, percent):
    """99.99 % of 20,000 numbers end exactly with a number: which bin that is, rounding decides, and the two outermost are far apart."""
    numbers = seeded()[data]
    observer = observed("percentile", [numbers])
    observer.fraction = percent / 100

    answer = ANSWERS["modelopt_histogram_calibration"]["amax"][f"{data}:percentile{percent}"]
    bins = float(np.abs(numbers).max()) / 2048 + observer.width  # each tool gives the edge of one of its own
    assert observer.reach() == pytest.approx(answer, abs=bins * 1.001)


@pytest.mark.parametrize("data", ["A", "B"])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_mse_observer_loses_no_more_than_two_percent_to_brute_force(data, bits):
    """Brute force tries 1000 ranges on the numbers themselves; the observer tries 100 on a histogram."""
    numbers = seeded()[data].astype(np.float64)
    scale = observed("mse", [numbers], bits).reach() / (2 ** (bits - 1) - 1)
    on_grid = np.clip(np.rint(numbers / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scale

    best = ANSWERS["mse_observer_bruteforce"]["results"][f"{data}:int{bits}_sym_full_grid1000"]["mse"]
    assert ((numbers - on_grid) ** 2).mean() <= best * 1.02


def test_entropy_cuts_outliers_off_where_onnx_runtime_and_modelopt_do():
    """The two tools say 5.37 and 4.04 of 26.6: they smooth differently. Ours lies between them."""
    reach = observed("kl", [seeded()["A"]]).reach()

    lowest = ANSWERS["modelopt_histogram_calibration"]["amax"]["A:entropy:unsigned=False"]
    highest = ANSWERS["ort_calibration"]["results"]["A:entropy_2048bins"]["hi"]
    assert lowest * 0.95 <= reach <= highest * 1.05


def test_the_moving_average_forgets_old_batches_without_a_bias():
    """r = 0.9 over 1, 2, 4: (0.81 + 1.8 + 4) / (0.81 + 0.9 + 1) = 6.61 / 2.71."""
    observer = observed("moving_average_abs_max", [np.array([-1.0]), np.array([2.0]), np.array([-4.0, 1.0])])

    assert observer.reach() == pytest.approx(6.61 / 2.71)
    assert observer.range() == pytest.approx((-6.61 / 2.71, 6.61 / 2.71))


def test_avg_is_the_mean_of_samples_in_a_batch_and_then_of_batches():
    """Batch 1: (1 + 3) / 2 = 2; batch 2: 6. Their mean is 4, though its three samples have a mean of 10 / 3."""
    observer = observed("avg", [np.array([[1.0, -0.5], [-3.0, 2.0]]), np.array([[6.0, 0.0]])])

    assert observer.reach() == pytest.approx(4)


def test_abs_max_covers_the_largest_of_all_batches_and_begins_at_zero_for_positive_ones():
    assert observed("abs_max", [np.array([1.0, 5.0]), np.array([0.5])]).range() == (0, 5)
    assert observed("abs_max", [np.array([1.0, -5.0])]).range() == (-5, 1)


def test_percentile_leaves_one_of_twenty_thousand_out():
    """19,999 numbers up to 1 and one of 10: 99.99 % are 19,998, all of which lie within 1 and a bin."""
    numbers = np.append(np.linspace(0, 1, 19_999), 10.0)

    assert observed("percentile", [numbers]).reach() == pytest.approx(1, abs=2 * 10 / BINS)


def test_mse_clips_a_lone_outlier_at_four_bits():
    """A thousand ones and one 10, levels up to 7: the error of covering 10 is 1000 (1 - 10/7)^2 = 184, of clipping at 7 it is 9."""
    reach = observed("mse", [np.append(np.ones(1000), 10.0)], 4).reach()

    assert reach == pytest.approx(7, rel=0.05)


def test_entropy_keeps_everything_where_all_levels_have_a_bin():
    assert observed("kl", [np.arange(128) / 2048]).reach() == pytest.approx(127 / 2048)


@pytest.mark.parametrize("name", ["percentile", "mse", "kl"])
@pytest.mark.parametrize("data", ["A", "B"])
def test_a_histogram_depends_neither_on_the_order_of_batches_nor_on_how_they_are_cut(name, data):
    """The smallest numbers first, so that the histogram has to grow in most batches; then the largest first; then all in one."""
    rising = np.sort(seeded()[data][np.abs(seeded()[data]) > 0])[np.argsort(np.abs(np.sort(seeded()[data])), kind="stable")]
    ways = [[rising], np.split(rising, 20), np.split(rising, 20)[::-1], [np.zeros(3, np.float32), *np.split(rising, 40)]]

    found = [observed(name, way) for way in ways]

    assert len({observer.range() for observer in found[:3]}) == 1
    assert all(np.array_equal(observer.counts[1:], found[0].counts[1:]) for observer in found)


def test_a_histogram_that_grows_adds_pairs_of_bins():
    """Up to 1.5 bins are 2 / 4096 wide, up to 5 they are 8 / 4096: 1 lies in bin 2048 of the one and in bin 512 of the other."""
    observer = observed("kl", [np.array([1.0, 1.5])])
    assert (observer.width, observer.counts[2048]) == (2 / BINS, 1)

    observer.observe(np.array([-5.0]))

    assert (observer.width, observer.counts[512], observer.counts[768], observer.counts[2560]) == (8 / BINS, 1, 1, 1)


@pytest.mark.parametrize("name", sorted(OBSERVERS))
def test_what_is_zero_everywhere_has_an_empty_range(name):
    low, high = observed(name, [np.zeros((2, 3), np.float32)] * 2).range()

    assert (low, high) == (0, 0)
    assert Grid.between(low, high)(np.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", sorted(OBSERVERS))
def test_memory_does_not_grow_with_the_number_of_batches(name):
    def held(count):
        draw = np.random.default_rng(0)
        tracemalloc.start()
        observer = observed(name, (draw.standard_normal((8, 500)).astype("f4") for _ in range(count)))
        current, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert observer.range()[1] > 0
        return current

    few, many = held(2), held(40)
    assert many <= few + 2000  # bytes


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_counted_in_the_message(bad):
    with pytest.raises(ConfigError, match=r"2 of 4 numbers are NaN or infinite"):
        observed("minmax", [np.array([1, bad, bad, 0])])


def test_an_empty_batch_is_named_with_its_shape():
    with pytest.raises(ConfigError, match=r"a batch is empty, of shape \(0, 3\)"):
        observed("kl", [np.zeros((0, 3))])
