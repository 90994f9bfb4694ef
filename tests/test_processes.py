"""Work in processes: all results, as they come; errors come through; nobody is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoobot.errors import SettingError, ShardError
from zoobot.processes import count_cores, map_in_processes

SCRIPT = """
import os, signal, time
from zoobot.processes import map_in_processes

def work(item):
    os.write(1, b"at work\\n")  # in one piece: print writes the end of the line apart
    time.sleep(60)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    list(map_in_processes(work, [1, 2], workers=2))
"""


def name_process(item: int) -> tuple[int, int]:
    return item * item, os.getpid()


def wait_for(paths: tuple[Path, Path]) -> None:
    """Write the second file, once the first is there."""
    while not paths[0].exists():
        time.sleep(0.01)
    paths[1].touch()


def refuse(item: int) -> int:
    if item == 3:
        raise ShardError("number 3 is torn")
    return item


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_comes_with_its_result(workers: int) -> None:
    results = dict(map_in_processes(name_process, range(7), workers=workers))
    assert {item: square for item, (square, _) in results.items()} == {item: item * item for item in range(7)}
    assert (os.getpid() in {process for _, process in results.values()}) == (workers == 1)


def test_results_come_as_they_are_done(tmp_path: Path) -> None:
    there, first, second = tmp_path, tmp_path / "first", tmp_path / "second"
    items = [(first, second), (there, first)]  # the one that is begun first waits for the other
    assert [item for item, _ in map_in_processes(wait_for, items, workers=2)] == items[::-1]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_process_comes_through(workers: int) -> None:
    with pytest.raises(ShardError, match=r"^number 3 is torn$"):
        list(map_in_processes(refuse, range(6), workers=workers))


def test_nothing_to_do() -> None:
    assert list(map_in_processes(refuse, [])) == []
    assert count_cores() >= 1


@pytest.mark.slow
def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert [parent.stdout.readline() for _ in range(2)] == ["at work\n"] * 2
    parent.send_signal(signal.SIGKILL)
    # its processes write to the same pipe, which closes when the last of them has ended
    rest, _ = parent.communicate(timeout=5)
    assert rest == ""


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_what_is_half_done(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert [parent.stdout.readline() for _ in range(2)] == ["at work\n"] * 2
    parent.send_signal(signal.SIGINT)
    rest, errors = parent.communicate(timeout=30)  # the work takes 60 seconds
    assert rest == ""
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_without_workers_there_is_nothing_to_map_with():
    with pytest.raises(SettingError, match="workers"):
        list(map_in_processes(abs, [1, 2], workers=0))
