"""Files behind a URL (``s3://``, ``gs://``, ``https://``, …), fetched whole into a folder on this machine's disk.

Anything that fsspec (https://filesystem-spec.readthedocs.io) reads will do; it also finds the credentials.
"""

import collections
import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsspec  # type: ignore[import-untyped]

from zoobot.errors import SettingError, ShardError
from zoobot.files import replace_atomically

__all__ = ["RemoteFiles", "fetch_file", "find_cache", "is_url", "list_files", "read_remote"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+://")
_PAUSES = (1.0, 5.0)  # seconds before trying again
_HOPELESS = (FileNotFoundError, PermissionError, ImportError)
_SHARE_OF_DISK = 0.9
_NEVER_OPENED = 0
_POLL = 0.1


def is_url(path: str | Path) -> bool:
    """Whether a path is a URL, and so not on this machine.

    >>> is_url("s3://bucket/shards"), is_url("folder/shards")
    (True, False)
    """
    text = str(path)
    return "://" in text and _URL.match(text) is not None


def read_remote(url: str) -> bytes:
    """Read a small file.

    Raises:
        ShardError: it is not there or cannot be reached, three times in a row.
    """
    for pause in _PAUSES:
        try:
            return _read_once(url)
        except ShardError as error:
            if isinstance(error.__cause__, _HOPELESS):
                raise
            time.sleep(pause)
    return _read_once(url)


def _read_once(url: str) -> bytes:
    with _explain(url):
        filesystem, path = fsspec.core.url_to_fs(url)
        return bytes(filesystem.cat_file(path))


def list_files(url: str, suffix: str) -> list[str]:
    """The names of the files in a folder that end with ``suffix``, sorted.

    Raises:
        ShardError: it is not there or cannot be reached.
    """
    with _explain(url):
        filesystem, path = fsspec.core.url_to_fs(url)
        names = (str(name).rstrip("/").rpartition("/")[2] for name in filesystem.ls(path, detail=False))
        return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))


def find_cache(cache_dir: str | Path | None, cache_gb: float | None) -> tuple[Path, int]:
    """The folder to fetch to, and how many bytes it may hold.

    Args:
        cache_dir: the folder; ``ZOOBOT_CACHE_DIR``, or ``~/.cache/zoobot``, when left out.
        cache_gb: its size in 10⁹ bytes; ``ZOOBOT_CACHE_GB``, or nine tenths of what is free, when left out.

    Raises:
        SettingError: the size is no positive number.
    """
    folder = Path(cache_dir or os.environ.get("ZOOBOT_CACHE_DIR") or Path.home() / ".cache" / "zoobot")
    folder.mkdir(parents=True, exist_ok=True)
    size = cache_gb if cache_gb is not None else os.environ.get("ZOOBOT_CACHE_GB")
    if size is None:
        held = sum(used.size for used in _held(folder))
        return folder, int(_SHARE_OF_DISK * (shutil.disk_usage(folder).free + held))
    try:
        limit = int(float(size) * 1e9)
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise SettingError(f"cache_gb (ZOOBOT_CACHE_GB) is {size}; expected a positive number of gigabytes")
    return folder, limit


def fetch_file(url: str, path: Path, verify: Callable[[Path], object]) -> None:
    """Fetch a file, unless it is there; several processes may want it at once, and one of them fetches it.

    Raises:
        ShardError: it is not there, cannot be reached, or ``verify`` raises one, three times in a row.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(f".lock-{path.name}")):
        for pause in (*_PAUSES, None):
            if path.exists():
                return
            try:
                with _explain(url), replace_atomically(path) as temporary:
                    filesystem, remote = fsspec.core.url_to_fs(url)
                    filesystem.get_file(remote, str(temporary))
                    verify(temporary)
                    os.utime(temporary, (_NEVER_OPENED, time.time()))
            except ShardError as error:
                if error.__cause__ is None:  # what came is not what it should be
                    error = ShardError(f"{url} is torn or corrupt: {error}; upload it again")
                if pause is None or isinstance(error.__cause__, _HOPELESS):
                    raise error from error.__cause__
                time.sleep(pause)


class RemoteFiles:
    """Files behind a URL, of which as many are kept on disk as fit; the longest unused go first.

    Args:
        url: the folder that they are in.
        folder: where they go.
        names: theirs, relative to both.
        sizes: in bytes.
        verify: raises ShardError if the file of that number is not what it should be, at that path.
        limit: how many bytes ``cache_dir`` may hold.
        cache_dir: the folder which is kept to the limit; ``folder`` is in it.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        names: Sequence[str],
        sizes: Sequence[int],
        verify: Callable[[int, Path], object],
        *,
        limit: int,
        cache_dir: Path,
    ) -> None:
        self.paths = [folder / name for name in names]
        self.urls = [f"{url}/{name}" for name in names]
        self.sizes = list(sizes)
        self._verify = verify
        self._limit, self._cache_dir = limit, cache_dir
        self._plan: collections.deque[int] = collections.deque()
        self._thread: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the thread behind when a loader's worker is given a copy."""
        return {**self.__dict__, "_plan": collections.deque(), "_thread": None}

    def open(self, number: int) -> Path:
        """Where the file is, fetched if need be.

        Raises:
            ShardError: it cannot be fetched, or is not what it should be.
        """
        path = self.paths[number]
        self._fetch(number)
        with contextlib.suppress(FileNotFoundError):  # another process may have needed the room
            os.utime(path)
        return path

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Fetch these files, in this order, in the background; instead of those asked for before."""
        self._plan = collections.deque(numbers)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work_off, daemon=True)
            self._thread.start()

    def _work_off(self) -> None:
        ahead: list[int] = []
        while True:
            plan = self._plan
            try:
                number = plan.popleft()
            except IndexError:
                return
            if self.paths[number].exists():
                continue
            # not so far ahead that it would push out what is in use
            while plan is self._plan:
                ahead = [other for other in ahead if _is_unopened(self.paths[other])]
                if sum(self.sizes[other] for other in ahead) + self.sizes[number] <= self._limit // 4:
                    break
                time.sleep(_POLL)
            else:
                continue
            with contextlib.suppress(ShardError, OSError):  # whoever needs the file meets the error
                self._fetch(number)
                ahead.append(number)

    def _fetch(self, number: int) -> None:
        if self.paths[number].exists():
            return
        self._make_room(self.sizes[number])
        fetch_file(self.urls[number], self.paths[number], lambda temporary: self._verify(number, temporary))

    def _make_room(self, size: int) -> None:
        held = sorted(_held(self._cache_dir), key=lambda file: file.used)
        excess = sum(file.size for file in held) + size - self._limit
        for file in held:
            if excess <= 0:
                return
            with contextlib.suppress(OSError):  # another process was quicker, or has it open on Windows
                file.path.unlink()
                excess -= file.size


class _Held(NamedTuple):
    path: Path
    size: int
    used: int


def _held(cache_dir: Path) -> Iterator[_Held]:
    for path in cache_dir.rglob("[!.]*.tfrecord"):
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()
            yield _Held(path, facts.st_size, facts.st_mtime_ns)


def _is_unopened(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_atime_ns == _NEVER_OPENED
    return False


@contextlib.contextmanager
def _explain(url: str) -> Iterator[None]:
    """Turn whatever a file system raises into one error: each has its own kinds, and few are OSErrors."""
    try:
        yield
    except ShardError:
        raise
    except FileNotFoundError as error:
        raise ShardError(f"there is no {url}") from error
    except ImportError as error:
        raise ShardError(f"{url} cannot be read: {error}; `pip install zoobot[cloud]` has s3fs and gcsfs") from error
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise ShardError(
            f"{url} cannot be fetched: {reason[:300]}; check the address, the network and the credentials"
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock among processes; where there is none (Windows), a file may be fetched twice, which does no harm."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # not only closed: a process forked meanwhile holds it too
