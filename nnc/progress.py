"""A progress bar, for work that takes long; shown on a terminal only, beside what the program prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Told how much is done, and what there is to say of it.
Advance = Callable[[int, str], None]


@contextmanager
def bar(label: str, total: int | None, wanted: bool = True) -> Iterator[Advance]:
    """Show a bar while the block runs. `total` None: it is not known how much there is to do."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[news]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not (wanted and console.is_terminal)) as progress:
        task = progress.add_task(label, total=total, news="")
        yield lambda done, news: progress.update(task, completed=done, news=news)
