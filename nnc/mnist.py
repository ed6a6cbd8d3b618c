"""Digits to train on: MNIST where it can be had, otherwise the 1,797 that scikit-learn ships.

MNIST is looked for in the folder `mnist` of the environment variable NNC_DATA, then in the user's cache, then on the network.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import urllib.request
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path

import numpy as np

from nnc.errors import ConfigError
from nnc.graph.ir import Array

MIRRORS = ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/")

#: The MD5 of each file, uncompressed: a download that differs is not used.
FILES = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(frozen=True)
class Digits:
    """Images `(n, 28, 28)` float32 in [0, 1] with their labels `(n,)` int64, and where they come from."""

    images: Array
    labels: Array
    test_images: Array
    test_labels: Array
    source: str

    def limited(self, count: int | None) -> Digits:
        """Return the first `count` training and test images, all of them for None."""
        if count is None:
            return self
        return replace(
            self,
            images=self.images[:count],
            labels=self.labels[:count],
            test_images=self.test_images[:count],
            test_labels=self.test_labels[:count],
            source=f"{self.source}, the first {count} of each split",
        )


def load_digits(limit: int | None = None, download: bool = True, timeout: float = 5.0) -> Digits:
    """Return MNIST, or where it is neither on disk nor to be downloaded within `timeout` seconds a file, scikit-learn's digits.

    Raises `ConfigError` where NNC_DATA names a folder without MNIST, and where scikit-learn is needed and not installed.
    """
    folder = _on_disk() or (_downloaded(timeout) if download else None)
    digits = _read_mnist(folder) if folder else _scikit_learn_digits()
    return digits.limited(limit)


def _on_disk() -> Path | None:
    given = os.environ.get("NNC_DATA")
    if given and not _complete(Path(given) / "mnist"):
        raise ConfigError(f"NNC_DATA: {given!r} has no folder mnist with the four files {', '.join(FILES)}; unset it to download MNIST.")
    folder = Path(given) / "mnist" if given else _cache()
    return folder if _complete(folder) else None


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nnc" / "mnist"


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _downloaded(timeout: float) -> Path | None:
    """Return the cache folder with MNIST in it, or None where no mirror answers with the right files."""
    for mirror in MIRRORS:
        # IncompleteRead is no OSError.
        with suppress(OSError, HTTPException):
            return _store({name: _fetch(mirror + name, digest, timeout) for name, digest in FILES.items()})
    return None


def _fetch(url: str, digest: str, timeout: float) -> bytes:
    """Return the file behind `url`. Raises OSError where it is not the one that has this digest when uncompressed."""
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        content = bytes(answer.read())
    try:
        found = hashlib.md5(gzip.decompress(content)).hexdigest()
    except (EOFError, zlib.error) as error:
        raise OSError(f"{url} is truncated") from error
    if found != digest:
        raise OSError(f"{url} has the MD5 {found} instead of {digest}")
    return content


def _store(contents: dict[str, bytes]) -> Path:
    folder = _cache()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def _read_mnist(folder: Path) -> Digits:
    images, labels, test_images, test_labels = (read_idx(folder / name) for name in FILES)
    return Digits(
        _scaled(images, 255),
        labels.astype(np.int64),
        _scaled(test_images, 255),
        test_labels.astype(np.int64),
        source=f"MNIST ({folder})",
    )


def read_idx(path: Path) -> Array:
    """Return the array of unsigned bytes that a gzipped IDX file holds.

    Its header: two zero bytes, 8 for unsigned bytes, the number of axes, then each size as a big-endian 32-bit integer.
    Raises `ConfigError` where the file is something else.
    """
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ConfigError(f"{path}: not an IDX file of unsigned bytes (it starts with {content[:4]!r}).")
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _scikit_learn_digits() -> Digits:
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise ConfigError("MNIST could not be downloaded, and scikit-learn's digits need it: pip install 'nnc-toolkit[demo]'.") from error
    data = load()
    images = resized(_scaled(data.images, 16), 28)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = np.split(order, [len(order) // 5])
    labels = data.target.astype(np.int64)
    return Digits(images[train], labels[train], images[test], labels[test], "the digits of scikit-learn, 8x8 scaled to 28x28")


def _scaled(images: Array, largest: int) -> Array:
    return images.astype(np.float32) / np.float32(largest)


def resized(images: Array, side: int) -> Array:
    """Return square images `(n, s, s)` as `(n, side, side)`, bilinear, corners on corners."""
    old = images.shape[1]
    position = np.linspace(0, old - 1, side)
    low = np.minimum(position.astype(int), old - 2)
    share = position - low
    # Row i of the matrix weighs the two old pixels between which new pixel i lies.
    matrix = np.zeros((side, old), images.dtype)
    matrix[np.arange(side), low] = 1 - share
    matrix[np.arange(side), low + 1] = share
    return np.asarray(matrix @ images @ matrix.T)
