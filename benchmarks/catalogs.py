"""Catalogs of a million galaxies, and looking for their files on disks near and far.

Run ``python benchmarks/catalogs.py`` (it needs 1 GB of disk). Tables of 34 columns of votes are read, checked, split,
fingerprinted and sampled, each step timed, in a process for each format. Memory is the most that the process held
with all that it imported, mapped files counted. Beside it, the table alone as one would read it otherwise.

Files are looked for in full folders and in folders of their own, on the disk at hand and on a far one, which is made
up: every call to it takes a millisecond longer.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timing

from zoobot import schemas
from zoobot.data import catalog
from zoobot.data.file_checks import find_absent
from zoobot.data.tables import write_table

LABELS = schemas.load("gz_decals").label_cols
SUFFIXES = (".csv", ".parquet", ".fits")
STEPS = ("read_catalog", "split_catalog", "catalog_fingerprint", "sample_catalog")


def make_catalogs(rows: int, folder: Path) -> None:
    generator = np.random.default_rng(0)
    names = [f"J{row:09d}" for row in range(rows)]
    votes = {label: generator.integers(0, 40, rows) for label in LABELS}
    files = [f"images/{name[:7]}/{name}.png" for name in names]
    for suffix in SUFFIXES:
        write_table(pd.DataFrame({"id_str": names, "file_loc": files, **votes}), folder / f"catalog{suffix}")


def read_otherwise(path: Path) -> None:
    if path.suffix == ".csv":
        pd.read_csv(path)
    elif path.suffix == ".parquet":
        pd.read_parquet(path)
    else:
        from astropy.table import Table

        Table.read(path).to_pandas()


def run_steps(path: Path) -> None:
    """What a process does: prints the seconds of each step."""
    galaxies = pd.DataFrame()

    def read() -> None:
        nonlocal galaxies
        galaxies = catalog.read_catalog(path, LABELS, check_files=False)

    timed(read)
    timed(lambda: catalog.split_catalog(galaxies, eval_size=len(galaxies) // 5))
    timed(lambda: catalog.catalog_fingerprint(galaxies, list(galaxies.columns)))
    timed(lambda: catalog.sample_catalog(galaxies, len(galaxies) // 10))


def timed(step: Callable[[], object]) -> None:
    start = time.perf_counter()
    step()
    print(time.perf_counter() - start)


def print_memory() -> None:
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def measure(call: str) -> list[float]:
    """What a call prints in a process of its own, and the memory of that."""
    code = f"from pathlib import Path; import catalogs; {call}; catalogs.print_memory()"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, cwd=Path(__file__).parent, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [float(line) for line in printed.split()]


def compare_formats(rows: int, folder: Path) -> None:
    measure(f"catalogs.make_catalogs({rows}, Path({str(folder)!r}))")  # not here: memory counts from that of the parent
    cells = [["only the imports", *[""] * len(STEPS), f"{measure('pass')[-1]:.0f} MiB"]]
    for suffix in SUFFIXES:
        path = folder / f"catalog{suffix}"
        for name, call in (
            (f"**zoobot**, {suffix}", f"catalogs.run_steps(Path({str(path)!r}))"),
            (f"the table alone, {suffix}", f"catalogs.timed(lambda: catalogs.read_otherwise(Path({str(path)!r})))"),
        ):
            *seconds, memory = measure(call)
            times = [f"{value:.2f} s" for value in seconds]
            cells.append([name, *times, *[""] * (len(STEPS) - len(times)), f"{memory:.0f} MiB"])
        path.unlink()
    timing.print_rows([f"{rows:,} galaxies", *STEPS, "memory"], cells)


@contextmanager
def far_disk(seconds: float) -> Iterator[None]:
    """Make each call to look for files take longer."""

    def delay(call: Callable[..., Any]) -> Callable[..., Any]:
        def delayed(*arguments: Any, **settings: Any) -> Any:
            time.sleep(seconds)
            return call(*arguments, **settings)

        return delayed

    near = os.stat, os.scandir
    os.stat, os.scandir = map(delay, near)
    try:
        yield
    finally:
        os.stat, os.scandir = near


def make_files(folder: Path, files: int, each: int) -> list[str]:
    """Empty files, so many in each folder."""
    paths = [folder / f"{number // each}" / f"{number}.png" for number in range(files)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return [str(path) for path in paths]


def ask_for_each(paths: list[str]) -> list[bool]:
    return [not os.path.isfile(path) for path in paths]  # noqa: PTH113 (four times as fast as Path.is_file)


def compare_disks(files: int, folder: Path, repeats: int) -> None:
    rows = []
    for each, layout in ((1000, "a thousand to a folder"), (5, "five to a folder"), (1, "one to a folder")):
        paths = make_files(folder / f"{each}", files, each)
        cases: dict[str, timing.Case] = {
            "zoobot": partial(run, find_absent, paths),
            "each": partial(run, ask_for_each, paths),
        }
        near = timing.interleave(cases, repeats)
        with far_disk(0.001):
            far = timing.interleave(cases, 1, warm_ups=0)
        for disk, seconds in (("the disk at hand", near), ("1 ms a call", far)):
            rows.append([f"{layout}, {disk}", *(f"{1e6 * value / files:.3g}" for value in seconds.values())])
    timing.print_rows([f"µs per file, of {files:,}", "**zoobot**", "asking for each, `os.path.isfile`"], rows)


def run(function: Callable[[list[str]], Any], paths: list[str]) -> None:
    if np.any(function(paths)):
        raise RuntimeError("files are missing that have just been made")


def main() -> None:
    parser = timing.make_parser(__doc__, repeats=5)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the catalogs")
    parser.add_argument("--files", type=int, default=10_000, help="to look for")
    args = parser.parse_args()
    rows, files, repeats = (2000, 200, 1) if args.quick else (args.rows, args.files, args.repeats)
    with tempfile.TemporaryDirectory() as scratch:
        compare_formats(rows, Path(scratch))
        print()
        compare_disks(files, Path(scratch), repeats)
    timing.print_machine(repeats)


if __name__ == "__main__":
    main()
