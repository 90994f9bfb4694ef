"""Where predictions and representations go: checked before the work, and the list of the images that failed."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from zoobot.data import tables
from zoobot.errors import PredictionError

__all__ = ["FAILED_COLUMNS", "check_save_loc", "check_writable", "failed_path", "write_failures"]

FAILED_COLUMNS = ("id_str", "file_loc", "reason")
"""Of the table of images that could not be read."""


def failed_path(save_loc: str | Path) -> Path:
    """Where the images that could not be read are listed.

    >>> failed_path("out/predictions.parquet").name
    'predictions.failed.csv'
    """
    save_loc = Path(save_loc)
    return save_loc.with_name(save_loc.stem + ".failed.csv")


def write_failures(id_str: Sequence[str], file_loc: Sequence[str], faults: Sequence[str], path: Path) -> int:
    """List the galaxies with a fault, if there are any, or delete the list of a run before; give their number."""
    rows = [row for row in zip(id_str, file_loc, faults, strict=True) if row[2]]
    if rows:
        tables.write_table(pd.DataFrame(rows, columns=list(FAILED_COLUMNS)), path)
    else:
        path.unlink(missing_ok=True)
    return len(rows)


def check_save_loc(save_loc: Path, others: Sequence[Path] = (), *, overwrite: bool) -> None:
    """Find out now, and not after hours of work, whether a table, its list of failures and others can be written.

    Raises:
        PredictionError: it cannot, or it exists and may not be replaced.
    """
    failed = [] if _is_left_alone(failed_path(save_loc), save_loc) else [failed_path(save_loc)]
    for path in (save_loc, *failed, *others):
        if path.exists() and not overwrite:
            raise PredictionError(f"save_loc: {path} exists; replace it with --overwrite or choose another name")
    for path in (save_loc, *others):
        check_writable(path)


def _is_left_alone(failed_loc: Path, save_loc: Path) -> bool:
    """Whether it is the list of failures that a run left which could read nothing, and wrote no table."""
    if save_loc.exists() or not failed_loc.is_file():
        return False
    with open(failed_loc, "rb") as file:
        return file.read(64).startswith(",".join(FAILED_COLUMNS).encode())


def check_writable(path: Path) -> None:
    """Make the folder of a file to come, and try to write there.

    Raises:
        PredictionError: it cannot be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise PredictionError(f"save_loc {path} cannot be written: {error.strerror}; choose another") from error
