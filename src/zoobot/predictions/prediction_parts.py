"""A folder of predictions in parts: its manifest, which parts there are, and how a part is written."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoobot.data.shard_parts import Part
from zoobot.errors import PredictionError, SettingError
from zoobot.files import delete_leftovers, replace_atomically
from zoobot.predictions.outputs import failed_path

__all__ = ["PartsFolder", "choose_share", "name_part", "to_arrow"]

_MANIFEST = "manifest.json"
_FORMAT = 1
_TEXTS = ("id_str", "file_loc")


def name_part(number: int) -> str:
    """The name of a part.

    >>> name_part(3)
    'part-00003'
    """
    return f"part-{number:05d}"


def choose_share(text: str, parts: int) -> range:
    """The parts of one of several processes that share the work: every so many-th.

    Args:
        text: which of how many, from 1, such as ``2/8``.
        parts: how many there are.

    Raises:
        SettingError: it is something else.

    >>> list(choose_share("2/3", 8))
    [1, 4, 7]
    """
    part = Part.parse(text)
    return range(part.number - 1, parts, part.of)


@dataclass(frozen=True)
class PartsFolder:
    """Predictions in parts of so many galaxies, ``part-00000.parquet`` and so on, in the order of the input.

    A part is there once its parquet file is; the images of it that could not be read are in a ``.failed.csv`` beside
    it, which is written before. ``manifest.json`` says what they are predictions of, and is written before all.

    Attributes:
        path: the folder.
        manifest: what the predictions are; ``rows`` are the galaxies of each part.
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def claim(cls, path: Path, about: Mapping[str, Any], galaxies: int, galaxies_per_part: int) -> "PartsFolder":
        """Take a new folder, or one that was taken for the very same; other processes may do so at the same time.

        Raises:
            SettingError: it holds something else, or predictions with other settings, which are named.
        """
        starts = range(0, galaxies, galaxies_per_part)
        rows = [min(galaxies_per_part, galaxies - start) for start in starts]
        manifest = {"format": _FORMAT, **about, "galaxies_per_part": galaxies_per_part, "rows": rows}
        wanted = json.loads(json.dumps(manifest))  # lists for tuples, as they are read again
        path.mkdir(parents=True, exist_ok=True)
        if not (path / _MANIFEST).exists():
            others = [other for other in path.iterdir() if not other.name.startswith(".tmp-")]
            if others and not (path / _MANIFEST).exists():
                raise SettingError(f"save_loc: {path} holds something else; choose a new folder")
            _write_manifest(path, manifest)
        found = cls.open(path).manifest
        changed = [name for name in wanted if found.get(name) != wanted[name]]
        if changed:
            raise SettingError(
                f"save_loc: {path} holds predictions with another {' and '.join(changed)} (see its {_MANIFEST}); "
                "choose another folder, or start afresh with --overwrite"
            )
        return cls(path, wanted)

    @classmethod
    def open(cls, path: Path) -> "PartsFolder":
        """A folder that is there.

        Raises:
            PredictionError: it holds no predictions in parts.
        """
        try:
            if (path / _MANIFEST).exists() and not (path / _MANIFEST).is_file():  # a pipe would be waited for
                raise ValueError("it is no file")
            manifest = dict(json.loads((path / _MANIFEST).read_text(encoding="utf-8")))
            if manifest["format"] != _FORMAT or not all(isinstance(rows, int) for rows in manifest["rows"]):
                raise ValueError("another format")
        except FileNotFoundError as error:
            raise PredictionError(f"{path} holds no predictions in parts: it has no {_MANIFEST}") from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise PredictionError(f"{path / _MANIFEST} cannot be read ({error}); predict again") from error
        return cls(path, manifest)

    def __len__(self) -> int:
        """The number of parts."""
        return len(self.manifest["rows"])

    @property
    def galaxies(self) -> int:
        """How many there are in all parts."""
        return sum(self.manifest["rows"])

    def find_rows(self, number: int) -> range:
        """The positions of a part's galaxies in the input."""
        start = number * int(self.manifest["galaxies_per_part"])
        return range(start, start + int(self.manifest["rows"][number]))

    def part_path(self, number: int) -> Path:
        """The table of a part."""
        return self.path / f"{name_part(number)}.parquet"

    def failed_path(self, number: int) -> Path:
        """The list of a part's images that could not be read, if there are any."""
        return failed_path(self.part_path(number))

    def list_missing(self, numbers: Sequence[int] | None = None) -> list[int]:
        """The parts, of these or of all, that are not there, or are not whole."""
        return [number for number in (range(len(self)) if numbers is None else numbers) if not self._is_whole(number)]

    def _is_whole(self, number: int) -> bool:
        try:
            rows = pq.read_metadata(self.part_path(number)).num_rows
        except (OSError, pa.ArrowException):
            return False
        expected = len(self.find_rows(number))
        return bool(rows == expected or (rows < expected and self.failed_path(number).exists()))

    def write_part(self, number: int, catalogue: pd.DataFrame) -> None:
        """Write the table of a part, all of it or nothing."""
        with replace_atomically(self.part_path(number)) as temporary:
            pq.write_table(to_arrow(catalogue), temporary)

    def read_parts(self) -> Iterator[pa.Table]:
        """The tables of all parts, in order."""
        for number in range(len(self)):
            yield pq.read_table(self.part_path(number), partitioning=None)

    def delete_leftovers(self) -> None:
        """Delete what killed processes of this machine left half written; none may write from another machine."""
        delete_leftovers(self.path)

    @staticmethod
    def delete(path: Path) -> None:
        """Delete such a folder, and nothing that is something else."""
        if (path / _MANIFEST).is_file():
            for file in [*path.glob("part-*"), *path.glob(".tmp-*"), path / _MANIFEST]:
                file.unlink(missing_ok=True)
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def to_arrow(catalogue: pd.DataFrame) -> pa.Table:
    """A catalogue whose columns have the same types whatever the rows, or even none: text, or numbers as they are."""
    fields = []
    for name, column in catalogue.items():
        number = isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf" and name not in _TEXTS
        fields.append((name, pa.from_numpy_dtype(column.dtype) if number else pa.string()))
    texts = catalogue.astype(dict.fromkeys(_TEXTS, object))  # without rows pandas takes them for numbers
    table = pa.Table.from_pandas(texts, schema=pa.schema(fields), preserve_index=False)
    return table.replace_schema_metadata(None)  # pandas' own, which knows of missing text


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    # processes of several machines may do this at once, and have the same number
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".tmp-{os.getpid()}-manifest-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(manifest, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).chmod(0o644)
    Path(temporary).replace(folder / _MANIFEST)
