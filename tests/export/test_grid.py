"""What a grid is: numbers worked out by hand."""

import json

import numpy as np
import pytest

from nnc import ConfigError
from nnc.grid import Grid, grids_from_dict, grids_to_dict
from nnc.views import Site


def test_numbers_go_to_the_nearest_level_and_halves_to_the_even_one():
    grid = Grid(0.5, 0, bits=4)

    assert grid.quantise(np.array([0.25, 0.75, 0.3, -0.25, 9.0, -9.0])).tolist() == [0, 2, 1, 0, 7, -8]


def test_a_narrow_grid_has_as_many_levels_on_both_sides():
    assert Grid(1.0, 0, bits=8, narrow=True).quantise(np.array([-200.0, 200.0])).tolist() == [-127, 127]


def test_an_unsigned_grid_covers_its_range_and_zero_exactly():
    grid = Grid.between(-1.0, 4.1)  # 5.1 / 255 = 0.02 a step, zero at 50

    assert (grid.zero_point, round(float(grid.scale), 6)) == (50, 0.02)
    assert grid(np.array([0.0, -1.0, 4.1, 7.0])) == pytest.approx([0, -1, 4.1, 4.1])


def test_a_range_without_zero_is_widened_to_hold_it():
    assert Grid.between(2.0, 5.1).zero_point == 0
    assert float(Grid.between(2.0, 5.1).scale) == pytest.approx(0.02)


def test_each_channel_has_a_scale_of_its_own():
    grid = Grid.around_zero(np.array([[1.27, -0.5], [0.0, 0.0], [-12.7, 3.0]]), axis=0)

    assert grid.scale == pytest.approx([0.01, 1e-8, 0.1])
    assert grid.quantise(np.array([[0.5, 1.0], [0.0, 0.0], [1.0, -5.0]])).tolist() == [[50, 100], [0, 0], [10, -50]]


def test_runs_of_inputs_have_scales_of_their_own():
    grid = Grid.around_zero(np.array([[7.0, 1.0, 14.0]]), bits=4, axis=0, block=2)

    assert grid.scale.tolist() == [[1.0, 2.0]]
    assert grid(np.array([[3.4, 1.0, 5.0]])).tolist() == [[3.0, 1.0, 4.0]]


def test_grids_survive_json_to_the_last_bit():
    grids = {Site("a.b", "weight"): Grid(np.float32([0.1, 1 / 3]), [0, 0], 4, True, True, 0), Site("a.b", "input"): Grid.between(-1, 2)}

    read = grids_from_dict(json.loads(json.dumps(grids_to_dict(grids))))

    assert read.keys() == grids.keys()
    assert all(read[site].same(grid) for site, grid in grids.items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"scale": 1.0, "zero_point": 0, "bits": 1}, "1 bits are outside 2 to 16"),
        ({"scale": 0.0, "zero_point": 0}, "must be positive"),
        ({"scale": float("nan"), "zero_point": 0}, "must be positive and finite"),
        ({"scale": 1.0, "zero_point": 300, "signed": False}, "outside 0 to 255"),
        ({"scale": [1.0, 2.0], "zero_point": [0, 0]}, "expected 0 dimensions"),
        ({"scale": [1.0, 2.0], "zero_point": [0], "axis": 0}, "shape"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        Grid(**arguments)
