"""Tables on disk: csv, parquet, FITS, ECSV and VOTable in and out, by suffix."""

import contextlib
import csv
import warnings
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionDtype

from zoobot.data.table_claims import check_columns, check_ecsv, check_fits, check_votable, read_parquet
from zoobot.errors import CatalogError, SettingError
from zoobot.files import replace_atomically

if TYPE_CHECKING:
    from astropy.table import Column, Table

__all__ = ["check_table_suffix", "read_table", "write_table"]

_TEXT_COLUMNS = ("id_str", "file_loc")
_MOST_HDUS = 100
_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "<NA>"]


def read_table(path: str | Path, single_precision: Collection[str] = ()) -> pd.DataFrame:
    """Read a csv, parquet, FITS (``.fits``, ``.fit``, ``.fits.gz``), ECSV or VOTable (``.vot``) table.

    ``id_str`` and ``file_loc`` come as text whatever the format: ``00123`` and ``NA`` stay what they are, a
    long whole number keeps its digits, and a missing value is the empty string.
    In other columns missing numbers are NaN, numbers have the machine's byte order, and bytes become text;
    FITS columns with several numbers in a cell come last, as arrays.
    Of a FITS file this is the first table; FITS itself drops spaces at the end of text.
    To save memory, columns named in ``single_precision`` may come as float32, if all that they hold are numbers.

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
        frame = _read_csv(path, single_precision) if suffix == ".csv" else _READERS[suffix](path)
        for name in set(_TEXT_COLUMNS).intersection(frame.columns):
            frame[name] = _as_text(frame[name], path)
    except CatalogError:
        raise
    except MemoryError as error:
        raise CatalogError(f"{path}: takes more memory than there is; split it, or leave columns out") from error
    except Exception as error:  # the parsers' errors share no other base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CatalogError(f"{path}: cannot be read as {suffix}: {reason[:300]}") from error
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


def _as_text(column: "pd.Series[Any]", path: Path) -> "pd.Series[str]":
    if pd.api.types.is_float_dtype(column.dtype):
        raise CatalogError(
            f"{path}: {column.name} holds {column.dtype} numbers, which lose digits of ids; store it as text"
        )
    if column.dtype == object and not column.map(np.isscalar, na_action="ignore").all():
        raise CatalogError(f"{path}: {column.name} holds lists or objects; expected one text in each row")
    return column.astype("string").fillna("").astype(str)


def _read_csv(path: Path, single_precision: Collection[str] = ()) -> pd.DataFrame:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = (row for row in csv.reader(file) if row)
        header, first = next(rows, []), next(rows, [])
    check_columns(path, [name for name in header if name])
    if len(first) > len(header):  # pandas refuses it too, after minutes where it has a million
        raise ValueError(f"the first row has {len(first):,} fields, the header {len(header):,}")
    # Pieces take a fraction of the time and memory, but each finds types of its own, of which pandas warns.
    with contextlib.suppress(pd.errors.DtypeWarning, ValueError):
        frame = _parse_csv(path, header, dict.fromkeys(single_precision, np.float32), low_memory=True)
        if not (frame.select_dtypes("float64") >= 2**63).any(axis=None):  # where pieces of int64 and uint64 are joined
            return frame
    return _parse_csv(path, header, {}, low_memory=False)


def _parse_csv(path: Path, header: list[str], types: dict[str, Any], *, low_memory: bool) -> pd.DataFrame:
    with warnings.catch_warnings():
        # With more fields than names pandas would drop the last ones and only warn.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        warnings.simplefilter("error", pd.errors.DtypeWarning)
        return pd.read_csv(
            path,
            dtype={**types, **dict.fromkeys(_TEXT_COLUMNS, str)},
            keep_default_na=False,  # or an id "NA" would be a missing one
            na_values={name: _MISSING for name in header if name not in _TEXT_COLUMNS},
            index_col=False,
            low_memory=low_memory,
        )


def _read_parquet(path: Path) -> pd.DataFrame:
    table = read_parquet(path)
    # Text is made here and not in pandas, where whole numbers with a gap would pass through float64.
    texts: dict[str, Any] = {
        name: table[name].cast(pa.string()).to_pandas()
        for name in set(_TEXT_COLUMNS).intersection(table.column_names)
        if not pa.types.is_floating(table.schema.field(name).type)
    }
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)  # so that it is not there twice
    return frame.reset_index(drop=frame.index.names == [None]).assign(**texts)


def _read_fits(path: Path) -> pd.DataFrame:
    from astropy.io import fits  # late: it takes longer to import than all else that writing shards needs
    from astropy.table import Table

    from zoobot.data.fits_files import is_fits

    with open(path, "rb") as file:
        start = file.read(16)
    if not is_fits(start):
        raise ValueError("it is no FITS file, nor a gzipped one")
    with fits.open(path, character_as_bytes=True) as hdus:
        # of damaged gzipped files astropy finds more and more
        hdu = next(
            (hdu for hdu in islice(hdus, _MOST_HDUS) if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU))), None
        )
        if hdu is None:
            raise ValueError("it holds no table")
        check_fits(path, hdu)
        return _from_astropy(Table.read(hdu, mask_invalid=False))


def _read_ecsv(path: Path) -> pd.DataFrame:
    from astropy.table import Table

    check_ecsv(path)
    return _from_astropy(Table.read(path, format="ascii.ecsv"))


def _read_votable(path: Path) -> pd.DataFrame:
    from astropy.table import Table

    check_votable(path)
    return _from_astropy(Table.read(path, format="votable", use_names_over_ids=True))


def _from_astropy(table: "Table") -> pd.DataFrame:
    """Convert one column after another, to hold less at once; vectors, which to_pandas refuses, come last."""
    columns: dict[str, Any] = {}
    vectors: dict[str, Any] = {}
    for name in table.colnames:
        single = table[[name]]  # a copy
        if len(single[name].shape) > 1:
            single.convert_bytestring_to_unicode()
            vectors[name] = pd.Series(list(single[name]), dtype=object)
        elif single[name].dtype.kind == "S":
            columns[name] = _decode(single[name])
        else:
            columns[name] = _from_masked(single.to_pandas(index=False)[name])
        single.remove_column(name)  # tables are circular, and would stay until the next collection of garbage
        table.remove_column(name)
    return pd.DataFrame({**columns, **vectors}, copy=False)


def _decode(column: "Column") -> "pd.Series[str]":
    """Make text of UTF-8; astropy would take four bytes for every character, and for every space to the right."""
    text: pd.Series[str] = pa.array(np.asarray(column), mask=np.ma.getmaskarray(column)).cast(pa.string()).to_pandas()
    return text


def _from_masked(column: "pd.Series[Any]") -> "pd.Series[Any]":
    masked = isinstance(column.dtype, ExtensionDtype) and column.dtype.kind in "iu"
    return column.astype(np.float64) if masked and column.name not in _TEXT_COLUMNS else column


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
