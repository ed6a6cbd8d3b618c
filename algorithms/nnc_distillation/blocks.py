"""Find a network's hidden states by the names of its layers: the block that it repeats.

    encoder.layer.0.attention..., encoder.layer.1.attention...         the blocks encoder.layer.{i}
    transformer_layer_0.self_attention..., transformer_layer_1...      the blocks transformer_layer_{i}

A hidden state is what leaves a block, the embeddings are what enters the first one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_NUMBERED = re.compile(r"(.*?)(\d+)$")


def repeated_blocks(names: Iterable[str]) -> list[str]:
    """Return the names of the blocks that hold most of the layers in `names`, the outermost of equals; [] where nothing repeats."""
    found: dict[str, dict[int, set[str]]] = {}
    for name in names:
        for stem, number, inside in _readings(name):
            found.setdefault(stem, {}).setdefault(number, set()).add(inside)
    whole = {stem: blocks for stem, blocks in found.items() if _repeats(blocks)}
    best = max(whole, key=lambda stem: (sum(map(len, whole[stem].values())), -len(stem)), default=None)
    return [] if best is None else [f"{best}{number}" for number in sorted(whole[best])]


def _readings(name: str) -> Iterator[tuple[str, int, str]]:
    """Yield each way to read a layer's name as (stem, block number, name inside the block)."""
    parts = name.split(".")
    for place, part in enumerate(parts[:-1]):
        numbered = _NUMBERED.match(part)
        if numbered:
            yield ".".join([*parts[:place], numbered[1]]), int(numbered[2]), ".".join(parts[place + 1 :])


def _repeats(blocks: dict[int, set[str]]) -> bool:
    """Tell whether blocks are counted from 0 or 1 without a gap, and each has half of its layers, or more, in common with the first."""
    first = min(blocks)
    # One block counts if it is number 0: Keras calls the second model of a process bert_backbone_1.
    if first > 1 or (first == 1 and len(blocks) == 1) or sorted(blocks) != list(range(first, first + len(blocks))):
        return False
    return all(2 * len(inside & blocks[first]) >= len(inside) for inside in blocks.values())
