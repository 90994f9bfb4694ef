"""Tables on disk: csv, parquet, FITS, ECSV and VOTable in and out, by suffix."""

import csv
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.api.extensions import ExtensionDtype

from zoobot.errors import CatalogError, SettingError
from zoobot.files import replace_atomically

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["check_table_suffix", "read_table", "write_table"]

_TEXT_COLUMNS = ("id_str", "file_loc")
_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "<NA>"]


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a csv, parquet, FITS (``.fits``, ``.fit``, ``.fits.gz``), ECSV or VOTable (``.vot``) table.

    ``id_str`` and ``file_loc`` come as text whatever the format: ``00123`` and ``NA`` stay what they are, a
    long whole number keeps its digits, and a missing value is the empty string.
    In other columns missing numbers are NaN, numbers have the machine's byte order, and bytes become text;
    FITS columns with several numbers in a cell come last, as arrays.
    Of a FITS file this is the first table; FITS itself drops spaces at the end of text.

    Raises:
        CatalogError: The file is missing, empty, of another format, or has two columns of one name.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "votes.csv")
    >>> _ = path.write_text("id_str,smooth\\n00123,4\\n")
    >>> read_table(path).to_dict("list")
    {'id_str': ['00123'], 'smooth': [4]}
    """
    path = Path(path)
    if path.is_dir():
        raise CatalogError(f"{path}: this is a folder; expected the path of one table")
    suffix = _suffix(path, _READERS)
    if suffix is None:
        raise CatalogError(f"{path}: cannot read this suffix; expected one of {', '.join(_READERS)}")
    if not path.exists():
        raise CatalogError(f"{path}: no such file; expected a table")
    if path.stat().st_size == 0:
        raise CatalogError(f"{path}: the file is empty (0 bytes); expected a table")
    try:
        frame = _READERS[suffix](path)
    except (CatalogError, MemoryError):
        raise
    except Exception as error:  # the parsers' errors share no other base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CatalogError(f"{path}: cannot be read as {suffix}: {reason}") from error
    for name in set(_TEXT_COLUMNS).intersection(frame.columns):
        frame[name] = _as_text(frame[name], path)
    return frame


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table as csv, parquet, FITS, ECSV or VOTable by suffix, all of it or nothing.

    The index is not written. Missing text becomes the empty string in FITS and VOTable.

    Raises:
        SettingError: The suffix is none of these, or the path is a folder.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "predictions.fits")
    >>> write_table(pd.DataFrame({"id_str": ["00123"], "smooth_fraction": [0.25]}), path)
    >>> read_table(path).to_dict("list")
    {'id_str': ['00123'], 'smooth_fraction': [0.25]}
    """
    write = _writer(Path(path))
    with replace_atomically(path) as temporary:
        write(frame, temporary)


def check_table_suffix(path: str | Path) -> None:
    """Raise unless :func:`write_table` can write here; to be asked before hours of work, not after.

    Raises:
        SettingError: The suffix is none that can be written, or the path is a folder.

    >>> check_table_suffix("predictions.parquet")
    >>> check_table_suffix("predictions.xlsx")
    Traceback (most recent call last):
    zoobot.errors.SettingError: predictions.xlsx: cannot write this suffix; expected one of .csv, ...
    """
    _writer(Path(path))


def _writer(path: Path) -> Callable[[pd.DataFrame, Path], None]:
    suffix = _suffix(path, _WRITERS)
    if suffix is None:
        raise SettingError(f"{path}: cannot write this suffix; expected one of {', '.join(_WRITERS)}")
    if path.is_dir():
        raise SettingError(f"{path}: this is a folder; expected the path of a table to write")
    return _WRITERS[suffix]


def _suffix(path: Path, known: Mapping[str, object]) -> str | None:
    return next((suffix for suffix in known if path.name.lower().endswith(suffix)), None)


def _check_unique(names: list[str], path: Path) -> None:
    repeated = [repr(name) for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise CatalogError(f"{path}: column names must be unique; more than once: {', '.join(repeated[:8])}")


def _as_text(column: "pd.Series[Any]", path: Path) -> "pd.Series[str]":
    if pd.api.types.is_float_dtype(column.dtype):
        raise CatalogError(
            f"{path}: {column.name} holds {column.dtype} numbers, which lose digits of ids; store it as text"
        )
    return column.astype("string").fillna("").astype(str)


def _read_csv(path: Path) -> pd.DataFrame:
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = next((row for row in csv.reader(file) if row), [])
    _check_unique([name for name in header if name], path)
    with warnings.catch_warnings():
        # With more fields than names pandas would drop the last ones and only warn.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            path,
            dtype=dict.fromkeys(_TEXT_COLUMNS, str),
            keep_default_na=False,  # or an id "NA" would be a missing one
            na_values={name: _MISSING for name in header if name not in _TEXT_COLUMNS},
            index_col=False,
            low_memory=False,  # one type for a whole column
        )


def _read_parquet(path: Path) -> pd.DataFrame:
    with pq.ParquetFile(path) as file:
        table = file.read()
    _check_unique(table.column_names, path)
    # Text is made here and not in pandas, where whole numbers with a gap would pass through float64.
    texts: dict[str, Any] = {
        name: table[name].cast(pa.string()).to_pandas()
        for name in set(_TEXT_COLUMNS).intersection(table.column_names)
        if not pa.types.is_floating(table.schema.field(name).type)
    }
    frame: pd.DataFrame = table.to_pandas()
    return frame.reset_index(drop=frame.index.names == [None]).assign(**texts)


def _read_fits(path: Path) -> pd.DataFrame:
    from astropy.table import Table  # late: it takes longer to import than all else that writing shards needs

    return _from_astropy(Table.read(path, format="fits", mask_invalid=False))


def _read_ecsv(path: Path) -> pd.DataFrame:
    from astropy.table import Table

    return _from_astropy(Table.read(path, format="ascii.ecsv"))


def _read_votable(path: Path) -> pd.DataFrame:
    from astropy.table import Table

    return _from_astropy(Table.read(path, format="votable", use_names_over_ids=True))


def _from_astropy(table: "Table") -> pd.DataFrame:
    table.convert_bytestring_to_unicode()
    vectors = [name for name in table.colnames if len(table[name].shape) > 1]
    cells: dict[str, Any] = {name: pd.Series(list(table[name]), dtype=object) for name in vectors}
    table.remove_columns(vectors)  # to_pandas refuses them
    frame: pd.DataFrame = table.to_pandas(index=False)
    for name, column in frame.items():
        masked = isinstance(column.dtype, ExtensionDtype) and column.dtype.kind in "iu"
        if masked and name not in _TEXT_COLUMNS:
            frame[name] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return frame.assign(**cells)


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False)


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path, index=False)


def _write_fits(frame: pd.DataFrame, path: Path) -> None:
    _to_astropy(frame, encode=True).write(path, format="fits")


def _write_ecsv(frame: pd.DataFrame, path: Path) -> None:
    _to_astropy(frame).write(path, format="ascii.ecsv")


def _write_votable(frame: pd.DataFrame, path: Path) -> None:
    _to_astropy(frame).write(path, format="votable")


def _to_astropy(frame: pd.DataFrame, *, encode: bool = False) -> "Table":
    """Convert; ``encode`` text as UTF-8 for FITS, of which astropy itself writes only ASCII but reads all."""
    from astropy.table import Table

    columns = {}
    for name, column in frame.items():
        if not pd.api.types.is_string_dtype(column.dtype):
            columns[name] = Table.from_pandas(frame[[name]])[name]
            continue
        text = column.fillna("").astype(str).tolist()
        columns[name] = np.array([cell.encode() for cell in text], dtype="S") if encode else np.array(text, "U")
    return Table(columns, copy=False)


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".fits": _read_fits,
    ".fit": _read_fits,
    ".fits.gz": _read_fits,
    ".ecsv": _read_ecsv,
    ".vot": _read_votable,
    ".votable": _read_votable,
    ".xml": _read_votable,
}
_WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".fits": _write_fits,
    ".fit": _write_fits,
    ".ecsv": _write_ecsv,
    ".vot": _write_votable,
    ".votable": _write_votable,
}
