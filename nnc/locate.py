"""Find the model that a command line names.

net.py:build            the function, the class or the model `build` of a file
package.module:build    the same of an importable module
out/lenet               a folder that `nnc.save` wrote
model.keras             a file in a framework's own format
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, TypeVar

from nnc.errors import ConfigError, ModelError, nearest
from nnc.registry import recognise, registry
from nnc.storage import load

Result = TypeVar("Result")


def locate(reference: str) -> Any:
    """Return the model that `reference` names, built if it names what builds it.

    Raises `ConfigError` where nothing is found, `ModelError` where the user's code fails; the message names its line.
    """
    home, colon, name = reference.rpartition(":")
    if colon and not Path(reference).exists():
        return _built(reference, _named(reference, _module(home), name))
    return _from_disk(Path(reference))


def _from_disk(path: Path) -> Any:
    if path.is_dir():
        return load(path)
    readers = registry().files
    if not path.exists():
        raise ConfigError(f"model: {str(path)!r} is no file. Write file.py:build, package.module:build, or the path of a saved model.")
    if path.suffix not in readers:
        known = ", ".join(sorted(readers)) or "none"
        raise ConfigError(f"model: {str(path)!r} is of no format that nnc reads ({known}). For code, write {path}:build.")
    return _run(str(path), partial(readers[path.suffix], path))


def _module(home: str) -> ModuleType:
    if home.endswith(".py"):
        return _file_module(Path(home))
    # What `python -m` would find: a command line's modules lie in the current folder.
    _search(Path.cwd())
    return _run(home, partial(import_module, home))


def _file_module(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"model: there is no file {str(path)!r}.")
    _search(path.parent.resolve())
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loader = spec.loader
    module = module_from_spec(spec)
    # Classes of the file must be found by their module's name, as `inspect` and pickling do.
    sys.modules[path.stem] = module
    _run(str(path), lambda: loader.exec_module(module))
    return module


def _search(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _named(reference: str, module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        raise ConfigError(f"model: {reference!r}: {module.__name__} has no {name!r}{nearest(name, vars(module))}.")
    return getattr(module, name)


def _built(reference: str, found: Any) -> Any:
    return found if recognise(found) is not None or not callable(found) else _run(reference, found)


def _run(reference: str, call: Callable[[], Result]) -> Result:
    """Run the user's code. Raises `ModelError` that says where it failed."""
    try:
        return call()
    except Exception as error:
        line = extract_tb(error.__traceback__)[-1]
        raise ModelError(f"{reference}: {type(error).__name__}: {error} ({line.filename}:{line.lineno}).") from error
