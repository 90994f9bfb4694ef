"""Files are replaced whole or not at all, and what a killed process leaves is cleared away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoobot.errors import SettingError
from zoobot.files import claim_folder, delete_leftovers, replace_atomically


def test_a_file_appears_whole_in_a_folder_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "votes.csv"
    with replace_atomically(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert (temporary.parent, temporary.suffix) == (path.parent, path.suffix)
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_content_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("old")

    def break_off() -> None:
        with replace_atomically(path) as temporary:
            temporary.write_text("new")
            raise error

    with pytest.raises(error):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error_and_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replace_atomically(path):
        pass
    assert path.read_text() == "old"


def test_nested_files_are_replaced_all_or_none(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"

    def write(text: str) -> None:
        with replace_atomically(first) as one, replace_atomically(second) as two:
            one.write_text(text)
            two.write_text(text)
            if text == "new":
                raise KeyboardInterrupt

    write("old")
    with pytest.raises(KeyboardInterrupt):
        write("new")
    assert (first.read_text(), second.read_text()) == ("old", "old")
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_only_leftovers_of_processes_that_ended_are_deleted(tmp_path: Path) -> None:
    ended, zombie = (subprocess.Popen([sys.executable, "-c", ""]) for _ in range(2))
    ended.wait()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # ended, but its parent has not asked how
    (tmp_path / "train").mkdir()
    dead = [tmp_path / f".tmp-{process}-a.tfrecord" for process in (ended.pid, zombie.pid, 10**30)]
    dead.append(tmp_path / "train" / dead[0].name)
    kept = [tmp_path / f".tmp-{os.getpid()}-a.tfrecord", tmp_path / ".tmp-mine", tmp_path / "a.tfrecord"]
    for path in dead + kept:
        path.touch()
    delete_leftovers(tmp_path)
    assert [path for path in dead + kept if path.exists()] == kept
    zombie.wait()


def test_a_device_or_a_folder_is_never_replaced(tmp_path):
    for path in (Path(os.devnull), tmp_path):
        with pytest.raises(SettingError, match="name a file to write"), replace_atomically(path):
            pass
    assert not Path(os.devnull).is_file()


def test_a_claimed_folder_goes_on_with_the_same_settings_and_refuses_others(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    claim_folder(folder, "it.json", {"seed": 1, "size": (2, 3)})
    claim_folder(folder, "it.json", {"seed": 1, "size": (2, 3)})
    with pytest.raises(SettingError, match="another seed"):
        claim_folder(folder, "it.json", {"seed": 2, "size": (2, 3)})


def test_a_folder_of_somebody_elses_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    left = tmp_path / "inside" / ".tmp-99999999-votes.csv"
    left.write_text("theirs")
    with pytest.raises(SettingError, match="something else"):
        claim_folder(tmp_path, "it.json", {})
    assert left.exists()
    with pytest.raises(SettingError, match="something else"):
        claim_folder(left, "it.json", {})
