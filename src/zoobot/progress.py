"""The progress bar of every long command."""

import contextlib
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["Advance", "progress_bar"]


class Advance(Protocol):
    """What moves a bar."""

    def __call__(self, done: int, note: str = "") -> None:
        """Add the number just done, and show a note (the loss, say) at the end of the bar."""


class _RateColumn(ProgressColumn):
    """How many a second since the start: steadier than the rate of the last moments."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["done_before"]
        rate = done / task.elapsed if task.elapsed else 0.0
        return Text(f"{rate:.1f} {self._unit}/s", style="progress.data.speed")


@contextlib.contextmanager
def progress_bar(
    description: str, total: int, *, unit: str = "galaxies", done: int = 0, show: bool = True
) -> Iterator[Advance]:
    """Show a bar on standard error; call what it gives with the number just done, and a note if you like.

    ``done`` were there already when it began, of an interrupted run, say.

    Where standard error is no terminal (a batch job's log) only the finished bar is printed.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not show) as progress:
        task = progress.add_task(description, total=total, completed=done, done_before=done, note="")

        def advance(done: int, note: str = "") -> None:
            progress.advance(task, done)
            if note:
                progress.update(task, note=note)

        yield advance
