"""Looking for files: what is found is what asking for each would find, with fewer questions and many at once."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoobot.data import file_checks
from zoobot.data.file_checks import describe_absence, find_absent


class Disk:
    """Counts calls to the disk, makes each take a while, and sees how many wait at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls: Counter[str] = Counter()
        self.waiting = self.most_waiting = 0
        self._lock = threading.Lock()
        for name in ("scandir", "stat"):
            monkeypatch.setattr(os, name, self._slow_down(name, getattr(os, name)))

    def _slow_down(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*arguments: Any, **settings: Any) -> Any:
            with self._lock:
                self.calls[name] += 1
                self.waiting += 1
                self.most_waiting = max(self.most_waiting, self.waiting)
            time.sleep(self.seconds)
            with self._lock:
                self.waiting -= 1
            return call(*arguments, **settings)

        return slow


def make_files(folder: Path, folders: int, files: int) -> list[str]:
    paths = []
    for number in range(folders):
        (folder / f"{number}").mkdir()
        paths += [str(folder / f"{number}" / f"{name}.png") for name in range(files)]
    for path in paths:
        Path(path).touch()
    return paths


@pytest.mark.parametrize("files", [1, 3, 20])
@pytest.mark.parametrize("seconds", [0.0, 0.001])
def test_it_finds_what_asking_for_each_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, seconds: float
) -> None:
    paths = make_files(tmp_path, folders=100, files=files)
    for path in paths[::3]:
        Path(path).unlink()
    for path in paths[::6]:
        Path(path).symlink_to(paths[1])
    for path in paths[3::12]:
        Path(path).mkdir()
    paths += [str(tmp_path / "absent" / f"{name}.png") for name in range(20)]
    expected = [not Path(path).is_file() for path in paths]
    Disk(monkeypatch, seconds)
    assert find_absent(paths).tolist() == expected


def test_a_listing_for_each_full_folder_and_a_call_for_each_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = make_files(tmp_path, folders=3, files=200)
    disk = Disk(monkeypatch)
    assert not find_absent(full).any()
    assert disk.calls == {"scandir": 3}
    disk.calls.clear()
    assert not find_absent([full[0], full[250], full[450]]).any()
    assert disk.calls == {"stat": 3}


@pytest.mark.parametrize(("limit", "at_once"), [(0.0, True), (3600.0, False)])
def test_many_calls_wait_at_once_on_slow_disks_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, at_once: bool
) -> None:
    single = make_files(tmp_path, folders=400, files=1)
    monkeypatch.setattr(file_checks, "_SLOW", limit)  # seconds
    disk = Disk(monkeypatch, seconds=0.001)
    assert not find_absent(single).any()
    assert disk.calls == {"stat": 400}
    assert (disk.most_waiting > 1) == at_once


def test_a_folder_with_far_more_than_is_wanted_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_files(tmp_path, folders=1, files=500)
    monkeypatch.setattr(file_checks, "_LISTED_PER_FILE", 2)
    disk = Disk(monkeypatch)
    assert not find_absent(paths[::50]).any()
    assert disk.calls["scandir"] == 1
    assert disk.calls["stat"] > 0


def test_patterns(tmp_path: Path) -> None:
    for name in ("1-g", "1-r", "2-g", "{3-g,3-r}"):
        (tmp_path / name).touch()
    (tmp_path / "2-r").mkdir()
    names = ["1-{g,r}", "{1,2}-g", "{1-g,}", "2-{g,r}", "1-{g,z}", "{3-g,3-r}", "{1-g}", "{1,2}-{g,r}", "1-g"]
    absent = [False, False, True, True, True, False, True, True, False]
    assert find_absent([f"{tmp_path}/{name}" for name in names]).tolist() == absent


def test_sections(tmp_path: Path) -> None:
    for name in ("a.fits", "b-g.fits", "b-r.fits", "c[1:2,3:4]"):
        (tmp_path / name).touch()
    names = [
        "a.fits[1:9,-3:5]",
        "b-{g,r}.fits[1:9,1:9]",
        "c[1:2,3:4]",
        "a.fits[1]",
        "b-{g,z}.fits[1:9,1:9]",
        "d[1:2,3:4]",
    ]
    assert find_absent([f"{tmp_path}/{name}" for name in names]).tolist() == [False, False, False, True, True, True]
    assert describe_absence(f"{tmp_path}/b-{{g,z}}.fits[1:9,1:9]") == repr(str(tmp_path / "b-z.fits"))


def test_a_mosaic_of_many_galaxies_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mosaic.fits").touch()
    disk = Disk(monkeypatch)
    assert not find_absent([f"{tmp_path}/mosaic.fits[{left}:{left + 9},1:9]" for left in range(100)]).any()
    assert disk.calls == {"stat": 1}


def test_no_files() -> None:
    assert find_absent([]).tolist() == []
    assert find_absent([""]).tolist() == [True]
