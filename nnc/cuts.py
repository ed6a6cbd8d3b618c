"""Give a slice in the user's code other bounds, after some of what it took, or of what lies before it, has left.

    y[:, 12:]      six of the first twelve leave                     y[:, 6:]
    y[..., ::2]    what is left of every second no longer is one     y[..., [0, 1, 3]]

A key with several parts becomes a chain where one of them turns into a list, in the order in which it was taken: `y[:, 1:9, ::2]` is
`y[:, 1:9][:, :, [0, 1, 3]]`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from nnc.expressions import attribute, number, swap
from nnc.graph.plan import Reshape

#: What a list of places is handed to where a framework's tensors cannot be indexed with one.
TAKE = "_nnc_take"

#: One part of one key: `y[a, b:c]` is two of them.
Part = tuple[ast.Subscript, int]


def bounds(tree: ast.AST, reshape: Reshape, owner: Any) -> list[Part]:
    """Return the slices in the code that fit best what `reshape` says was taken; it is clear which is meant where that is one."""
    found = [
        (fit, (subscript, place))
        for subscript in ast.walk(tree)
        if isinstance(subscript, ast.Subscript)
        for place, part in enumerate(_parts(subscript))
        if isinstance(part, ast.Slice) and (fit := _fit(subscript, place, part, reshape, owner)) is not None
    ]
    return [part for fit, part in found if fit == max(fit for fit, _ in found)]


def held(part: Part, reshape: Reshape, owner: Any) -> dict[str, int]:
    """Return the attributes of `owner` that give all the bounds that change, with their new values; `{}` where some are given otherwise."""
    key = _parts(part[0])[part[1]]
    assert isinstance(key, ast.Slice)
    if not _even(reshape):
        return {}
    changes = [(each, new) for each, new, changes in _changes(key, reshape) if changes and each is not None]
    names = [attribute(each, owner) for each, _ in changes]
    return {name: new for name, (_, new) in zip(names, changes, strict=True) if name} if all(names) else {}


def recut(tree: ast.AST, part: Part, reshape: Reshape, take: bool) -> None:
    """Change the slice in the tree; with `take`, places go to a function of that name instead of between brackets."""
    subscript, place = part
    key = _parts(subscript)[place]
    assert isinstance(key, ast.Slice)
    if not _even(reshape):
        swap(tree, subscript, _chain(subscript, place, reshape.new, take))
        ast.fix_missing_locations(tree)
        return
    lower, upper = ((ast.Constant(new) if changes else each) for each, new, changes in _changes(key, reshape))
    key.lower, key.upper = lower, upper
    ast.fix_missing_locations(tree)


def _even(reshape: Reshape) -> bool:
    """Tell whether what is taken still lies in a row."""
    return abs(reshape.old[2]) == 1


def _changes(key: ast.Slice, reshape: Reshape) -> Iterator[tuple[ast.expr | None, int, bool]]:
    """Yield each bound, what it must be, and whether it has to change: an open end follows by itself."""
    for each, old, new in zip((key.lower, key.upper), reshape.old, reshape.new, strict=False):
        yield each, new, each is not None and old != new


def _parts(subscript: ast.Subscript) -> list[ast.expr]:
    return subscript.slice.elts if isinstance(subscript.slice, ast.Tuple) else [subscript.slice]


def _fit(subscript: ast.Subscript, place: int, part: ast.Slice, reshape: Reshape, owner: Any) -> tuple[bool, int] | None:
    """Say how well a slice fits: on the line, how many of its bounds are known to be equal. None where it does not fit.

    Off the line, as in a fresh process whose file has moved on, all that change must be known.
    """
    start, stop, step, size = reshape.old
    on_line = subscript.lineno <= reshape.line <= (subscript.end_lineno or subscript.lineno)
    given = [None if each is None else number(each, owner) for each in (part.lower, part.upper, part.step)]
    unsure = [each is not None and value is None for each, value in zip((part.lower, part.upper, part.step), given, strict=True)]
    if unsure[2] or (any(unsure) and not on_line) or not _on_axis(_parts(subscript), place, *reshape.cut):
        return None
    taken = slice(*given).indices(size)
    fits = (unsure[0] or taken[0] == start) and (unsure[1] or taken[1] == stop) and taken[2] == step
    return (on_line, -sum(unsure)) if fits else None


def _on_axis(parts: list[ast.expr], place: int, axis: int, rank: int) -> bool:
    """Tell whether a part of a key speaks of an axis, of a tensor of `rank` axes from which the parts before it have been taken already.

    Of new axes some frameworks speak at once, others only behind all the rest.
    """
    before, after = parts[:place], parts[place + 1 :]
    if any(_is(part, Ellipsis) for part in before):
        return axis == rank - 1 - sum(not _is(part, None) for part in after)
    own = [part for part in before if isinstance(part, ast.Slice)]
    return axis in (len(own), len(own) + sum(_is(part, None) for part in before))


def _is(part: ast.expr, value: Any) -> bool:
    return isinstance(part, ast.Constant) and part.value is value


def _chain(subscript: ast.Subscript, place: int, places: tuple[int, ...], take: bool) -> ast.expr:
    """Return the chain of subscripts in which one part has become a list of places."""
    parts = _parts(subscript)
    before, after = parts[:place], parts[place + 1 :]
    rest = sum(not _is(part, None) for part in after)
    from_end = any(_is(part, Ellipsis) for part in before)
    kept = sum(isinstance(part, ast.Slice) or _is(part, None) for part in before)
    ahead: list[ast.expr] = [ast.Constant(Ellipsis)] if from_end else _whole(kept)
    behind = _whole(rest) if from_end else []
    value = _indexed(subscript.value, [*before, *(_whole(1 + rest) if from_end else [])])
    listed = ast.List([ast.Constant(each) for each in places], ast.Load())
    if take:
        axis = -1 - rest if from_end else kept
        value = ast.Call(ast.Name(TAKE, ast.Load()), [value, listed, ast.Constant(axis)], [])
    else:
        value = _indexed(value, [*ahead, listed, *behind])
    return ast.copy_location(_indexed(value, [*ahead, *([] if from_end else _whole(1)), *after]), subscript)


def _whole(count: int) -> list[ast.expr]:
    return [ast.Slice() for _ in range(count)]


def _indexed(value: ast.expr, parts: list[ast.expr]) -> ast.expr:
    """Return `value[parts]`, or `value` where that takes all of it."""
    if all(_is(part, Ellipsis) or (isinstance(part, ast.Slice) and not (part.lower or part.upper or part.step)) for part in parts):
        return value
    return ast.Subscript(value, ast.Tuple(parts, ast.Load()), ast.Load())
