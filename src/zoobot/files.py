"""Writing files so that a reader never sees half of one."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from zoobot.errors import SettingError

__all__ = ["delete_leftovers", "replace_atomically"]


@contextlib.contextmanager
def replace_atomically(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success flush it to disk and rename it to ``path``.

    The temporary file lies in the same folder and keeps the suffix, since many writers choose their format by it.
    After an exception nothing of it is left and ``path`` is as it was.
    After a kill the temporary file may stay; its name begins with ``.tmp-``, nothing reads it, and
    :func:`delete_leftovers` deletes it.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replace_atomically(folder / "votes.csv") as temporary:
    ...     _ = temporary.write_text("id_str")
    >>> [path.name for path in folder.iterdir()]
    ['votes.csv']
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a folder, or worse: a device
        raise SettingError(f"{path} is a folder or a device; name a file to write")
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


def delete_leftovers(folder: str | Path) -> None:
    """Delete the temporary files in ``folder``, and in those inside, whose process runs no more on this machine."""
    for path in Path(folder).rglob(".tmp-*"):
        process = re.match(r"\.tmp-(\d+)-", path.name)
        if process and not _is_running(int(process[1])):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is somebody else's
        return True
    # one that has ended keeps its number until its parent asks after it, which in containers may be never
    status = Path(f"/proc/{process}/status")
    return not (status.exists() and "\nState:\tZ" in status.read_text())
