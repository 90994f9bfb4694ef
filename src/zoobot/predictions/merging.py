"""Joining predictions in parts into one table."""

import csv
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zoobot.data import tables
from zoobot.errors import PredictionError, SettingError
from zoobot.files import replace_atomically
from zoobot.predictions.catalogue import check_tables_to_write, make_friendly
from zoobot.predictions.outputs import check_save_loc, failed_path
from zoobot.predictions.prediction_parts import PartsFolder, name_part, to_arrow
from zoobot.schemas import Schema

__all__ = ["MOST_FITS_COLUMNS", "Predicted", "count_galaxies", "merge"]

MOST_FITS_COLUMNS = 999
"""That a table may have: FITS standard 4.0, section 7.3.1."""


@dataclass(frozen=True)
class Predicted:
    """What was predicted.

    Attributes:
        save_loc: the table, or the folder of parts.
        galaxies: its rows.
        failed: how many images could not be read.
        failed_loc: the table of these, if there are any and there is one; a folder has one for each part.
        filled: how many images had bad pixels, which were filled.
        missing: parts of a folder that other processes are still to predict.
    """

    save_loc: Path
    galaxies: int
    failed: int
    failed_loc: Path | None
    filled: int
    missing: int = 0


def merge(
    predictions: str | Path,
    save_loc: str | Path,
    *,
    friendly_loc: str | Path | None = None,
    asked_threshold: float = 0.5,
    overwrite: bool = False,
) -> Predicted:
    """Join the parts in a folder into one table, in the order of the input; the parts are kept.

    Parquet and CSV are written part by part, in little memory; other formats are held in memory as a whole.

    Args:
        predictions: the folder.
        save_loc: the table to write; its suffix (.parquet, .csv, .fits, …) decides the format. Images that could not be
            read go to ``<name>.failed.csv``.
        friendly_loc: a second table, easy on the eye: see :func:`zoobot.predictions.catalogue.make_friendly`.
        asked_threshold: for it, 0 to 1.
        overwrite: replace them if they exist.

    Raises:
        SettingError: a table cannot be written to such a place, or ``friendly_loc`` is given and these are no votes.
        PredictionError: parts are missing; or a table exists; or not one image could be read.
    """
    folder, save_loc = PartsFolder.open(Path(predictions)), Path(save_loc)
    check_tables_to_write({"save_loc": save_loc, "failures": failed_path(save_loc), "friendly_loc": friendly_loc}, [])
    check_save_loc(save_loc, [] if friendly_loc is None else [Path(friendly_loc)], overwrite=overwrite)
    if friendly_loc is not None and folder.manifest["schema"] is None:
        raise SettingError("friendly_loc is for predicted votes; these are labels: leave it out")
    missing = folder.list_missing()
    if missing:
        names = ", ".join(map(name_part, missing[:10])) + (", …" if len(missing) > 10 else "")
        raise PredictionError(
            f"{predictions}: {len(missing)} of {len(folder)} parts are missing: {names}; predict again to make them"
        )
    failed = _join_failures(folder, failed_path(save_loc))
    if failed == folder.galaxies:
        raise PredictionError(
            f"not one of {failed} images could be read ({failed_path(save_loc)} lists why)" + _first_reason(folder)
        )
    _write_all(folder.read_parts(), save_loc)
    if friendly_loc is not None:
        schema = Schema.from_dict(folder.manifest["schema"])
        friendly = (make_friendly(part.to_pandas(), schema, asked_threshold) for part in folder.read_parts())
        _write_all(map(to_arrow, friendly), Path(friendly_loc))
    found = count_galaxies(folder)
    return Predicted(save_loc, found.galaxies, failed, failed_path(save_loc) if failed else None, found.filled)


def count_galaxies(folder: PartsFolder) -> Predicted:
    """What there is in a folder of parts, and what is missing."""
    missing = set(folder.list_missing())
    galaxies = failed = filled = 0
    for number in range(len(folder)):
        if number not in missing:
            table = pq.read_table(folder.part_path(number), columns=["bad_pixels"], partitioning=None)
            bad_pixels = table["bad_pixels"]
            galaxies += len(bad_pixels)
            failed += len(folder.find_rows(number)) - len(bad_pixels)
            filled += pc.sum(pc.greater(bad_pixels, 0)).as_py() or 0
    return Predicted(folder.path, galaxies, failed, None, filled, len(missing))


def _write_all(parts: Iterator[pa.Table], path: Path) -> None:
    """Write tables with the same columns as one."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        first = next(parts)
        with replace_atomically(path) as temporary, pq.ParquetWriter(temporary, first.schema) as writer:
            writer.write_table(first)
            for part in parts:
                writer.write_table(part)
    elif suffix == ".csv":
        with replace_atomically(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            for number, part in enumerate(parts):
                part.to_pandas().to_csv(file, index=False, header=number == 0)
    else:
        table = pa.concat_tables(parts)
        if suffix in (".fits", ".fit") and table.num_columns > MOST_FITS_COLUMNS:
            raise SettingError(
                f"save_loc {path} would need {table.num_columns} columns, a FITS table holds {MOST_FITS_COLUMNS}; "
                "write .parquet"
            )
        tables.write_table(table.to_pandas(), path)


def _join_failures(folder: PartsFolder, path: Path) -> int:
    """Join the lists of failures, if there are any, or delete that of a run before; give the number of galaxies."""
    lists = [folder.failed_path(number) for number in range(len(folder)) if folder.failed_path(number).exists()]
    if not lists:
        path.unlink(missing_ok=True)
        return 0
    with replace_atomically(path) as temporary, open(temporary, "wb") as joined:
        for number, each in enumerate(lists):
            with open(each, "rb") as file:
                header = file.readline()
                joined.write(b"" if number else header)
                shutil.copyfileobj(file, joined)
    rows = (int(pq.read_metadata(folder.part_path(number)).num_rows) for number in range(len(folder)))
    return folder.galaxies - sum(rows)


def _first_reason(folder: PartsFolder) -> str:
    if not len(folder):
        return ""
    with open(folder.failed_path(0), encoding="utf-8", newline="") as file:
        return f"; the first: {next(csv.DictReader(file))['reason']}"
