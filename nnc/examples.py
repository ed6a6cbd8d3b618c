"""Inputs that a shell or a recipe describes by their shapes and types: "1,3,224,224", "1,128:int64", [1, 3, 224, 224]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnc.errors import ConfigError
from nnc.graph.ir import Array


@dataclass(frozen=True)
class Example:
    """The shape and the type of an input: "1,3,224,224", "1,128:int64"."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @classmethod
    def parse(cls, text: str | Sequence[int], place: str = "--example") -> Example:
        """Raises `ConfigError` for what is no shape, or no type that a model takes."""
        if not isinstance(text, str):
            return cls(tuple(text))
        sizes, _, dtype = text.partition(":")
        shape = sizes.split(",")
        if not all(size.strip().isdecimal() and int(size) > 0 for size in shape):
            raise ConfigError(f"{place}: {text!r} is no shape; write sizes with commas, as 2,3,224,224 or 1,128:int64.")
        return cls(tuple(map(int, shape)), _type(dtype.strip() or "float32", f"{place}: {text!r}"))

    def array(self, seed: int = 0) -> Array:
        """Return random numbers: normal ones, or whole ones that any vocabulary has."""
        random = np.random.default_rng(seed)
        whole = np.dtype(self.dtype).kind in "iub"
        return random.integers(0, 2, self.shape).astype(self.dtype) if whole else random.standard_normal(self.shape).astype(self.dtype)


def random_arrays(examples: Sequence[Example]) -> list[Array]:
    """Return random numbers for each input, others for each."""
    return [example.array(seed) for seed, example in enumerate(examples)]


def _type(name: str, place: str) -> str:
    try:
        found = np.dtype(name)
    except TypeError:
        found = np.dtype(object)
    if found.kind not in "fiub":
        raise ConfigError(f"{place}: {name!r} is no type of numbers; write float32, int64, int32, bool or another of NumPy's.")
    return str(found.name)
