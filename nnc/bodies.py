"""Whose code gives a layer a size: a method of the layer, or a function that one calls.

    def forward(self, x):
        return attention(x, self.weight, self.heads)        the size is in `attention`, which other layers call too

A function is changed for one layer: the method that calls it gets a copy in which the name means the changed function, and so does every
function of the same file on the way there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

from nnc.graph.plan import Reshape
from nnc.resize import called, calling

Function = Callable[..., Any]


class Body:
    """The function whose code gives a size, and the ways from a layer's methods to it."""

    def __init__(self, owner: Any, function: Function, ways: list[tuple[str, ...]]) -> None:
        self.function = function
        self._owner, self._ways = owner, ways

    def is_method(self, name: str) -> bool:
        """Tell whether it is the layer's method of that name."""
        return self._ways == [(name,)]

    def replace(self, new: Function, reshape: Reshape) -> dict[str, MethodType]:
        """Return the methods of the layer through which it runs `new` instead, by their names. Raises `SpeedupError` as `resized` does."""
        found: dict[str, MethodType] = {}
        for method, *names in self._ways:
            so_far = found.get(method) or getattr(self._owner, method)
            found[method] = MethodType(_through(so_far.__func__, names, new, reshape, self._owner), self._owner)
        return found


def body(owner: Any, qualname: str, default: str) -> Body | None:
    """Return the code of a layer that is called `qualname`, as the interpreter names it; `default` is the method of a name that is empty.

    None where no method of the layer has that name, and no function that a method calls by name.
    """
    # A lambda, a comprehension or an inner function stands in the source of the function around it.
    scopes = reversed((qualname or default).split(".<locals>."))
    return next((found for scope in scopes if (found := _named(owner, *scope.rpartition(".")[::2])) is not None), None)


def _named(owner: Any, cls: str, name: str) -> Body | None:
    method = getattr(owner, name, None)
    ways = [(method, *way) for method, function in _methods(owner) for way in _ways(function, name)] if not cls else []
    if ways:
        return Body(owner, _at(getattr(owner, ways[0][0]).__func__, ways[0][1:]), ways)
    return Body(owner, method.__func__, [(name,)]) if isinstance(method, MethodType) else None


def _methods(owner: Any) -> Iterator[tuple[str, Function]]:
    for name in dict.fromkeys(name for cls in type(owner).__mro__ for name, value in vars(cls).items() if isinstance(value, FunctionType)):
        method = getattr(owner, name)
        if isinstance(method, MethodType):
            yield name, method.__func__


def _ways(function: Function, name: str, seen: frozenset[Function] = frozenset()) -> Iterator[tuple[str, ...]]:
    """Yield the names by which a function reaches the one called `name`, through functions of its own file."""
    for each, callee in called(function).items():
        if callee.__name__ == name:
            yield (each,)
        elif callee not in seen and callee.__module__ == function.__module__:
            yield from ((each, *way) for way in _ways(callee, name, seen | {function}))


def _at(function: Function, names: tuple[str, ...]) -> Function:
    for name in names:
        function = called(function)[name]
    return function


def _through(function: Function, names: list[str], new: Function, reshape: Reshape, owner: Any) -> Function:
    """Return a copy of a function that reaches `new` by names."""
    if not names:
        return new
    first, *rest = names
    inner = _through(called(function)[first], rest, new, reshape, owner)
    return calling(function, {first: inner}, reshape, owner)
