"""Writing files so that a reader never sees half of one."""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoobot.errors import SettingError

__all__ = ["claim_folder", "delete_leftovers", "replace_atomically"]


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


def claim_folder(folder: str | Path, marker: str, settings: Mapping[str, Any]) -> None:
    """Take a new folder for the work that settings describe, or see that it was taken for the same, and go on.

    Args:
        folder: made if need be.
        marker: name of the JSON file in it that holds the settings.
        settings: ready for JSON, by the names that their user knows.

    Raises:
        SettingError: the folder holds something else, or the same with other settings, which are named.
    """
    folder, path = Path(folder), Path(folder) / marker
    if path.exists():
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
            if found is None:  # a pipe would be waited for
                raise ValueError("it is no file")
        except (ValueError, TypeError) as error:
            raise SettingError(f"{path} cannot be read; delete {folder}, or choose another folder") from error
        wanted = json.loads(json.dumps(settings))  # lists for tuples, as they were written
        changed = [name for name in wanted if found.get(name) != wanted[name]]
        if changed:
            raise SettingError(
                f"{folder} was made with another {' and '.join(changed)}; delete it, or choose another folder"
            )
        delete_leftovers(folder)
        return
    others = [other for other in folder.iterdir() if not other.name.startswith(".tmp-")] if folder.is_dir() else []
    if others or (folder.exists() and not folder.is_dir()):
        raise SettingError(f"{folder} holds something else; choose a new folder")
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    delete_leftovers(folder)


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
