"""Galaxies that look like others, by their representations."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zoobot.data import images, tables
from zoobot.data.contact_sheet import draw_contact_sheet
from zoobot.errors import ImageError, PredictionError, SettingError
from zoobot.files import replace_atomically
from zoobot.predictions.catalogue import check_tables_to_write
from zoobot.predictions.representation_file import RepresentationFile
from zoobot.progress import progress_bar
from zoobot.stats.neighbours import Neighbours, find_nearest, normalise

__all__ = ["EXACT_UP_TO", "Similar", "check_picture", "draw_galaxies", "find_similar", "index_path"]

EXACT_UP_TO = 100_000
"""Of more galaxies than that, the index is used if there is one already, unless it is said otherwise."""

_MOST_DRAWN = 1000
_PICTURES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
_TILE = 128  # pixels
_LABEL = 20  # letters that fit above one


@dataclass(frozen=True)
class Similar:
    """What :func:`find_similar` did.

    Attributes:
        save_loc: the table.
        galaxies: among how many it looked.
        exact: whether it compared them all.
        index_loc: the index, if one was used.
    """

    save_loc: Path
    galaxies: int
    exact: bool
    index_loc: Path | None


def find_similar(
    representations: str | Path,
    ids: Sequence[str],
    save_loc: str | Path,
    *,
    number: int = 20,
    exact: bool | None = None,
    picture: str | Path | None = None,
) -> Similar:
    """Write the galaxies most similar to some, by the cosine of their representations less the mean of all.

    Exactly, all representations are read and compared, whatever their number, in little memory. An approximate search
    looks into an index (HNSW, arXiv:1603.09320, of the optional package usearch), which takes long to make, once, and
    then milliseconds to ask; it lies beside the representations and is made anew when they change.

    Args:
        representations: the ``.parquet`` file that :func:`zoobot.predictions.representations.represent` made.
        ids: ``id_str`` of galaxies in it.
        save_loc: the table to write, by suffix: for each of ``ids``, ``rank`` 1 and so on, ``id_str``, ``file_loc`` and
            ``similarity``, from 1 (the same) to -1. An existing one is replaced.
        number: how many for each.
        exact: compare all, or look into the index; when left out, into an index that is there of over 100,000 galaxies.
        picture: a ``.png`` or ``.jpg`` to draw, a row for each of ``ids``, with it on the left.

    Raises:
        SettingError: a setting is wrong, or an approximate search is asked for without usearch.
        PredictionError: a galaxy is not there, or the file holds no representations.
        CatalogError: it cannot be read.
    """
    check_tables_to_write({"save_loc": save_loc}, [representations])
    check_picture(picture)
    if not ids or len(set(ids)) < len(ids):
        raise SettingError("id (--id) must name one galaxy or more, each once")
    file = RepresentationFile(representations)
    if len(file) < 2:
        raise PredictionError(f"{file.path}: holds one galaxy; what is similar to it shows among others")
    if not 1 <= number < len(file):
        raise SettingError(f"number is {number}; it must be from 1 to {len(file) - 1}, among {len(file)} galaxies")
    queries = file.find(ids)
    if exact is None:
        exact = len(file) <= EXACT_UP_TO or not index_path(file.path).exists() or not _has_usearch()
    nearest = _compare_all(file, queries, number) if exact else _ask_index(file, queries, number)
    table = _list(file.names, queries, nearest)
    tables.write_table(table, save_loc)
    if picture is not None:
        rows = np.hstack([queries[:, None], nearest.positions])
        labels = [
            label
            for name, each in zip(ids, nearest.similarities, strict=True)
            for label in (name[-_LABEL:], *(f"{similarity:.2f}" for similarity in each))
        ]
        draw_galaxies(file.names.iloc[rows.ravel()], labels, picture, columns=number + 1)
    return Similar(Path(save_loc), len(file), exact, None if exact else index_path(file.path))


def _list(names: pd.DataFrame, queries: NDArray[np.int64], nearest: Neighbours) -> pd.DataFrame:
    number = nearest.positions.shape[1]
    found = names.iloc[nearest.positions.ravel()]
    return pd.DataFrame(
        {
            "query_id_str": np.repeat(names["id_str"].to_numpy()[queries], number),
            "rank": np.tile(np.arange(1, number + 1), len(queries)),
            "id_str": found["id_str"].to_numpy(),
            "file_loc": found["file_loc"].to_numpy(),
            "similarity": nearest.similarities.ravel(),
        }
    )


def _measure(file: RepresentationFile, queries: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The mean of all representations, and those of the queries, in one pass."""
    total = np.zeros(file.features)
    vectors = np.empty((len(queries), file.features), np.float32)
    start = 0
    for chunk in file.chunks():
        total += chunk.sum(axis=0, dtype=np.float64)
        inside = np.flatnonzero((queries >= start) & (queries < start + len(chunk)))
        vectors[inside] = chunk[queries[inside] - start]
        start += len(chunk)
    return total / len(file), vectors


def _compare_all(file: RepresentationFile, queries: NDArray[np.int64], number: int) -> Neighbours:
    mean, vectors = _measure(file, queries)
    return find_nearest(normalise(vectors, mean), (normalise(chunk, mean) for chunk in file.chunks()), number, queries)


def index_path(representations: str | Path) -> Path:
    """Where the index of a file of representations lies: its name tells the content of the file that it is of."""
    path = Path(representations)
    with open(path, "rb") as file:  # the end of a parquet file says what and how much is in it
        file.seek(-min(path.stat().st_size, 2**16), 2)
        digest = hashlib.sha256(str(path.stat().st_size).encode() + file.read()).hexdigest()
    return path.with_name(f"{path.stem}.{digest[:12]}.usearch")


def _has_usearch() -> bool:
    try:
        import usearch.index  # noqa: F401
    except ImportError:
        return False
    return True


def _ask_index(file: RepresentationFile, queries: NDArray[np.int64], number: int) -> Neighbours:
    if not _has_usearch():
        raise SettingError("approximate search needs usearch: pip install 'zoobot[similar]', or use --exact")
    from usearch.index import Index

    path = index_path(file.path)
    if not path.exists():
        _make_index(file, path)
    index = Index.restore(path, view=True)
    if index is None or len(index) != len(file) or index.ndim != file.features:
        raise PredictionError(f"{path}: is no index of {file.path}; delete it, and it will be made anew")
    index.expansion_search = max(128, 2 * number)  # type: ignore[misc]  # it can be set, whatever its types say
    vectors = np.stack([np.asarray(index.get(int(query)), np.float32) for query in queries])
    found = index.search(vectors, number + 1, threads=1)
    keys, distances = np.atleast_2d(found.keys), np.atleast_2d(found.distances)
    # itself comes first, unless another is the same
    order = np.argsort(keys == queries[:, None], axis=1, kind="stable")[:, :number]
    positions = np.take_along_axis(keys, order, axis=1).astype(np.int64)
    return Neighbours(positions, 1 - np.take_along_axis(distances, order, axis=1).astype(np.float32))


def _make_index(file: RepresentationFile, path: Path) -> None:
    from usearch.index import Index

    mean, _ = _measure(file, np.empty(0, np.int64))
    start = 0
    index: Any = Index(ndim=file.features, metric="cos", dtype="f16", connectivity=16, expansion_add=128)
    with progress_bar("indexing", len(file)) as advance:
        for chunk in file.chunks():
            index.add(np.arange(start, start + len(chunk)), normalise(chunk, mean))
            start += len(chunk)
            advance(len(chunk))
    with replace_atomically(path) as temporary:
        index.save(temporary)
    for other in path.parent.iterdir():  # of what the file held before
        pattern = rf"{re.escape(file.path.stem)}\.[0-9a-f]{{12}}\.usearch"
        if other != path and re.fullmatch(pattern, other.name):
            other.unlink()


def check_picture(picture: str | Path | None) -> None:
    """Find out before the work whether a picture can be written.

    Raises:
        SettingError: its suffix is not known.
    """
    if picture is not None and Path(picture).suffix.lower() not in _PICTURES:
        raise SettingError(f"picture is {picture}; it must end with {', '.join(_PICTURES)}")


def draw_galaxies(names: pd.DataFrame, labels: Sequence[str], picture: str | Path, columns: int) -> None:
    """Draw images of galaxies (``file_loc``) on a page, at most 1,000; those that cannot be read are black, and say so.

    Raises:
        SettingError: as :func:`check_picture`.
    """
    check_picture(picture)
    drawn: list[NDArray[np.uint8]] = []
    titles: list[str] = []
    for (_, galaxy), label in zip(names.iloc[:_MOST_DRAWN].iterrows(), labels, strict=False):
        try:
            drawn.append(images.read_image(galaxy["file_loc"], size=_TILE))
            titles.append(label)
        except (ImageError, OSError):
            drawn.append(np.zeros((_TILE, _TILE, 3), np.uint8))
            titles.append(f"{label} (no image)")
    page = draw_contact_sheet(drawn, titles, columns=columns)
    with replace_atomically(picture) as path:
        page.savefig(path, format=_PICTURES[Path(picture).suffix.lower()], dpi=150)
