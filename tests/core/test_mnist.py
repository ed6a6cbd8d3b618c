import gzip

import numpy as np
import pytest

from nnc import mnist
from nnc.errors import ConfigError


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture(name="data")
def give_data(tmp_path, monkeypatch):
    """A folder with a tiny MNIST, named by NNC_DATA."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for number, name in enumerate(mnist.FILES):
        shape = (3 - number // 2, 28, 28) if "images" in name else (3 - number // 2,)
        write_idx(folder / name, np.full(shape, 255 if "images" in name else 7))
    monkeypatch.setenv("NNC_DATA", str(tmp_path))
    return folder


def test_an_idx_file_gives_the_array_that_was_written(tmp_path):
    array = np.arange(24).reshape(2, 3, 4)
    write_idx(tmp_path / "a.gz", array)

    assert (mnist.read_idx(tmp_path / "a.gz") == array).all()


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"hello"))

    with pytest.raises(ConfigError, match=r"a\.gz: not an IDX file"):
        mnist.read_idx(tmp_path / "a.gz")


def test_mnist_is_read_from_nnc_data_and_scaled_to_one(data):
    digits = mnist.load_digits(download=False)

    assert (digits.images.shape, digits.images.max(), digits.labels.tolist()) == ((3, 28, 28), 1.0, [7, 7, 7])
    assert digits.source == f"MNIST ({data})"


def test_a_limit_takes_the_first_images_of_both_splits(data):
    digits = mnist.load_digits(limit=1, download=False)

    assert (len(digits.images), len(digits.test_labels)) == (1, 1)
    assert "the first 1 of each split" in digits.source


def test_an_incomplete_nnc_data_is_an_error_and_not_another_data_set(data):
    (data / "t10k-labels-idx1-ubyte.gz").unlink()

    with pytest.raises(ConfigError, match=r"NNC_DATA: .* has no folder mnist"):
        mnist.load_digits()


@pytest.fixture(name="no_data")
def give_no_data(tmp_path, monkeypatch):
    monkeypatch.delenv("NNC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_without_a_network_the_digits_of_scikit_learn_serve(no_data, monkeypatch):
    def refuse(url, timeout):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    digits = mnist.load_digits()

    assert digits.source.startswith("the digits of scikit-learn")
    assert (digits.images.shape, digits.test_images.shape) == ((1438, 28, 28), (359, 28, 28))
    assert (digits.images.min(), digits.images.max()) == (0.0, 1.0)


def test_a_download_with_another_checksum_is_not_used(no_data, monkeypatch, tmp_path):
    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self):
            return gzip.compress(b"a login page")

    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: Answer())

    assert mnist.load_digits().source.startswith("the digits of scikit-learn")
    assert list(tmp_path.iterdir()) == []


def test_scaling_up_keeps_the_corners_and_is_linear_between_them():
    assert mnist.resized(np.array([[[0.0, 2.0], [4.0, 6.0]]]), 3).tolist() == [[[0, 1, 2], [2, 3, 4], [4, 5, 6]]]
