"""Writing files so that a reader never sees half of one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["replace_atomically"]


@contextlib.contextmanager
def replace_atomically(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success flush it to disk and rename it to ``path``.

    The temporary file lies in the same folder and keeps the suffix, since many writers choose their format by it.
    After an exception nothing of it is left and ``path`` is as it was.
    After a kill the temporary file may stay; its name begins with ``.tmp-`` and nothing reads it.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replace_atomically(folder / "votes.csv") as temporary:
    ...     _ = temporary.write_text("id_str")
    >>> [path.name for path in folder.iterdir()]
    ['votes.csv']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
