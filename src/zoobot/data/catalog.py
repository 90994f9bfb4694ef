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

from zoobot.data.tables import read_table
from zoobot.errors import CatalogError, SettingError

__all__ = ["catalog_fingerprint", "read_catalog", "sample_catalog", "split_catalog"]

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
    image_root: str | Path | None = None,
    check_files: bool = True,
    need_files: bool = True,
) -> pd.DataFrame:
    """Read a catalog of galaxies and report all of its faults at once.

    ``id_str`` is text, unique, and without spaces at its ends (a fault, since FITS tables lose them);
    ``file_loc`` becomes an absolute path, resolved against ``image_root`` or else the catalog's folder;
    the votes in ``label_cols`` become float32, finite and ≥ 0, fractions of a vote allowed.
    Other columns stay as they are. Without ``label_cols`` this reads unlabelled catalogs;
    without ``need_files`` tables of votes alone, whose ``file_loc`` is not looked at.

    Raises:
        CatalogError: The table cannot be read, or has faults: no rows, missing columns, missing or repeated
            ``id_str``, missing ``file_loc``, votes that are missing, non-numeric, negative or above a million, files
            that do not exist. One line for each kind, rows counted from 1, the first galaxy.
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
    frame = read_table(path)
    root = Path(path).parent.absolute() if image_root is None else Path(image_root).absolute()
    wanted = ["id_str", *(["file_loc"] if need_files else []), *label_cols]
    faults = _column_faults(frame, wanted)
    columns: dict[str, Any] = {}
    if len(frame) == 0:
        faults.append("the table has no rows; expected one for each galaxy")
    if "id_str" in frame:
        faults += _id_faults(frame["id_str"])
    if need_files and "file_loc" in frame:
        columns["file_loc"] = _resolve(frame["file_loc"], root)
        faults += _file_faults(frame["file_loc"], columns["file_loc"], root, check_files=check_files)
    faults += _take_votes(frame, [name for name in label_cols if name in frame], columns)
    if faults:
        lines = "".join(f"\n- {fault}" for fault in faults)
        raise CatalogError(f"{path}: faults, with rows counted from 1 (line 2 of a csv file):{lines}")
    return frame.assign(**columns)


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
    order = _hash_order(catalog["id_str"], "split", seed)
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
    return catalog.iloc[_hash_order(catalog["id_str"], "sample", seed)[:n]].reset_index(drop=True)


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
            fingerprint.update(json.dumps(column.astype(str).tolist()).encode())
    return fingerprint.hexdigest()


def _hash_order(ids: "pd.Series[str]", purpose: str, seed: int) -> NDArray[np.intp]:
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


def _rows(bad: NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(bad) + 1
    return f"row{'s' if len(rows) > 1 else ''} {_listed(rows, len(rows))}"


def _column_faults(frame: pd.DataFrame, wanted: Sequence[str]) -> list[str]:
    missing = [name for name in wanted if name not in frame]
    if not missing:
        return []
    others = [str(name) for name in frame.columns if name not in wanted]

    def describe(name: str) -> str:
        close = difflib.get_close_matches(name, others, n=1)
        return f"{name!r} (is it {close[0]!r}?)" if close else repr(name)

    there = _listed((repr(name) for name in frame.columns), frame.shape[1], 8)
    fix = "rename columns" + (" or choose another schema (--schema)" if set(missing) - {"id_str", "file_loc"} else "")
    return [f"missing columns: {_listed(map(describe, missing), len(missing), 8)}; the table has {there}; {fix}"]


def _id_faults(ids: "pd.Series[str]") -> list[str]:
    faults = []
    stripped = ids.str.strip()
    empty = (stripped == "").to_numpy(dtype=bool)
    if empty.any():
        faults.append(f"id_str: {empty.sum():,} missing ({_rows(empty)}); expected a name for each galaxy")
    padded = (stripped != ids).to_numpy(dtype=bool) & ~empty
    if padded.any():
        faults.append(
            f"id_str: {padded.sum():,} with spaces at the ends ({_rows(padded)}: {ids[padded].iloc[0]!r}); "
            f"expected none, since FITS tables lose them"
        )
    repeated = ids.duplicated(keep=False).to_numpy() & ~empty
    if repeated.any():
        names = ids[repeated].unique()
        where = (f"{name!r} ({_rows((ids == name).to_numpy(dtype=bool))})" for name in names)
        faults.append(f"id_str: {len(names):,} repeated: {_listed(where, len(names))}; expected each once")
    return faults


def _take_votes(frame: pd.DataFrame, names: list[str], votes: dict[str, Any]) -> list[str]:
    """Put the columns without faults into ``votes``, as float32, and return the faults of the others."""
    found: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    largest = 1e6  # volunteers; beyond it, what a table holds is something else
    for name in names:
        values = _as_numbers(frame[name])
        if ((values >= 0) & (values <= largest)).all():
            votes[name] = values.astype(np.float32)
            continue
        missing = frame[name].isna().to_numpy(dtype=bool)
        masks = (missing, np.isnan(values) & ~missing, values < 0, values > largest)
        for kind, bad in zip(_EXPECTED_VOTES, masks, strict=True):
            if bad.any():
                counts[kind] += int(bad.sum())
                found[kind].append(f"{name!r} ({_rows(bad)}: {frame[name][bad].iloc[0]})")
    return [
        f"votes: {counts[kind]:,} {kind}: {_listed(found[kind], len(found[kind]))}; expected {expected}"
        for kind, expected in _EXPECTED_VOTES.items()
        if kind in found
    ]


def _as_numbers(column: "pd.Series[Any]") -> NDArray[np.float64]:
    """Return float64, NaN for what is no number."""
    if not pd.api.types.is_numeric_dtype(column.dtype):
        column = pd.to_numeric(column.astype(str), errors="coerce")
    values: NDArray[Any] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def _resolve(locations: "pd.Series[str]", root: Path) -> list[str]:
    # A million Path objects would take seconds.
    return [os.path.join(root, location) for location in locations]  # noqa: PTH118


def _file_faults(locations: "pd.Series[str]", paths: list[str], root: Path, *, check_files: bool) -> list[str]:
    faults = []
    empty = (locations.str.strip() == "").to_numpy(dtype=bool)
    if empty.any():
        faults.append(f"file_loc: {empty.sum():,} missing ({_rows(empty)}); expected the path of an image")
    absent = _absent(paths) & ~empty if check_files else np.zeros_like(empty)
    if absent.any():
        first = ", ".join(repr(paths[row]) for row in np.flatnonzero(absent)[:3])
        faults.append(
            f"file_loc: {absent.sum():,} of {len(paths):,} files do not exist ({_rows(absent)}): {first}; "
            f"a relative file_loc starts from {root}: is another folder meant (--image-root)?"
        )
    return faults


def _absent(paths: list[str]) -> NDArray[np.bool_]:
    """Say which paths are not files, with one listing for each folder and not one request for each file."""
    places = [os.path.split(path) for path in paths]
    wanted: dict[str, set[str]] = defaultdict(set)
    for folder, name in places:
        wanted[folder].add(name)
    present = {folder: _files_among(folder, names) for folder, names in wanted.items()}
    return np.array([name not in present[folder] for folder, name in places], dtype=bool)


def _files_among(folder: str, names: set[str]) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            listed = {entry.name for entry in entries if entry.name in names and entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, ValueError):  # not ours to list, or a path that no file can have
        listed = set()
    # Names that the listing spells otherwise (case, Unicode form) are found by asking for them;
    # os.path.isfile, since Path.is_file raises where access is denied.
    return listed | {
        name
        for name in names - listed
        if os.path.isfile(os.path.join(folder, name))  # noqa: PTH113, PTH118
    }
