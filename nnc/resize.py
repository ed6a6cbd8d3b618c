"""Give the user's own `forward` or `call` another size where it hard-codes one.

    x = x.view(-1, 4 * 4 * 50)        after conv2 went from 50 to 25 channels        x = x.view(-1, 400)

The method is compiled again from its source with that one expression replaced, and works on one instance only: the user's class, file,
line numbers, control flow and training flags stay. The call is found by its sizes and its line, so it is found again in a fresh
process, where `nnc.load` applies the same plan to the user's class.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nnc.errors import SpeedupError
from nnc.graph.plan import Reshape


def resized(function: Callable[..., Any], reshape: Reshape) -> Callable[..., Any]:
    """Return a copy of a function in which the call that `reshape` describes has its new sizes.

    Decorators and closures are kept. Raises `SpeedupError` where the source is not available, or where no call, or more than
    one, fits; the message names the line and what to write there instead.
    """
    original, earlier = getattr(function, _MARK, (function, ()))
    tree = _parsed(original, reshape)
    # One after the other: a model that is shrunk twice has the first plan's new size as the second's old one.
    for each in (*earlier, reshape):
        _replace(_call(tree, each, original), each)
    result = _compiled(tree, original)
    setattr(result, _MARK, (original, (*earlier, reshape)))
    return result


#: On a resized function: the user's own, and what was changed. Its source is the user's, so a further change starts from there.
_MARK = "_nnc_resized"


def _call(tree: ast.FunctionDef, reshape: Reshape, function: Callable[..., Any]) -> ast.Call:
    """Return the one call that `reshape` describes, the one on its line where several fit."""
    fitting = list(_fitting(tree, reshape))
    on_line = [call for call in fitting if call.lineno <= reshape.line <= (call.end_lineno or call.lineno)]
    chosen = on_line or fitting
    if len(chosen) != 1:
        raise _refusal(reshape, f"{len(chosen)} calls in {function.__qualname__} have these sizes, so it cannot be told which to change")
    return chosen[0]


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


def _fitting(tree: ast.FunctionDef, reshape: Reshape) -> Iterator[ast.Call]:
    """Yield the calls whose last arguments can be the sizes: literals equal to the old ones, at least one of those that change."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            sizes = _size_expressions(call, len(reshape.old))
            if sizes is not None and _fits(sizes, reshape):
                yield call


def _size_expressions(call: ast.Call, count: int) -> Sequence[ast.expr] | None:
    """Return the last `count` sizes that a call is given, looking into a tuple or list of them; None where it has fewer."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    if given and isinstance(given[-1], (ast.Tuple, ast.List)):
        given = list(given[-1].elts)
    if len(given) < count or any(isinstance(size, ast.Starred) for size in given[-count:]):
        return None
    return given[-count:]


def _fits(sizes: Sequence[ast.expr], reshape: Reshape) -> bool:
    """Tell whether every literal equals the old size; what is not a literal may be anything, but not throughout."""
    values = [_number(size) for size in sizes]
    agree = all(value is None or value == old for value, old in zip(values, reshape.old, strict=True))
    return agree and any(value is not None for value in values)


def _number(expression: ast.expr) -> int | None:
    """Return the value of an expression made of integer literals only (`4 * 4 * 50`), else None."""
    allowed = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
    if not all(isinstance(part, allowed) for part in ast.walk(expression)):
        return None
    value = eval(compile(ast.Expression(expression), "<size>", "eval"), {"__builtins__": {}})  # literals and arithmetic only, checked above
    return value if isinstance(value, int) else None


def _replace(call: ast.Call, reshape: Reshape) -> None:
    """Put the new sizes in the place of those that change."""
    for expression, old, new in zip(_size_expressions(call, len(reshape.old)) or (), reshape.old, reshape.new, strict=True):
        if old != new:
            for parent in ast.walk(call):
                _swap(parent, expression, ast.copy_location(ast.Constant(new), expression))


def _swap(parent: ast.AST, old: ast.expr, new: ast.expr) -> None:
    for name, value in ast.iter_fields(parent):
        if value is old:
            setattr(parent, name, new)
        elif isinstance(value, list):
            value[:] = [new if item is old else item for item in value]


def _compiled(tree: ast.FunctionDef, function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a changed function in the scope of the original one: its globals, its closure, its file and lines."""
    plain: Any = inspect.unwrap(function)
    free = plain.__code__.co_freevars
    scope = ast.parse("def scope(): pass").body[0]
    assert isinstance(scope, ast.FunctionDef)
    scope.args.args = [ast.arg(name) for name in free]
    scope.body = [tree, ast.Return(ast.Name(tree.name, ast.Load()))]
    module = ast.fix_missing_locations(ast.Module([scope], []))
    made: dict[str, Any] = {}
    code = compile(module, plain.__code__.co_filename, "exec", flags=plain.__code__.co_flags & _FUTURE, dont_inherit=True)
    exec(code, plain.__globals__, made)
    cells = [cell.cell_contents for cell in plain.__closure__ or ()]
    result: Callable[..., Any] = made["scope"](*cells)
    inner: Any = inspect.unwrap(result)
    inner.__qualname__ = plain.__qualname__
    if hasattr(plain.__code__, "co_qualname"):  # Python 3.11; it is what a traceback, and a trace of the small model, shows
        inner.__code__ = inner.__code__.replace(co_qualname=plain.__code__.co_qualname)
    return result


_FUTURE = 0x1000000  # from __future__ import annotations


def _refusal(reshape: Reshape, why: str) -> SpeedupError:
    place = f"{reshape.function or 'the forward code'}, line {reshape.line}"
    sizes = f"{reshape.op} hard-codes the sizes {list(reshape.old)}, which must become {list(reshape.new)}"
    return SpeedupError(f"{place}: {sizes}: {why}. Write -1 there, or take the size from the tensor's shape.")
