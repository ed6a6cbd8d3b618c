"""Which entry of a config_list governs which layer.

    selected = (op_names + op_partial_names + op_names_re) and op_types, without the exclude_... keys

Entries apply in order and a later one overrides an earlier one, as in NNI 2.10: the LAST entry that names a layer governs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from nnc.adapter import Layer
from nnc.errors import ConfigError, nearest
from nnc_schemas import Selector

Words = Sequence[str] | None

_LIST = "`nnc layers` lists them all."
#: Keras's class names for the neutral types, so that a config_list written for one framework serves the other.
ALIASES: Mapping[str, str] = {
    "Dense": "Linear",
    "Conv2D": "Conv2d",
    "Conv3D": "Conv3d",
    "Conv1DTranspose": "ConvTranspose1d",
    "Conv2DTranspose": "ConvTranspose2d",
    "Conv3DTranspose": "ConvTranspose3d",
    "DepthwiseConv2D": "DepthwiseConv2d",
    "LayerNormalization": "LayerNorm",
}


#: What an algorithm works on that says nothing else.
CHANNELED = "layers that have output channels of their own"


class Treating(Protocol):
    """The class of an algorithm. `treats` tells which layers can be selected at all, `treated` says it in words."""

    name: str
    treated: str

    @staticmethod
    def treats(layer: Layer) -> bool: ...


class AnyPruner:
    """No algorithm in particular: output channels can leave."""

    name = ""
    treated = CHANNELED

    @staticmethod
    def treats(layer: Layer) -> bool:
        return layer.prunable


def resolve(specs: Sequence[Selector], layers: Sequence[Layer], by: Treating | Sequence[Treating] = AnyPruner) -> dict[str, int]:
    """Return the index of the entry that governs each layer; excluded and unnamed layers are absent.

    `by` is whose the entries are, or one for each.
    Raises `ConfigError` for an entry, or one name in it, that matches no layer, and where every layer ends up excluded.
    """
    governed: dict[str, int] = {}
    for index, (spec, each) in enumerate(zip(specs, by if isinstance(by, Sequence) else [by] * len(specs), strict=True)):
        governed.update(dict.fromkeys(selected(spec, layers, each), index))
    kept = {name: index for name, index in governed.items() if not specs[index].exclude}
    if not kept:
        raise ConfigError("config_list: every layer that it names is excluded in the end, so nothing would be pruned.")
    return {layer.name: kept[layer.name] for layer in layers if layer.name in kept}


def selected(spec: Selector, layers: Sequence[Layer], by: Treating = AnyPruner) -> list[str]:
    """Return the layers that one entry means, in the model's order; one that excludes may mean any that some algorithm prunes."""
    return _Matcher(spec, layers, by).select(spec)


def spared(specs: Sequence[Selector], layers: Sequence[Layer], by: Treating = AnyPruner) -> set[str]:
    """Return the layers that the entries, in their order, say in so many words to leave alone."""
    found: set[str] = set()
    for spec in specs:
        matcher = _Matcher(spec, layers, by)
        chosen = set(matcher.select(spec))
        found = found | chosen if spec.exclude else (found - chosen) | matcher.excepted(spec)
    return found


class _Matcher:
    """The layers of one model, asked by one entry, whose place begins every message."""

    def __init__(self, spec: Selector, layers: Sequence[Layer], by: Treating) -> None:
        self.place = spec.place
        self.by = by
        self.layers = {layer.name: layer for layer in layers}
        self.eligible = {layer.name: layer for layer in layers if by.treats(layer) or (spec.exclude and layer.prunable)}

    def select(self, spec: Selector) -> list[str]:
        """Return the names of the layers that the entry means, in the model's order."""
        named = self.named(spec)
        typed = self.of_types("op_types", spec.op_types) if spec.op_types else set(self.eligible)
        excepted = self.excepted(spec)
        chosen = [name for name in self.eligible if name in named and name in typed and name not in excepted]
        if not chosen:
            reason = "all that it selects is excepted again" if (named & typed) else "no layer has both such a name and such a type"
            raise ConfigError(f"{self.place}: matches no layer: {reason}. {_LIST}" if self.eligible else self.barren())
        return chosen

    def named(self, spec: Selector) -> set[str]:
        if not (spec.op_names or spec.op_partial_names or spec.op_names_re):
            return set(self.eligible)
        exact = self.by_name("op_names", spec.op_names)
        return exact | self.by_part("op_partial_names", spec.op_partial_names) | self.by_pattern("op_names_re", spec.op_names_re)

    def excepted(self, spec: Selector) -> set[str]:
        exact = self.by_name("exclude_op_names", spec.exclude_op_names)
        patterns = self.by_pattern("exclude_op_names_re", spec.exclude_op_names_re)
        return exact | patterns | self.of_types("exclude_op_types", spec.exclude_op_types)

    def by_name(self, key: str, names: Words) -> set[str]:
        return self.union(key, {name: [name] if name in self.candidates(key) else [] for name in names or ()})

    def by_part(self, key: str, parts: Words) -> set[str]:
        return self.union(key, {part: [name for name in self.candidates(key) if part in name] for part in parts or ()})

    def by_pattern(self, key: str, patterns: Words) -> set[str]:
        compiled = {pattern: self.compile(key, pattern) for pattern in patterns or ()}
        return self.union(key, {text: [name for name in self.candidates(key) if regex.match(name)] for text, regex in compiled.items()})

    def of_types(self, key: str, types: Words) -> set[str]:
        return self.union(key, {kind: list(_of_type(kind, self.candidates(key))) for kind in types or ()})

    def candidates(self, key: str) -> Mapping[str, Layer]:
        """An entry selects among what can be pruned; an exception may name any layer."""
        return self.layers if key.startswith("exclude_") else self.eligible

    def compile(self, key: str, pattern: str) -> re.Pattern[str]:
        try:
            return re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"{self.place}.{key}: {pattern!r} is no regular expression: {error}.") from None

    def union(self, key: str, found: Mapping[str, Sequence[str]]) -> set[str]:
        for word, names in found.items():
            if not names:
                raise self.unmatched(key, word)
        return {name for names in found.values() for name in names}

    def unmatched(self, key: str, word: str) -> ConfigError:
        where = f"{self.place}.{key}: {word!r}"
        if not self.layers:
            return ConfigError(self.barren())
        if word in self.layers and not key.endswith("types"):
            kind = self.layers[word].op_type
            return ConfigError(
                f"{where} is {'an' if kind[0] in 'AEIO' else 'a'} {kind}, which {self.untreated([word], 'has', 'its')}. {_LIST}"
            )
        if key.endswith("types"):
            return ConfigError(self.wrong_type(where, word))
        return ConfigError(f"{where} matches no layer{nearest(word, self.candidates(key))}. {_LIST}")

    def wrong_type(self, where: str, word: str) -> str:
        if any(_of_type(word, self.layers)):
            return f"{where} matches only layers that {self.untreated(_of_type(word, self.layers), 'have', 'their')}. {_LIST}"
        eligible = self.eligible.values()
        # The neutral names come first: of two that are equally near, they are the ones to recommend.
        known = list(dict.fromkeys([*(layer.op_type for layer in eligible), *(kind for layer in eligible for kind in layer.op_types)]))
        return f"{where} matches no layer{nearest(word, known)}. The model has {', '.join(known)}. {_LIST}"

    def untreated(self, names: Iterable[str], have: str, their: str) -> str:
        """Return what layers lack that cannot be selected, and what to do."""
        if self.by.treated == CHANNELED and not any(self.layers[name].prunable for name in names):
            return f"{have} no output channels of {their} own to prune; name the layers before"
        found = dict.fromkeys(layer.op_type for layer in self.layers.values() if self.by.treats(layer))
        works = f"it works on {self.by.treated}, here {', '.join(found) or 'none'}"
        return f"{self.by.name!r} does not work on ({works}); leave that out, or name another algorithm (`nnc algorithms`) for it"

    def barren(self) -> str:
        named = f": {self.by.name!r} works on {self.by.treated}" if self.by.treated != CHANNELED else ""
        return f"{self.place}: the model has no layer that can be pruned{named}. {_LIST}"


def _of_type(kind: str, layers: Mapping[str, Layer]) -> Iterator[str]:
    """Yield the layers of a type; "default" is NNI's word for every type that can be pruned."""
    direct = [name for name, layer in layers.items() if kind in layer.op_types or (kind == "default" and layer.prunable)]
    alias = ALIASES.get(kind)
    yield from direct or (name for name, layer in layers.items() if alias in layer.op_types)
