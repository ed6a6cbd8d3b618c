"""Where a loss reads a tensor of one of the two models, and what is known of it beforehand: its name and its shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from nnc.adapter import Adapter, Ops
from nnc.errors import ConfigError, nearest
from nnc.instruments import trainable
from nnc.views import Site
from nnc_distillation.blocks import repeated_blocks
from nnc_distillation.rows import sizes

if TYPE_CHECKING:
    from nnc_distillation.attention import Attention, Opaque


#: What models call their input of 1 at valid tokens and 0 at padding, `(batch, length)`.
MASKS = ("attention_mask", "padding_mask")

#: A site of the student beside one of the teacher.
SitePairs = list[tuple[Site, Site]]


@dataclass(frozen=True)
class Source:
    """A tensor that passes a site; with `tokens` it is read as `(batch, length, features)`, of which `columns` are taken."""

    site: Site
    columns: tuple[int, ...] | None = None
    tokens: bool = False

    def read(self, seen: Mapping[Site, Any], ops: Ops) -> Any:
        x = seen[self.site]
        if self.tokens and len(x.shape) > 3:
            batch, length, *rest = sizes(x, ops)
            x = ops.reshape(x, (batch, length, prod(map(int, rest))))
        if self.columns is None:
            return x
        parts = [x[..., start:stop] for start, stop in _runs(self.columns)]
        return parts[0] if len(parts) == 1 else ops.concat(parts, axis=-1)


@dataclass(frozen=True)
class _Traced:
    """What was found in a model when it was run on a batch; `shape` tells whether it is still the same network."""

    batch: Any
    shape: tuple[Any, ...]
    attentions: list[Attention | Opaque]


#: The entries of one config_list look at the same models: each is traced once.
_TRACED: WeakKeyDictionary[Any, _Traced] = WeakKeyDictionary()


def _attentions(adapter: Adapter, batch: Any) -> list[Attention | Opaque]:
    from nnc_distillation.attention import attentions

    shape = tuple((layer.name, tuple(layer.parameters.items())) for layer in adapter.layers())
    known = _TRACED.get(adapter.model)
    if known is None or known.batch is not batch or known.shape != shape:
        known = _TRACED[adapter.model] = _Traced(batch, shape, attentions(adapter.structure(batch)))
    return known.attentions


def _runs(columns: Sequence[int]) -> list[tuple[int, int]]:
    """Return columns as ranges: slices need no index on the model's device."""
    runs: list[tuple[int, int]] = []
    for column in columns:
        if runs and runs[-1][1] == column:
            runs[-1] = (runs[-1][0], column + 1)
        else:
            runs.append((column, column + 1))
    return runs


class Side:
    """One of the two models, `role` "student" or "teacher": what it is found to have. It is run on `batch` only when asked."""

    def __init__(self, role: str, adapter: Adapter, batch: Any) -> None:
        self.role, self.adapter, self._batch = role, adapter, batch

    @cached_property
    def blocks(self) -> list[str]:
        """The names of its repeated blocks, in order."""
        return repeated_blocks(layer.name for layer in self.adapter.layers())

    @cached_property
    def attentions(self) -> list[Attention | Opaque]:
        """Its attentions, in order."""
        return _attentions(self.adapter, self.batch("to find its attention"))

    def mask_of(self, name: str | None, place: str) -> Site | None:
        """Return the input of the model that says which tokens are valid: the named one, or one that goes by a usual name.

        Raises `ConfigError` for a name that is not among the inputs.
        """
        given = self._batch if isinstance(self._batch, Mapping) else {}
        if name is None:
            name = next((usual for usual in MASKS if len(getattr(given.get(usual), "shape", ())) == 2), None)
        elif given and name not in given:
            known = ", ".join(map(str, given))
            raise ConfigError(f"{place}.mask: {name!r} is no input of the {self.role}{nearest(name, given)}. It is given {known}.")
        return None if name is None else Site("", f"input:{name}")

    @property
    def runs(self) -> bool:
        """Whether there is something to run it on."""
        return self._batch is not None

    def batch(self, purpose: str) -> Any:
        if self._batch is None:
            raise ConfigError(f"example_inputs: the {self.role} is run {purpose}; pass example_inputs=, or a trainer= with data.")
        return self._batch

    @cached_property
    def outputs(self) -> Any:
        """What the model gives, as the framework gives it."""
        return self._forward("to see its outputs")[0]

    def shapes(self, sites: Sequence[Site]) -> dict[Site, tuple[int, ...]]:
        """Return the shapes of what passes `sites`. Raises `ConfigError` for a site that is not there."""
        _, seen = self._forward("to see its shapes", tuple(dict.fromkeys(sites)))
        return {site: tuple(tensor.shape) for site, tensor in seen.items()}

    def _forward(self, purpose: str, sites: Sequence[Site] = ()) -> tuple[Any, Mapping[Site, Any]]:
        """Run the model on the batch. Raises `ConfigError` that says which of the two failed."""
        batch = self.batch(purpose)
        try:
            return trainable(self.adapter, "distillation").forward(batch, sites)
        except ConfigError as error:
            raise ConfigError(f"the {self.role}: {error}") from error

    def parts(self, named: Sequence[str] | None, place: str) -> list[Site]:
        """Return the sites of outputs by key or number, those that are logits without names; `place` begins an error about them."""
        if named is not None:
            return [self._part(name, place) for name in named]
        if not self.runs or not isinstance(self.outputs, Mapping | tuple | list):
            return [Site("", "output")]
        return [Site("", f"output:{key}") for key in _logits(self.outputs)]

    def _part(self, name: str, place: str) -> Site:
        if self.runs:
            keys = _keys(self.outputs)
            if not keys:
                raise ConfigError(f"{place}: {name!r}: the {self.role} has a single output; leave the key out.")
            if isinstance(self.outputs, Mapping) and name.isdigit() and int(name) < len(keys):
                name = keys[int(name)]
            if name not in keys:
                raise ConfigError(f"{place}: {name!r} is no output of the {self.role}{nearest(name, keys)}. It has {', '.join(keys)}.")
        return Site("", f"output:{name}")


def _keys(outputs: Any) -> list[str]:
    if isinstance(outputs, Mapping):
        return [str(key) for key in outputs]
    return [str(number) for number in range(len(outputs))] if isinstance(outputs, tuple | list) else []


def _logits(outputs: Any) -> list[str]:
    """Return the outputs that are called logits; where none is, all that have an axis beside the batch's."""
    keys = _keys(outputs)
    values = list(outputs.values()) if isinstance(outputs, Mapping) else list(outputs)
    wide = [key for key, value in zip(keys, values, strict=True) if len(getattr(value, "shape", ())) > 1]
    return [key for key in keys if key.endswith("logits")] or wide


def require_same_shapes(student: Side, teacher: Side, pairs: SitePairs, place: str, remedy: str) -> None:
    """Raise `ConfigError` that names the shapes where those of a pair differ."""
    ours, theirs = student.shapes([s for s, _ in pairs]), teacher.shapes([t for _, t in pairs])
    for s, t in pairs:
        if ours[s] != theirs[t]:
            raise ConfigError(f"{place}: the student's {s} is {ours[s]}, the teacher's {t} is {theirs[t]}; {remedy}.")
