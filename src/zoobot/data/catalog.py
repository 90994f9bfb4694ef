"""Catalogs of galaxies: read, checked in full, resolved to files, split into train and test."""

import difflib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zoobot.data.band_files import join_files
from zoobot.data.file_checks import describe_absence, find_absent
from zoobot.data.remote_files import is_url
from zoobot.data.tables import read_table
from zoobot.errors import CatalogError, SettingError

__all__ = ["catalog_fingerprint", "hash_order", "read_catalog", "sample_catalog", "split_catalog"]

_LONGEST_SHOWN = 60  # characters
_EXPECTED_VOTES = {
    "missing": "a number, 0 where nobody voted",
    "non-numeric": "a number",
    "negative": "0 or more",
    "above a million": "numbers of volunteers",
}


def read_catalog(
    path: str | Path,
    label_cols: Sequence[str] = (),
    *,
    bands: Sequence[str] = (),
    image_root: str | Path | None = None,
    check_files: bool = True,
    need_files: bool = True,
) -> pd.DataFrame:
    """Read a catalog of galaxies and report all of its faults at once.

    ``id_str`` is text, unique, and without spaces at its ends (a fault, since FITS tables lose them);
    ``file_loc`` is a URL, or becomes an absolute path, resolved against ``image_root`` or else the catalog's folder; it
    may be a pattern of several files, ``images/12-{g,r,z}.fits`` (:mod:`zoobot.data.band_files`). A table without it
    may have a column of files for each band, ``file_loc_g``, …, of which it is made, in the order of the columns;
    ``bands`` names those to take, and their order (numbers are left to :mod:`zoobot.data.fits_images`).
    The votes in ``label_cols`` become float32, finite and ≥ 0, fractions of a vote allowed.
    Other columns stay as they are. Without ``label_cols`` this reads unlabelled catalogs;
    without ``need_files`` tables of votes alone, whose ``file_loc`` is not looked at.

    Raises:
        CatalogError: The table cannot be read, or has faults: no rows, missing columns, missing or repeated
            ``id_str``, missing ``file_loc``, votes that are missing, non-numeric, negative or above a million, files
            that do not exist (URLs are not looked at). One line for each kind, rows counted from 1, the first galaxy.
        SettingError: ``image_root`` is not a folder.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "catalog.csv")
    >>> _ = path.write_text("id_str,file_loc,smooth\\n00123,images/a.png,4\\n")
    >>> catalog = read_catalog(path, ["smooth"], check_files=False)
    >>> catalog["file_loc"][0] == str(path.parent / "images/a.png")
    True
    """
    if image_root is not None and not Path(image_root).is_dir():
        raise SettingError(f"image_root (--image-root): {image_root} is no folder; expected the images' folder")
    frame = read_table(path, label_cols)
    root = Path(path).parent.absolute() if image_root is None else Path(image_root).absolute()
    files = _file_columns(frame, bands) if need_files else []
    faults = _column_faults(frame, ["id_str", *files, *label_cols], label_cols)
    if len(frame) == 0:
        faults.append("the table has no rows; expected one for each galaxy")
    if "id_str" in frame:
        faults += _id_faults(frame["id_str"])
    vote_faults = _take_votes(frame, [name for name in label_cols if name in frame])  # first, since it makes room
    if files and set(files) <= set(frame.columns):
        faults += _take_files(frame, files, root, check_files=check_files)
    faults += vote_faults
    if faults:
        lines = "".join(f"\n- {fault}" for fault in faults)
        raise CatalogError(f"{path}: faults, with rows counted from 1 (line 2 of a csv file):{lines}")
    return frame


def split_catalog(catalog: pd.DataFrame, *, eval_size: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a catalog into train and test, the latter with ``eval_size`` galaxies.

    Each galaxy is ranked by a keyed hash (BLAKE2b) of its ``id_str`` and ``seed``; the lowest are the test.
    Both parts come in the order of the hash, which is a shuffle. So neither membership nor order depends on
    the catalog's order, and a few galaxies more or less change the side of few others.

    Raises:
        SettingError: ``eval_size`` leaves one of the two without galaxies.

    >>> catalog = pd.DataFrame({"id_str": list("abcdef")})
    >>> train, test = split_catalog(catalog, eval_size=2)
    >>> len(train), len(test), sorted([*train["id_str"], *test["id_str"]])
    (4, 2, ['a', 'b', 'c', 'd', 'e', 'f'])
    """
    if not 1 <= eval_size < len(catalog):
        raise SettingError(
            f"eval_size (--eval-size): got {eval_size} of {len(catalog)} galaxies; expected at least 1 and "
            f"fewer than all, so that both train and test have some"
        )
    order = hash_order(catalog["id_str"], "split", seed)
    test, train = (catalog.iloc[part].reset_index(drop=True) for part in np.split(order, [eval_size]))
    return train, test


def sample_catalog(catalog: pd.DataFrame, n: int | None, seed: int = 0) -> pd.DataFrame:
    """Take ``n`` galaxies at random, by a keyed hash of ``id_str`` and ``seed`` and in its order.

    The choice depends neither on the catalog's order nor on :func:`split_catalog`'s choice.
    With ``n`` None, or not less than the rows, the catalog comes back as it is.

    Raises:
        SettingError: ``n`` is less than 1.

    >>> catalog = pd.DataFrame({"id_str": list("abcdef")})
    >>> len(sample_catalog(catalog, 4)), sample_catalog(catalog, None) is catalog
    (4, True)
    """
    if n is not None and n < 1:
        raise SettingError(f"n (--max-labelled, --max-unlabelled): got {n}; expected at least 1 galaxy")
    if n is None or n >= len(catalog):
        return catalog
    return catalog.iloc[hash_order(catalog["id_str"], "sample", seed)[:n]].reset_index(drop=True)


def catalog_fingerprint(catalog: pd.DataFrame, columns: Sequence[str]) -> str:
    """Return the SHA-256, in hexadecimal, of ``columns`` with the rows sorted by ``id_str``.

    Equal for the same galaxies in any row order, file format or machine. Numbers count as float64, so that 3
    and 3.0 are the same; everything else counts as text.

    >>> catalog = pd.DataFrame({"id_str": ["a", "b"], "smooth": [3, 1]})
    >>> catalog_fingerprint(catalog, ["smooth"]) == catalog_fingerprint(catalog[::-1], ["smooth"])
    True
    """
    order = catalog["id_str"].reset_index(drop=True).sort_values(kind="stable").index
    fingerprint = hashlib.sha256(json.dumps([len(catalog), *columns]).encode())
    for name in columns:
        column = catalog[name].iloc[order]
        if pd.api.types.is_numeric_dtype(column.dtype):
            fingerprint.update(column.to_numpy(dtype="<f8", na_value=np.nan).tobytes())
        else:
            _update_with_json(fingerprint, column.astype(str))
    return fingerprint.hexdigest()


def _update_with_json(fingerprint: "hashlib._Hash", texts: "pd.Series[str]") -> None:
    """Add a list of texts as JSON, a part at a time, since the whole of it may be large."""
    fingerprint.update(b"[")
    for first in range(0, len(texts), 100_000):
        inner = json.dumps(texts.iloc[first : first + 100_000].tolist())[1:-1]
        fingerprint.update(f"{', ' if first else ''}{inner}".encode())
    fingerprint.update(b"]")


def hash_order(ids: "pd.Series[str]", purpose: str, seed: int) -> NDArray[np.intp]:
    """Give the positions of ids in the order of a keyed hash (BLAKE2b): a shuffle that no order of the ids changes.

    Args:
        ids: unique.
        purpose: at most 16 letters; orders of other purposes have nothing to do with one another.
        seed: of orders of the same purpose.

    >>> ids = pd.Series(list("abcd"))
    >>> ids[hash_order(ids, "split", 0)].tolist() == ids[::-1].iloc[hash_order(ids[::-1], "split", 0)].tolist()
    True
    """
    keyed = hashlib.blake2b(digest_size=16, key=str(seed).encode(), person=purpose.encode())
    digests = bytearray()
    for id_str in ids:
        hashed = keyed.copy()
        hashed.update(id_str.encode())
        digests += hashed.digest()
    halves = np.frombuffer(digests, dtype=">u8").reshape(-1, 2)
    return np.lexsort((halves[:, 1], halves[:, 0]))


def _listed(items: Iterable[object], total: int, shown: int = 5) -> str:
    """Join the first items; say how many more there are."""
    text = ", ".join(str(item) for item in islice(items, shown))
    return text + (f" and {total - shown:,} more" if total > shown else "")


def _shorten(value: object) -> str:
    """Text of a cell for a message; some hold megabytes."""
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _rows(bad: NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(bad) + 1
    return f"row{'s' if len(rows) > 1 else ''} {_listed(rows, len(rows))}"


def _column_faults(frame: pd.DataFrame, wanted: Sequence[str], label_cols: Sequence[str]) -> list[str]:
    missing = [name for name in wanted if name not in frame]
    if not missing:
        return []
    others = [_shorten(name) for name in frame.columns if name not in wanted]

    def describe(name: str) -> str:
        close = difflib.get_close_matches(name, others, n=1)
        return f"{name!r} (is it {close[0]!r}?)" if close else repr(name)

    there = _listed((repr(_shorten(name)) for name in frame.columns), frame.shape[1], 8)
    fix = "rename columns" + (" or choose another schema (--schema)" if set(missing).intersection(label_cols) else "")
    return [f"missing columns: {_listed(map(describe, missing), len(missing), 8)}; the table has {there}; {fix}"]


def _id_faults(ids: "pd.Series[str]") -> list[str]:
    faults = []
    stripped = ids.str.strip()
    empty = (stripped == "").to_numpy(dtype=bool)
    if empty.any():
        faults.append(f"id_str: {empty.sum():,} missing ({_rows(empty)}); expected a name for each galaxy")
    padded = ((stripped != ids) | ids.str.contains("\0", regex=False)).to_numpy(dtype=bool) & ~empty
    if padded.any():
        first = _shorten(ids[padded].iloc[0])
        faults.append(
            f"id_str: {padded.sum():,} with spaces at the ends, or null characters ({_rows(padded)}: {first!r}); "
            f"expected none, since FITS tables lose them"
        )
    repeated = ids.duplicated(keep=False).to_numpy() & ~empty
    if repeated.any():
        names = ids[repeated].unique()
        where = (f"{_shorten(name)!r} ({_rows((ids == name).to_numpy(dtype=bool))})" for name in names)
        faults.append(f"id_str: {len(names):,} repeated: {_listed(where, len(names))}; expected each once")
    return faults


def _take_votes(frame: pd.DataFrame, names: list[str]) -> list[str]:
    """Make the columns without faults float32, in place, and return the faults of the others."""
    found: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    largest = 1e6  # volunteers; beyond it, what a table holds is something else
    for name in names:
        values = _as_numbers(frame[name])
        if ((values >= 0) & (values <= largest)).all():
            frame[name] = values.astype(np.float32)
            continue
        missing = frame[name].isna().to_numpy(dtype=bool)
        masks = (missing, np.isnan(values) & ~missing, values < 0, values > largest)
        for kind, bad in zip(_EXPECTED_VOTES, masks, strict=True):
            if bad.any():
                counts[kind] += int(bad.sum())
                found[kind].append(f"{name!r} ({_rows(bad)}: {_shorten(frame[name][bad].iloc[0])})")
    return [
        f"votes: {counts[kind]:,} {kind}: {_listed(found[kind], len(found[kind]))}; expected {expected}"
        for kind, expected in _EXPECTED_VOTES.items()
        if kind in found
    ]


def _as_numbers(column: "pd.Series[Any]") -> NDArray[np.float64]:
    """Return float64, NaN for what is no number."""
    if pd.api.types.is_complex_dtype(column.dtype) or not pd.api.types.is_numeric_dtype(column.dtype):
        column = pd.to_numeric(column.astype(str), errors="coerce")
    values: NDArray[Any] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def _file_columns(frame: pd.DataFrame, bands: Sequence[str]) -> list[str]:
    of_bands = [name for name in map(str, frame.columns) if name.startswith("file_loc_")]
    if "file_loc" in frame or not of_bands:
        return ["file_loc"]
    named = [band for band in bands if not band.isdecimal()]  # numbers count the columns, when the files are read
    return [f"file_loc_{band}" for band in named] or of_bands


def _take_files(frame: pd.DataFrame, names: Sequence[str], root: Path, *, check_files: bool) -> list[str]:
    """Make ``file_loc`` absolute paths or patterns, in place, and return the faults."""
    faults = []
    faulty = np.zeros(len(frame), bool)
    columns = [frame[name].astype("string").fillna("").astype(str) for name in names]
    for name, column in zip(names, columns, strict=True):
        empty = (column.str.strip() == "").to_numpy(dtype=bool)
        if empty.any():
            faults.append(f"{name}: {empty.sum():,} missing ({_rows(empty)}); expected the path of an image")
        faulty |= empty
    file_locs, odd = _join_columns(columns, str(root))
    if odd.any():
        first = ", ".join(repr(column[odd].iloc[0]) for column in columns)
        faults.append(
            f"{names[0]}: {odd.sum():,} with braces, or with commas where bands differ ({_rows(odd)}: {first}); "
            f"expected none, since several files are named together as 'a-{{g,r}}.fits'; rename them"
        )
    if check_files:
        faults += _absence_faults(file_locs, find_absent(file_locs) & ~faulty & ~odd, root)
    frame["file_loc"] = file_locs
    return faults


def _join_columns(columns: Sequence["pd.Series[str]"], root: str) -> tuple[list[str], NDArray[np.bool_]]:
    """Make an absolute path or pattern of each row, and say of which that cannot be done."""
    absolute = [column.tolist() for column in columns]
    for cells in absolute:
        for row, cell in enumerate(cells):  # in place, and without a million Path objects, which would take seconds
            cells[row] = cell if is_url(cell) else os.path.join(root, cell)  # noqa: PTH118
    odd = np.zeros(len(absolute[0]), bool)
    if len(columns) == 1:
        return absolute[0], odd
    for row, paths in enumerate(zip(*absolute, strict=True)):
        try:
            absolute[0][row] = join_files(paths)
        except CatalogError:
            odd[row] = True
    return absolute[0], odd


def _absence_faults(file_locs: Sequence[str], absent: NDArray[np.bool_], root: Path) -> list[str]:
    if not absent.any():
        return []
    first = ", ".join(describe_absence(file_locs[row]) for row in np.flatnonzero(absent)[:3])
    return [
        f"file_loc: {absent.sum():,} of {len(file_locs):,} files do not exist ({_rows(absent)}): {first}; "
        f"a relative file_loc starts from {root}: is another folder meant (--image-root)?"
    ]
