"""How a prediction gets on: a bar for people, and lines of JSON for batch jobs."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from zoobot.errors import SettingError
from zoobot.predictions.prediction_parts import name_part
from zoobot.progress import progress_bar

__all__ = ["Event", "Tell", "follow_job"]


class Event(NamedTuple):
    """What happened: galaxies were drawn, or a part is done, or it failed.

    Attributes:
        drawn: galaxies drawn since the last event.
        part: the part that is done or failed.
        galaxies: of that part.
        failed: images of that part that could not be read.
        error: why the part failed; empty if it is done.
    """

    drawn: int = 0
    part: int | None = None
    galaxies: int = 0
    failed: int = 0
    error: str = ""


Tell = Callable[[Event], None]


@contextlib.contextmanager
def follow_job(galaxies: int, done: int, log_json: str | Path | None = None) -> Iterator[Tell]:
    """Show a bar, and add a line of JSON to a file for each part that is done or failed.

    A line has ``time`` (ISO 8601, UTC), ``part``, ``galaxies`` (done, of all parts), ``of``, ``failed`` (images that
    could not be read, since the start), ``rate`` (galaxies a second, since the start) and ``eta`` (seconds left), and
    for a part that failed ``error``.

    Args:
        galaxies: how many there are to do.
        done: how many of them were done before.
        log_json: the file; several processes may add to it.

    Raises:
        SettingError: the file cannot be written.
    """
    start, before, failed = time.monotonic(), done, 0
    if log_json is not None:
        _append(log_json, "")
    with progress_bar("predicting", galaxies, done=done) as advance:

        def tell(event: Event) -> None:
            nonlocal done, failed
            if event.drawn:
                advance(event.drawn)
            if event.part is None:
                return
            done, failed = done + event.galaxies, failed + event.failed
            rate = (done - before) / max(time.monotonic() - start, 1e-9)
            if log_json is not None:
                line: dict[str, Any] = {
                    "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                    "part": name_part(event.part),
                    "galaxies": done,
                    "of": galaxies,
                    "failed": failed,
                    "rate": round(rate, 2),
                    "eta": round((galaxies - done) / rate, 1) if rate else None,
                }
                _append(log_json, json.dumps(line | ({"error": event.error} if event.error else {})) + "\n")

        yield tell


def _append(path: str | Path, text: str) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SettingError(f"log_json {path} cannot be written: {error.strerror}; choose another") from error
