"""Whether the files of a catalog exist, asked as network disks like it: few questions, many of them at once."""

import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress, filterfalse, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from zoobot.data.band_files import split_files, split_section
from zoobot.data.remote_files import is_url

__all__ = ["describe_absence", "find_absent"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_WORTH_LISTING = 8  # files wanted of a folder; to open, list and close it takes some calls itself
_LISTED_PER_FILE = 100  # the rest of a folder that holds far more than is wanted is not read
_THREADS = 32
_SAMPLE = 32
_SLOW = 1e-4  # seconds for an item; threads make quick calls only slower


def find_absent(file_locs: Sequence[str]) -> NDArray[np.bool_]:
    """Say of absolute paths, patterns and sections (:mod:`zoobot.data.band_files`) which name no file, (galaxies,).

    Of a pattern every member must be a file. Else a file must have the whole of it as its name.
    Folders, broken links and links in circles are no files. URLs are not asked for: that would take as long as reading.

    A folder of which many files are wanted is listed; other files are asked for, with one call each. Where calls take
    long, as on network disks, many are made at once. A name may be spelled in another way than the listing has it, as
    long as the disk takes both for the same (case, Unicode forms).

    >>> find_absent([__file__, "/absent-{g,r}.fits", "s3://bucket/a.png"]).tolist()
    [False, True, False]
    """
    if any(map(is_url, file_locs)):
        absent = np.zeros(len(file_locs), bool)
        here = [row for row, file_loc in enumerate(file_locs) if not is_url(file_loc)]
        absent[here] = find_absent([file_locs[row] for row in here])
        return absent
    if not any("{" in file_loc or file_loc.endswith("]") for file_loc in file_locs):
        return _find_absent_files(file_locs)
    named = [_named_files(file_loc) for file_loc in file_locs]
    files = list({file for group in named for file in group})  # a mosaic may serve a million galaxies
    lost = set(compress(files, _find_absent_files(files)))
    absent = np.array([not lost.isdisjoint(group) for group in named], bool)
    literal = [row for row in np.flatnonzero(absent).tolist() if named[row] != [file_locs[row]]]
    absent[literal] = _find_absent_files([file_locs[row] for row in literal])
    return absent


def describe_absence(file_loc: str) -> str:
    """Name what :func:`find_absent` found to be no file, of a pattern the first, and why if there is more to say.

    >>> describe_absence("/absent.fits"), describe_absence("/")
    ("'/absent.fits'", "'/' (a folder)")
    """
    files = _named_files(file_loc)
    file = next(filterfalse(os.path.isfile, files), files[0])
    try:
        reason = "a folder" if stat.S_ISDIR(Path(file).stat().st_mode) else "no ordinary file"
    except FileNotFoundError:
        return repr(file)
    except OSError as error:  # links in a circle, a name too long, access denied
        reason = str(error.strerror).lower()
    except ValueError:  # a null character
        reason = "no file can have this name"
    return f"{file!r} ({reason})"


def _named_files(file_loc: str) -> list[str]:
    return split_files(split_section(file_loc)[0])


def _find_absent_files(files: Sequence[str]) -> NDArray[np.bool_]:
    # Of strings and not Path objects, a million of which take seconds; in numbers and not lists of each folder's rows,
    # since there may be a million folders.
    numbers: dict[str, int] = {}
    numbered = (numbers.setdefault(os.path.dirname(file), len(numbers)) for file in files)  # noqa: PTH120
    folder_of = np.fromiter(numbered, np.intp, len(files))
    worth_listing = np.bincount(folder_of)[folder_of] >= _WORTH_LISTING
    unsure = np.flatnonzero(~worth_listing).tolist()
    folders: dict[str, list[int]] = defaultdict(list)
    for row in np.flatnonzero(worth_listing).tolist():
        folders[os.path.dirname(files[row])].append(row)  # noqa: PTH120
    absent = np.ones(len(files), bool)
    for seen, left in _map(lambda rows: _look_for(rows, files), list(folders.values())):
        absent[seen] = False
        unsure += left
    # os.path.isfile, since Path.is_file raises where access is denied.
    absent[unsure] = [not is_file for is_file in _map(os.path.isfile, [files[row] for row in unsure])]
    return absent


def _look_for(rows: list[int], files: Sequence[str]) -> tuple[list[int], list[int]]:
    """List a folder; give the rows of files in it, and those to ask for: of links, and of what it has not shown."""
    folder = os.path.dirname(files[rows[0]])  # noqa: PTH120
    names = [os.path.basename(files[row]) for row in rows]  # noqa: PTH119
    wanted = dict.fromkeys(names, False)
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, _LISTED_PER_FILE * len(rows)):
                if entry.name in wanted:
                    wanted[entry.name] = entry.is_file(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except (OSError, ValueError):  # not ours to list, or a path that no folder can have
        pass
    found = list(zip(rows, names, strict=True))
    return [row for row, name in found if wanted[name]], [row for row, name in found if not wanted[name]]


def _map(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Apply a function that waits for the disk: to one item after another, or in threads where that takes long."""
    start = time.perf_counter()
    results = [function(item) for item in items[:_SAMPLE]]
    rest = items[_SAMPLE:]
    if time.perf_counter() - start < _SLOW * _SAMPLE:
        return results + [function(item) for item in rest]
    size = min(100, -(-len(rest) // _THREADS))
    batches = [rest[first : first + size] for first in range(0, len(rest), max(1, size))]
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in pool.map(lambda batch: [function(item) for item in batch], batches):
            results += batch
    return results
