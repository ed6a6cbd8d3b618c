"""Masks that users hand in become complete canonical ones, or are told what is wrong with them."""

import numpy as np
import pytest

from nnc.errors import ConfigError
from nnc.masks import from_kept, merge, normalise
from tests import fakes

MODEL = fakes.lenet()
LAYERS = [fakes.FakeLayer(MODEL, name) for name in MODEL.parameters]
FC2 = LAYERS[-1]
KEEP = np.arange(10) % 2 == 0


@pytest.mark.parametrize("make", [np.asarray, np.ndarray.tolist, lambda mask: mask.astype("float32"), lambda mask: mask.astype(int)])
def test_any_array_of_zeros_and_ones_is_a_mask(make):
    found = normalise({"fc2": {"bias": make(KEEP)}}, LAYERS)["fc2"]

    assert found["bias"].dtype == bool
    assert (found["bias"] == KEEP).all()


def test_what_is_not_given_stays():
    assert normalise({"fc2": {"bias": KEEP}}, LAYERS)["fc2"]["weight"].all()


def test_a_native_name_has_the_native_layout():
    native = np.zeros((50, 10))
    native[:, 3] = 1

    assert np.flatnonzero(normalise({"fc2": {"kernel": native}}, LAYERS)["fc2"]["weight"].all(axis=1)).tolist() == [3]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"fc3": {}}, "masks: 'fc3' is no layer; nearest: 'fc1'"),
        ({"fc2": {"wieght": KEEP}}, "masks['fc2']['wieght']: 'fc2' has no such parameter; nearest: 'weight'. It has weight, bias."),
        ({"fc2": {"bias": KEEP[:4]}}, "masks['fc2']['bias']: the mask has shape (4,), the parameter has (10,)"),
        ({"fc2": {"bias": KEEP * 0.5}}, "masks['fc2']['bias']: 0.5 is neither 0 nor 1"),
        ({"fc2": {"bias": np.full(10, np.nan)}}, "masks['fc2']['bias']: nan is neither 0 nor 1"),
        ({"fc2": {"bias": "keep"}}, "masks['fc2']['bias']: the values are of type <U4"),
        ({"fc2": {"bias": [[1], [1, 0]]}}, "masks['fc2']['bias']: list is no array"),
        ({"fc2": {"kernel": np.ones((10, 50))}}, "masks['fc2']['kernel']: the mask has shape (50, 10), the parameter has (10, 50)"),
        ({"fc2": KEEP}, 'masks[\'fc2\']: a ndarray was given; it is a dict of masks: {"weight": array of shape (10, 50), "bias": array'),
        ([KEEP], "masks: a list was given; masks are {layer name:"),
    ],
)
def test_a_wrong_mask_is_told_where_and_why(masks, message):
    with pytest.raises(ConfigError) as caught:
        normalise(masks, LAYERS)

    assert str(caught.value).startswith(message)


def test_a_channel_is_a_row_and_its_bias():
    masks = from_kept(KEEP, FC2)

    assert (masks["weight"] == KEEP[:, None]).all()
    assert (masks["bias"] == KEEP).all()


def test_an_element_leaves_the_bias_alone():
    masks = from_kept(np.zeros((10, 50), bool), FC2)

    assert not masks["weight"].any()
    assert masks["bias"].all()


def test_masks_upon_masks_keep_what_both_keep():
    old = {"a": {"weight": np.array([True, True, False])}, "b": {"weight": np.array([False])}}
    new = {"a": {"weight": np.array([False, True, True])}, "c": {"weight": np.array([True])}}

    found = merge(old, new)

    assert found["a"]["weight"].tolist() == [False, True, False]
    assert found.keys() == {"a", "b", "c"}
