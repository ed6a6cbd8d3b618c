"""Labels that a model's outputs are compared with, and files that are written after long work."""

import numpy as np
import pytest

from nnc.errors import ConfigError, StorageError
from nnc.files import check_writable, writing
from nnc.labels import checked_labels, right_answers


@pytest.mark.parametrize("labels", [[1, 0, 2], [[1], [0], [2]], np.float32([1, 0, 2]), np.uint8([1, 0, 2])])
def test_labels_are_one_whole_number_a_sample(labels):
    assert checked_labels(labels, [3]).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("labels", "samples", "told"),
    [
        ([1, 0], [3], "labels: 2 of them, and the inputs have 3 samples"),
        ([1, 0], [2, 3], "labels: 2 of them, and the inputs have 2, 3 samples"),
        (["a", "b"], [2], "labels: are of the type <U1"),
        ([0.5, 1], [2], "labels: are of the type float64"),
        ([True, False], [2], "labels: are of the type bool"),
        ([], [0], "labels: are empty"),
        (np.eye(3), [3], r"labels: have the shape (3, 3); one whole number a sample is needed, the class; argmax(axis=1)"),
        (3, [1], "labels: have the shape ()"),
    ],
)
def test_other_labels_are_refused(labels, samples, told):
    with pytest.raises(ConfigError) as found:
        checked_labels(labels, samples)

    assert str(found.value).startswith(told)


def test_the_largest_score_of_each_row_is_the_answer():
    assert right_answers(np.array([[0, 2], [3, 1], [1, 4]]), np.array([1, 1, 1])) == 2
    with pytest.raises(ConfigError, match=r"first output has the shape \(3, 2, 5\); accuracy needs \(3, classes\)"):
        right_answers(np.zeros((3, 2, 5)), np.zeros(3))


def test_a_path_that_cannot_be_written_is_found_before_the_work(tmp_path):
    check_writable(tmp_path / "bars.png", "--picture", [".png", ".svg"])
    with pytest.raises(ConfigError, match=r"--picture: '.*bars\.pgn' ends in none of \.png, \.svg; nearest: '\.png'"):
        check_writable(tmp_path / "bars.pgn", "--picture", [".png", ".svg"])
    with pytest.raises(ConfigError, match=r"--output: '.*new\.yaml' cannot be written: there is no folder '.*none'"):
        check_writable(tmp_path / "none" / "new.yaml", "--output")
    with pytest.raises(ConfigError, match=r"--output: .* is a folder; name a file in it"):
        check_writable(tmp_path, "--output")
    assert not list(tmp_path.iterdir())


def test_what_the_file_system_says_against_a_path_is_one_clear_error(tmp_path):
    with pytest.raises(StorageError, match=r"none/x: cannot be written: No such file or directory"), writing(tmp_path / "none" / "x"):
        (tmp_path / "none" / "x").write_text("")
