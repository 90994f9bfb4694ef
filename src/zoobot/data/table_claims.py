"""What a table says of its own size and what it refers to, checked before memory is taken: it may be a stranger's.

The libraries that parse tables make room for as much as a file claims to hold, and follow links that it holds.
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zoobot.errors import CatalogError

__all__ = ["check_claim", "check_columns", "check_ecsv", "check_fits", "check_votable", "read_parquet"]

_MOST_COLUMNS = 10_000
_MOST_TIMES = 1000  # a table takes this much more memory than its file: no honest compression does better
_SMALL = 2**28  # bytes that no machine lacks, whatever the size of the file


def check_claim(path: Path, count: int, width: int = 8) -> None:
    """Refuse a file that says it holds ``count`` things of ``width`` bytes where it is much too small for them.

    Raises:
        CatalogError: it would take over 1000 times the memory that the file has bytes, and over 256 MiB.
    """
    size = path.stat().st_size
    if count * width > max(_SMALL, _MOST_TIMES * size):
        raise CatalogError(
            f"{path}: would take {count * width:,} bytes of memory for {size:,} in the file; is it damaged?"
        )


def check_columns(path: Path, names: Sequence[str]) -> None:
    """Refuse repeated names, and more columns than the libraries handle in a reasonable time.

    Raises:
        CatalogError: the names are not unique, or over 10,000.
    """
    if len(names) > _MOST_COLUMNS:
        raise CatalogError(f"{path}: has {len(names):,} columns; expected at most {_MOST_COLUMNS:,}")
    repeated = [repr(name[:100]) for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise CatalogError(f"{path}: column names must be unique; more than once: {', '.join(repeated[:8])}")


def read_parquet(path: Path) -> pa.Table:
    """Read a parquet file that is no larger, when unpacked, than a file of its size may be.

    A text that is there a million times lies in the file once, so texts are read as references and counted first.

    Raises:
        CatalogError: as :func:`check_claim` and :func:`check_columns`.
        pyarrow.ArrowException: it is corrupt.
    """
    with pq.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
        check_columns(path, schema.names)
        check_claim(path, metadata.num_rows * len(schema))
        check_claim(
            path, sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)), 1
        )
    texts = [field.name for field in schema if _is_text(field.type)]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        table = file.read()
    chunks = [chunk for column in table.columns for chunk in column.chunks]
    dictionaries = [chunk for chunk in chunks if pa.types.is_dictionary(chunk.type) and _is_text(chunk.type.value_type)]
    lengths = (pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)) for chunk in dictionaries)
    check_claim(path, sum(length.as_py() or 0 for length in lengths), 1)
    table = table.cast(schema)
    table.validate(full=True)  # text that is not UTF-8 would come up much later
    return table


def _is_text(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    )


def check_fits(path: Path, hdu: Any) -> None:
    """Refuse a FITS table that claims more than the file has, in its header or its rows, or columns of no width.

    Of a gzipped file the size is not known; there, as :func:`check_claim`.

    Raises:
        CatalogError: as above.
    """
    header = hdu.header
    if not 0 <= header["TFIELDS"] <= 999:
        raise CatalogError(f"{path}: has {header['TFIELDS']} columns (TFIELDS); expected 0 to 999, as FITS has it")
    check_claim(path, hdu.size, 1)
    begin = hdu.fileinfo()["datLoc"]
    size = path.stat().st_size
    if path.suffix != ".gz" and begin + header["NAXIS1"] * header["NAXIS2"] > size:
        raise CatalogError(
            f"{path}: is torn, or its header wrong: {header['NAXIS2']} rows of {header['NAXIS1']} bytes from byte "
            f"{begin} on do not fit into its {size} bytes"
        )
    empty = [column.name for column in hdu.columns if hdu.columns.dtype[column.name].itemsize == 0]
    if empty:  # of whose texts astropy gives what lies about in memory
        raise CatalogError(f"{path}: columns of no width: {', '.join(map(repr, empty[:8]))}; leave them out")
    variable = [number for number, column in enumerate(hdu.columns) if re.match(r"\d*[PQ]", column.format)]
    lengths = [np.recarray.field(hdu.data, number)[:, 0] for number in variable]  # any row may refer to all of the heap
    check_claim(path, sum(int(length.astype(np.float64).sum()) for length in lengths))


def check_ecsv(path: Path) -> None:
    """Refuse repeated names, which astropy would rename, and cells with more numbers than the file may have.

    Raises:
        CatalogError: as :func:`check_claim` and :func:`check_columns`.
    """
    delimiter, rows, cells = " ", 0, 0
    with open(path, encoding="utf-8-sig", newline="") as file:
        for line in file:
            if not line.startswith("#"):
                rows += bool(line.strip())
                if rows == 1:
                    check_columns(path, next(csv.reader([line.strip()], delimiter=delimiter)))
            elif re.match(r"#\s*delimiter:\s*['\"]?,", line):
                delimiter = ","
            else:
                cells += sum(
                    _count_cells(shape) for shape in re.findall(r"subtype:[^\[\]]{0,40}\[([^\]]{0,200})\]", line)
                )
    check_claim(path, rows * cells)


def check_votable(path: Path) -> None:
    """Refuse a VOTable that declares entities, links to data elsewhere, or claims more than the file may hold.

    Raises:
        CatalogError: as above, and as :func:`check_claim` and :func:`check_columns`.
        xml.parsers.expat.ExpatError: it is no XML.
    """
    names: list[str] = []
    rows = cells = claimed = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal rows, cells, claimed
        tag = tag.rpartition(":")[2]
        if tag == "TR":
            rows += 1
        elif tag == "FIELD":
            names.append(attributes.get("name", ""))
            if len(names) > _MOST_COLUMNS:
                check_columns(path, names)
            cells += _count_cells(attributes.get("arraysize", ""))
        elif tag == "TABLE":
            names.clear()
            claimed += _whole(attributes.get("nrows", ""))
        elif tag == "STREAM" and "href" in attributes:
            raise CatalogError(
                f"{path}: its data lie elsewhere ({attributes['href'][:200]!r}); expected all in one file"
            )

    def refuse_entity(name: str, *_: object) -> None:
        raise CatalogError(f"{path}: declares the entity {name[:100]!r}; expected XML without any")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EntityDeclHandler = refuse_entity
    with open(path, "rb") as file:
        parser.ParseFile(file)
    check_columns(path, names)
    check_claim(path, max(rows, claimed) * cells)


def _count_cells(shape: str) -> int:
    """How many numbers a shape such as ``10x20`` or ``3,4`` has room for; 1 where it says that they vary."""
    lengths = [_whole(length) for length in re.split("[x,]", shape) if "*" not in length]
    return max(1, math.prod(length for length in lengths if length))


def _whole(text: str) -> int:
    return int(text) if re.fullmatch(r"\s*\d{1,18}\s*", text) else 0
