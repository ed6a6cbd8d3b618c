"""Give the user's own `forward` or `call` another size where it hard-codes one.

    x = x.view(-1, 4 * 4 * 50)        after conv2 went from 50 to 25 channels        x = x.view(-1, 400)
    x = x.view(shape)                 after half of the last axis left               x = x.view((shape[0], shape[1], 12))
    y = x[:, 12:]                     after six of the first twelve channels left    y = x[:, 6:]
    y = x[:, [0, 2, 3]]               after the second and the third left            y = x[:, [0, 1]]

The method is compiled again from its source with that one expression replaced, and works on one instance only: the user's class, file,
line numbers, control flow and training flags stay. The call is found by its sizes and its line, so it is found again in a fresh
process, where `nnc.load` applies the same plan to the user's class.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import CodeType, FunctionType
from typing import Any

from nnc import cuts, lookups
from nnc.errors import SpeedupError
from nnc.expressions import attribute, listed, number, swap
from nnc.graph.plan import Reshape, Size

#: Gathers places along an axis: `take(x, [0, 1, 3], axis)`.
Take = Callable[[Any, list[int], int], Any]


def resized(function: Callable[..., Any], reshape: Reshape, owner: Any = None, take: Take | None = None) -> Callable[..., Any]:
    """Return a copy of a method in which the call, or the slice, that `reshape` describes has its new sizes.

    `owner` is the instance that it runs on, to look up `self.size`; `take(x, places, axis)` gathers for a framework whose tensors no list
    can index. Decorators and closures are kept. Raises `SpeedupError` where the source is not available, or where nothing, or more than
    one place, fits; the message names the line and what to write there.
    """
    made = _made(function)
    return _make(replace(made, changes=(*made.changes, reshape), take=take or made.take), reshape, owner)


def calling(function: Callable[..., Any], callees: Mapping[str, Callable[..., Any]], reshape: Reshape, owner: Any) -> Callable[..., Any]:
    """Return a copy of a function in whose code global names mean other functions, as `reshape` asks. Raises as `resized` does."""
    made = _made(function)
    return _make(replace(made, callees={**made.callees, **callees}), reshape, owner)


def called(function: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Return the plain functions that the code of a function names, by these names and as it sees them now."""
    made = _made(function)
    plain = inspect.unwrap(made.original)
    if not isinstance(plain, FunctionType):
        return {}
    found = {name: made.callees.get(name) or plain.__globals__.get(name) for name in _names(plain.__code__)}
    return {name: function for name, function in found.items() if isinstance(function, FunctionType)}


def _names(code: CodeType) -> Iterator[str]:
    """Yield the global names and attributes in a function's code, in that of its lambdas and comprehensions too."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def held_sizes(function: Callable[..., Any], reshape: Reshape, owner: Any) -> tuple[Size, ...]:
    """Return the attributes of `owner` that give all the sizes that change; `()` where some are given otherwise.

    `x.split(self.split_size, dim=2)` needs no other code, only another `split_size`; `split_size` may be a list.
    """
    made = _made(function)
    original, tree = made.original, _replayed(made, reshape, owner)
    if reshape.looked_up:
        _list(tree, reshape, original, owner)
        return ()
    if reshape.cut:
        return _held(cuts.held(_bounds(tree, reshape, original, owner), reshape, owner), reshape, owner)
    sizes = _sizes_at_the_call(tree, reshape, original, owner)
    if isinstance(sizes, _Whole):
        found = listed(sizes.expression, owner)
        return (Size(reshape.layer, found[0], reshape.old, reshape.new),) if found else ()
    changed = [(size, new) for size, old, new in zip(sizes, reshape.old, reshape.new, strict=True) if old != new and size is not None]
    names = [attribute(size, owner) for size, _ in changed]
    new = {name: new for name, (_, new) in zip(names, changed, strict=True) if name}
    return _held(new, reshape, owner) if all(names) else ()


def _held(new: Mapping[str, int], reshape: Reshape, owner: Any) -> tuple[Size, ...]:
    return tuple(Size(reshape.layer, name, getattr(owner, name), value) for name, value in new.items())


@dataclass(frozen=True)
class _Whole:
    """One expression that gives all sizes, as in `x.view(shape)`, `x.view(*shape)` and `x.split(self.parts)`."""

    expression: ast.expr

    def changed(self, reshape: Reshape) -> ast.Tuple:
        """Return the new sizes one by one: those that stay are still taken from the expression."""
        sizes: list[ast.expr] = [
            ast.Subscript(self.expression, ast.Constant(place), ast.Load()) if old == new else ast.Constant(new)
            for place, (old, new) in enumerate(zip(reshape.old, reshape.new, strict=True))
        ]
        return ast.Tuple(sizes, ast.Load())


#: The expressions that give the sizes of a reshape or a split, None where the code gives none.
Sizes = Sequence[ast.expr | None] | _Whole

#: On a function made here: how it was made.
_MARK = "_nnc_made"


@dataclass(frozen=True)
class _Made:
    """How a function follows from the user's own, from whose source a further change starts again.

    `callees` are what global names mean in it.
    """

    original: Callable[..., Any]
    changes: tuple[Reshape, ...] = ()
    take: Take | None = None
    callees: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


def _made(function: Callable[..., Any]) -> _Made:
    return getattr(function, _MARK, None) or _Made(function)


def _make(made: _Made, reshape: Reshape, owner: Any) -> Callable[..., Any]:
    scope = {**made.callees, **({cuts.TAKE: made.take} if made.take is not None else {})}
    result = _compiled(_replayed(made, reshape, owner), made.original, scope)
    setattr(result, _MARK, made)
    return result


def _replayed(made: _Made, reshape: Reshape, owner: Any) -> ast.FunctionDef:
    """Return a function's syntax tree after its changes, one after the other: a second shrink has the first one's new size as its old one.

    `reshape` is what this is done for.
    """
    original = made.original
    tree = _parsed(original, reshape)
    for each in made.changes:
        if each.cut:
            cuts.recut(tree, _bounds(tree, each, original, owner), each, made.take is not None)
            continue
        if each.looked_up:
            lookups.relist(tree, _list(tree, each, original, owner), each.new, owner)
            continue
        sizes = _sizes_at_the_call(tree, each, original, owner)
        if isinstance(sizes, _Whole):
            swap(tree, sizes.expression, ast.copy_location(sizes.changed(each), sizes.expression))
            continue
        for expression, old, new in zip(sizes, each.old, each.new, strict=True):
            if old != new and expression is not None:
                swap(tree, expression, ast.copy_location(ast.Constant(new), expression))
    return tree


def _bounds(tree: ast.FunctionDef, reshape: Reshape, function: Callable[..., Any], owner: Any) -> cuts.Part:
    """Return the slice that `reshape` speaks of; it must be clear which that is."""
    found = cuts.bounds(tree, reshape, owner)
    if len(found) != 1:
        raise _refusal(reshape, f"{len(found)} slices in {function.__qualname__} take that, so it cannot be told which to change")
    return found[0]


def _list(tree: ast.FunctionDef, reshape: Reshape, function: Callable[..., Any], owner: Any) -> ast.expr:
    """Return the places that `reshape` speaks of; it must be clear which they are."""
    found = lookups.lists(tree, reshape, owner)
    if len(found) != 1:
        raise _refusal(reshape, f"{len(found)} lists in {function.__qualname__} hold these, so it cannot be told which to change")
    return found[0]


def _sizes_at_the_call(tree: ast.FunctionDef, reshape: Reshape, function: Callable[..., Any], owner: Any) -> Sizes:
    """Return the expressions that give the sizes: those that fit best, and it must be clear which these are."""
    found = [
        (fit, sizes)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for sizes in _windows(call, len(reshape.old))
        if (fit := _fit(call, sizes, reshape, owner)) is not None
    ]
    best = [sizes for fit, sizes in found if fit == max(fit for fit, _ in found)]
    if len(best) != 1:
        raise _refusal(reshape, f"{len(best)} calls in {function.__qualname__} have these sizes, so it cannot be told which to change")
    return best[0]


def _fit(call: ast.Call, sizes: Sizes, reshape: Reshape, owner: Any) -> tuple[bool, bool, int] | None:
    """Say how well expressions fit the old sizes: on the call's line, in a call of that name, how many are known to be equal.

    None where they do not fit.

    Off the line, as in a fresh process whose file has moved on, all that change must be known.
    """
    on_line = call.lineno <= reshape.line <= (call.end_lineno or call.lineno)
    if isinstance(sizes, _Whole):
        held = listed(sizes.expression, owner)
        if held is not None:
            return (on_line, True, len(held[1])) if tuple(held[1]) == reshape.old else None
        return (True, True, 0) if on_line else None
    values = [number(size, owner) if size is not None else None for size in sizes]
    if any(value not in (None, old) for value, old in zip(values, reshape.old, strict=True)):
        return None
    if any(size is None and old != new for size, old, new in zip(sizes, reshape.old, reshape.new, strict=True)):
        return None
    unsure = any(value is None and old != new for value, old, new in zip(values, reshape.old, reshape.new, strict=True))
    return None if unsure and not on_line else (on_line, _called(call) in _RESIZING, sum(value is not None for value in values))


#: What users call to regroup or to split, in either framework.
_RESIZING = {"reshape", "Reshape", "view", "unflatten", "split", "expand", "repeat"}
_RESHAPING = {"reshape", "view"}
_SPLITTING = {"split", "split_with_sizes"}


def _called(call: ast.Call) -> str:
    """Return the last name of what is called: `reshape` of `tf.reshape(...)` and of `x.relu().reshape(...)`."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _windows(call: ast.Call, count: int) -> Iterator[Sizes]:
    """Yield every run of `count` arguments of a call that could be sizes, and every tuple or list of `count` among them."""
    if _called(call) == "unflatten" and len(call.args) == 2:
        axis, sizes = call.args
        yield from _unflattened(axis, sizes, count)
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    rows = [given, *(argument.elts for argument in given if isinstance(argument, (ast.Tuple, ast.List)))]
    for row in rows:
        starts = range(len(row) - count + 1) if row is given else range(len(row) == count)
        for start in starts:
            window = row[start : start + count]
            if not any(isinstance(size, (ast.Starred, ast.Tuple, ast.List)) for size in window):
                yield window
    if count > 1 and _called(call) in _SPLITTING and not any(isinstance(each, (ast.Tuple, ast.List)) for each in given):
        unclear = [each for each in given if not isinstance(each, (ast.Constant, ast.UnaryOp, ast.Starred))]
        yield from (_Whole(each) for each in unclear[:2][-1:])  # torch.split(x, parts, axis), x.split(parts, 1)
    if given and count > 1 and _called(call) in _RESHAPING:
        last = given[-1].value if isinstance(given[-1], ast.Starred) else given[-1]
        if not isinstance(last, (ast.Constant, ast.Tuple, ast.List)) and len(given) <= 2:
            yield _Whole(last)


def _unflattened(axis: ast.expr, sizes: ast.expr, count: int) -> Iterator[Sizes]:
    """Yield the sizes of `x.unflatten(-1, (4, 8))` with None for the axes that it does not name."""
    place = number(axis, None)
    if place is not None and isinstance(sizes, (ast.Tuple, ast.List)):
        others = count - len(sizes.elts)
        before = place if place >= 0 else others + place + 1
        if 0 <= before <= others:
            yield [*[None] * before, *sizes.elts, *[None] * (others - before)]


def source_is_available(function: Callable[..., Any]) -> bool:
    """Tell whether Python can read the source of a function (not so for one typed into a plain prompt or piped in)."""
    try:
        inspect.getsource(function)
    except (OSError, TypeError):
        return False
    return True


def _parsed(function: Callable[..., Any], reshape: Reshape) -> ast.FunctionDef:
    """Return a function's syntax tree, numbered as in the user's file."""
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError) as error:
        raise _refusal(reshape, f"the source of {function.__qualname__} is not available") from error
    module = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(module, first - 1)
    tree = module.body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise _refusal(reshape, f"{function.__qualname__} is not a plain function")
    return tree


def _compiled(tree: ast.FunctionDef, function: Callable[..., Any], more: Mapping[str, Any]) -> Callable[..., Any]:
    """Compile a changed function in the scope of the original one, `more` in it: its globals, its closure, its file and lines."""
    plain: Any = inspect.unwrap(function)
    free = (*plain.__code__.co_freevars, *more)
    scope = ast.parse("def scope(): pass").body[0]
    assert isinstance(scope, ast.FunctionDef)
    scope.args.args = [ast.arg(name) for name in free]
    scope.body = [tree, ast.Return(ast.Name(tree.name, ast.Load()))]
    module = ast.fix_missing_locations(ast.Module([scope], []))
    made: dict[str, Any] = {}
    code = compile(module, plain.__code__.co_filename, "exec", flags=plain.__code__.co_flags & _FUTURE, dont_inherit=True)
    exec(code, plain.__globals__, made)
    cells = [*(cell.cell_contents for cell in plain.__closure__ or ()), *more.values()]
    result: Callable[..., Any] = made["scope"](*cells)
    inner: Any = inspect.unwrap(result)
    inner.__qualname__ = plain.__qualname__
    if hasattr(plain.__code__, "co_qualname"):  # Python 3.11; it is what a traceback, and a trace of the small model, shows
        inner.__code__ = inner.__code__.replace(co_qualname=plain.__code__.co_qualname)
    return result


_FUTURE = 0x1000000  # from __future__ import annotations


def _refusal(reshape: Reshape, why: str) -> SpeedupError:
    place = f"{reshape.function or 'the forward code'}, line {reshape.line}"
    return SpeedupError(f"{place}: {reshape.fault}: {why}. {reshape.remedy}")
