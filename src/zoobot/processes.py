"""Work shared out to processes that end with the one that began them."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from zoobot.errors import SettingError

__all__ = ["count_cores", "end_with_parent", "map_in_processes"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def count_cores() -> int:
    """The cores that this process may use (a batch system may allow fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None = None
) -> Generator[tuple[Item, Result], None, None]:
    """Give each item with its result, as they come.

    Args:
        function: what to do; it and the items are sent to the processes, so they must pickle.
        items: what to do it to.
        workers: how many processes, one a core when left out; with one, or one item, it is done in this process.

    Raises:
        SettingError: ``workers`` is less than 1.
    """
    if workers is not None and workers < 1:
        raise SettingError(f"workers: got {workers}, expected at least 1; leave it out for one a core")
    workers = min(workers or count_cores(), len(items))
    if workers <= 1:
        yield from ((item, function(item)) for item in items)
        return
    # fresh processes and no forks: a copy of threads' locks may never be opened again
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    try:
        futures = {pool.submit(function, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException:  # Ctrl-C above all: what is half done is not waited for, and writes nothing
        for process in list((pool._processes or {}).values()):  # Python 3.14 has terminate_workers() for this
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Leave Ctrl-C to the process that began this one, and end if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
