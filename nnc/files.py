"""Files that are written at the end of long work: a path that cannot be written is found before it begins."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from os import W_OK, PathLike, access
from pathlib import Path

from nnc.errors import ConfigError, StorageError, nearest


def check_writable(path: str | PathLike[str], place: str, suffixes: Collection[str] = ()) -> None:
    """Raise `ConfigError` where no file can be written at `path`, or not with its suffix; nothing is written. `place` says whose it is."""
    file = Path(path)
    if suffixes and file.suffix not in suffixes:
        raise ConfigError(f"{place}: {str(path)!r} ends in none of {', '.join(suffixes)}{nearest(file.suffix, suffixes)}.")
    if file.is_dir():
        raise ConfigError(f"{place}: {str(path)!r} is a folder; name a file in it.")
    if not file.parent.is_dir():
        raise ConfigError(f"{place}: {str(path)!r} cannot be written: there is no folder {str(file.parent)!r}.")
    if not access(file if file.exists() else file.parent, W_OK):
        raise ConfigError(f"{place}: {str(path)!r} cannot be written: permission is denied.")


@contextmanager
def writing(path: str | PathLike[str]) -> Iterator[None]:
    """Turn what the file system says against writing `path` into a `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}.") from None
