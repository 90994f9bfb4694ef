"""Representations in a parquet file, and the principal components that compressed them: written and read in chunks."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from zoobot.data.table_claims import check_columns
from zoobot.errors import CatalogError, PredictionError
from zoobot.files import replace_atomically
from zoobot.stats.principal_components import PrincipalComponents

__all__ = [
    "COLUMNS",
    "DTYPES",
    "ROWS_AT_A_TIME",
    "RepresentationFile",
    "RepresentationWriter",
    "load_components",
    "pca_path",
    "save_components",
]

DTYPES = {"float16": pa.float16(), "float32": pa.float32()}
"""What the numbers are stored as."""
COLUMNS = ("list", "each")
"""One column ``representation`` of lists, or a column for each feature."""
ROWS_AT_A_TIME = 4096

_MOST_FEATURES = 65_536
_METADATA = "zoobot"


class RepresentationWriter:
    """Writes chunks of representations as row groups of one parquet file.

    Args:
        path: the file.
        features: how many there are.
        dtype: a key of `DTYPES`.
        columns: one of `COLUMNS`.
        about: what is kept in the file's metadata, ready for JSON.
    """

    def __init__(self, path: Path, features: int, *, dtype: str, columns: str, about: Mapping[str, Any]) -> None:
        self._numbers, self._dtype, self._features = DTYPES[dtype], dtype, features
        fields = [("id_str", pa.string()), ("file_loc", pa.string())]
        if columns == "list":
            fields.append(("representation", pa.list_(pa.field("element", self._numbers, nullable=False), features)))
        else:
            fields += [(f"feature_{number}", self._numbers) for number in range(features)]
        self._schema = pa.schema(fields, metadata={_METADATA: json.dumps(about)})
        # a dictionary of numbers that hardly repeat is work for nothing
        self._writer = pq.ParquetWriter(path, self._schema, use_dictionary=["file_loc"])

    def write(self, id_str: Sequence[str], file_loc: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Add galaxies; vectors are (galaxies, features).

        Raises:
            PredictionError: a number is not finite, or does not fit the type.
        """
        with np.errstate(over="ignore"):
            stored = vectors.astype(self._dtype)
        if not np.isfinite(stored).all():
            bad = int(np.flatnonzero(~np.isfinite(stored).all(axis=1))[0])
            fix = (
                "use --dtype float32" if np.isfinite(vectors[bad]).all() else "the weights of the model may be damaged"
            )
            raise PredictionError(f"the representation of {id_str[bad]} has numbers that are no {self._dtype}; {fix}")
        if len(self._schema) == 3:
            flat = pa.array(stored.reshape(-1), self._numbers)
            columns = [pa.FixedSizeListArray.from_arrays(flat, type=self._schema.field("representation").type)]
        else:
            columns = [pa.array(column, self._numbers) for column in np.ascontiguousarray(stored.T)]
        names = [pa.array(id_str, pa.string()), pa.array(file_loc, pa.string())]
        self._writer.write_table(pa.Table.from_arrays([*names, *columns], schema=self._schema))

    def close(self) -> None:
        """End the file."""
        self._writer.close()


class RepresentationFile:
    """A parquet file of representations, of which only the names are held in memory.

    Those of others will do: a column ``id_str``, and either lists in ``representation``, or ``feature_0``,
    ``feature_1`` and so on.

    Raises:
        CatalogError: there is no such file, it cannot be read, or the names are not unique.
        PredictionError: it holds no representations.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise CatalogError(f"{path}: no such file; expected representations, from `zoobot represent`")
        try:
            self._file = pq.ParquetFile(self.path)
            schema = self._file.schema_arrow
            check_columns(self.path, schema.names)
            self._columns = _find_columns(self.path, schema)
            self.names = self._read_names()
        except (pa.ArrowException, OSError) as error:
            raise CatalogError(f"{path}: cannot be read as .parquet: {str(error).splitlines()[0][:300]}") from error
        self.features = next(self.chunks()).shape[1]

    def __len__(self) -> int:
        """The number of galaxies."""
        return len(self.names)

    def _read_names(self) -> pd.DataFrame:
        columns = [name for name in ("id_str", "file_loc") if name in self._file.schema_arrow.names]
        table = self._file.read(columns=columns)
        names: pd.DataFrame = table.cast(pa.schema([(name, pa.string()) for name in columns])).to_pandas()
        if names.empty:
            raise PredictionError(f"{self.path}: holds no galaxies")
        repeated = names["id_str"][names["id_str"].duplicated()]
        if len(repeated) or names["id_str"].isna().any():
            which = "is missing in some rows" if repeated.empty else f"must be unique; twice: {repeated.iloc[0]}"
            raise CatalogError(f"{self.path}: id_str {which}")
        return names if "file_loc" in names else names.assign(file_loc="")

    def find(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Positions of galaxies.

        Raises:
            PredictionError: some are not there.
        """
        positions = np.asarray(pd.Index(self.names["id_str"]).get_indexer(pd.Index(ids)), np.int64)
        missing = [name for name, position in zip(ids, positions, strict=True) if position < 0]
        if missing:
            example = self.names["id_str"].iloc[0]
            raise PredictionError(
                f"id_str {', '.join(missing[:5])}: not in {self.path}, whose names are like {example!r}"
            )
        return positions

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """All the vectors in order, a few thousand at a time: (galaxies, features) float32.

        Raises:
            PredictionError: they are not all of one length, or not finite.
            CatalogError: the file is damaged.
        """
        width = None
        try:
            for batch in self._file.iter_batches(ROWS_AT_A_TIME, columns=self._columns):
                vectors = self._as_vectors(batch)
                width = width or vectors.shape[1]
                if vectors.shape[1] != width:
                    raise PredictionError(
                        f"{self.path}: representations are of {width} and {vectors.shape[1]} features"
                    )
                if not np.isfinite(vectors).all():
                    raise PredictionError(f"{self.path}: has representations with numbers that are not finite")
                yield vectors
        except (pa.ArrowException, OSError) as error:
            raise CatalogError(f"{self.path}: cannot be read: {str(error).splitlines()[0][:300]}") from error

    def _as_vectors(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        if self._columns != ["representation"]:
            columns = [np.asarray(column.to_numpy(zero_copy_only=False), np.float32) for column in batch.columns]
            return np.stack(columns, axis=1)
        lists = batch.column(0)
        flat = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.float32)
        lengths = {length.as_py() for length in pc.unique(pc.list_value_length(lists))}
        if len(lengths) != 1 or None in lengths or not flat.size:
            raise PredictionError(f"{self.path}: the lists in representation must all be of one length, and not empty")
        return flat.reshape(len(lists), -1)


def _find_columns(path: Path, schema: pa.Schema) -> list[str]:
    """The columns that hold the features, in order."""
    if "id_str" not in schema.names:
        raise CatalogError(f"{path}: lacks the column id_str")
    if "representation" in schema.names:
        kind = schema.field("representation").type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not is_list or not pa.types.is_floating(kind.value_type):
            raise PredictionError(f"{path}: representation holds {kind}; expected lists of floating-point numbers")
        if pa.types.is_fixed_size_list(kind) and kind.list_size > _MOST_FEATURES:
            raise PredictionError(f"{path}: representation claims {kind.list_size} features; is it damaged?")
        return ["representation"]
    columns = [f"feature_{number}" for number in range(sum(name.startswith("feature_") for name in schema.names))]
    if not columns or not set(columns) <= set(schema.names):
        raise PredictionError(f"{path}: has neither a column representation nor feature_0, feature_1, …")
    if not all(pa.types.is_floating(schema.field(name).type) for name in columns):
        raise PredictionError(f"{path}: columns feature_… must hold floating-point numbers")
    return columns


def pca_path(save_loc: str | Path) -> Path:
    """Where the principal components of representations lie.

    >>> pca_path("out/reps.parquet").name
    'reps.pca.safetensors'
    """
    return Path(save_loc).with_suffix(".pca.safetensors")


def save_components(components: PrincipalComponents, path: Path, about: Mapping[str, Any]) -> None:
    """Write components as safetensors, with ``explained_variance_ratio`` for others to read."""
    tensors = {
        "mean": components.mean,
        "components": components.components,
        "explained_variance": components.explained_variance,
        "explained_variance_ratio": components.explained_variance_ratio,
        "total_variance": np.array([components.total_variance]),
    }
    plain = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    with replace_atomically(path) as temporary:
        # one entry only: safetensors writes several in any order, and the same twice should be the same bytes
        temporary.write_bytes(safetensors.numpy.save(plain, metadata={_METADATA: json.dumps(about)}))


def load_components(path: str | Path, about: Mapping[str, Any]) -> PrincipalComponents:
    """Read components, from their file or that beside the representations that they compressed.

    Args:
        path: ``.pca.safetensors``, or the ``.parquet`` beside it.
        about: what they must be of: checked against what they were saved with.

    Raises:
        PredictionError: there is no such file, it is none, or belongs to another model.
    """
    path = pca_path(path) if Path(path).suffix == ".parquet" else Path(path)
    fix = "expected what `zoobot represent --pca` wrote"
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            found = json.loads((file.metadata() or {})[_METADATA])
            tensors = {name: file.get_tensor(name) for name in ("mean", "components", "explained_variance")}
            total = float(file.get_tensor("total_variance")[0])
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise PredictionError(f"pca_from: {path} cannot be read ({error}); {fix}") from error
    components = PrincipalComponents(**tensors, total_variance=total)
    shape = components.components.shape
    if len(shape) != 2 or components.mean.shape != shape[1:] or components.explained_variance.shape != shape[:1]:
        raise PredictionError(f"pca_from: {path} holds tensors of other shapes; {fix}")
    changed = [name for name in about if found.get(name) != about[name]]
    if changed:
        raise PredictionError(
            f"pca_from: {path} was fitted with another {' and '.join(changed)}; "
            "use the model and views that it was made with, or fit anew with --pca"
        )
    return components
