"""Files of strangers: each is refused in a line or two, within seconds and little memory, or read right.

`docs/hostile_input.md` lists every case; those that other files of tests hold are named there too.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from astropy.io import fits
from astropy.table import Table
from conftest import make_model
from fuzzing import harnesses
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zoobot import files, schemas
from zoobot.data import images, shard_index, shards, tfrecord
from zoobot.data.catalog import read_catalog
from zoobot.data.manifest import MANIFEST_NAME, Manifest
from zoobot.data.tables import read_table
from zoobot.errors import CatalogError, ImageError, ModelError, SchemaError, SettingError, ShardError, ZoobotError
from zoobot.estimators import checkpoint
from zoobot.predictions.calibration_file import load_calibration
from zoobot.schemas import Schema

ROOT = Path(__file__).parents[1]
MEMORY = 2**32  # bytes: an image of 8192 by 8192 pixels fits, and what threads set aside
SECONDS = 30
LONGEST = 10_000  # letters of a message

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory and time as Linux does")


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """Fail a case that takes more memory or time than a refusal may."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"took over {SECONDS} seconds")

    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    previous = signal.signal(signal.SIGALRM, give_up)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def refused(kind: type[ZoobotError], message: str) -> Iterator[None]:
    with pytest.raises(kind, match=message) as caught:
        yield
    assert len(str(caught.value)) < LONGEST


# --- what once broke something, and what a fuzzer would find


@pytest.mark.parametrize(
    "path", sorted(harnesses.CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_what_once_broke_something(path: Path, tmp_path: Path) -> None:
    with contextlib.suppress(ZoobotError):
        harnesses.HARNESSES[path.parent.name](path.read_bytes(), tmp_path)


@pytest.mark.parametrize("parser", sorted(harnesses.HARNESSES))
@settings(max_examples=20)
@given(data=st.data())
def test_good_files_with_a_piece_replaced(
    parser: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = data.draw(st.sampled_from(list(harnesses.good_files(parser))))
    start = data.draw(st.integers(1, len(content) - 1))
    piece = data.draw(st.binary(max_size=8))
    end = data.draw(st.sampled_from([start, start + len(piece), len(content)]))
    folder = tmp_path_factory.mktemp("fuzzed")
    with contextlib.suppress(ZoobotError):
        harnesses.HARNESSES[parser](content[:start] + piece + content[end:], folder)


# --- tables

HEADER = "id_str,file_loc,smooth\n"


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_votes(path: Path) -> list[float]:
    votes: list[float] = read_catalog(path, ["smooth"], check_files=False)["smooth"].tolist()
    return votes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((HEADER + "1,a,2\n").encode("utf-16"), "can't decode byte"),
        (HEADER.encode() + b"1,\xff\xfe,2\n", "can't decode byte"),
        ("id_str;file_loc;smooth\n1;a;2\n", "missing columns: 'id_str'"),
        ("<!DOCTYPE html>\n<html>404</html>\n", "missing columns: 'id_str'"),
        (HEADER, "no rows"),
        (HEADER + '1,"a,2\n2,b,3\n', "EOF inside string"),
        (HEADER + f"1,{'a' * 10_000_000},2\n", "field larger than field limit"),
        (f"id_str,{'a' * 10_000_000}\n1,2\n", "field larger than field limit"),
        (",".join(map(str, range(1_000_000))) + "\n", "1,000,000 columns; expected at most 10,000"),
        (HEADER + "1,a,2" + "," * 1_000_000 + "\n", "1,000,003 fields, the header 3"),
        (HEADER + "1,a\n", "1 missing"),
        ("id_str\0,file_loc,smooth\n1,a,2\n", "missing columns: 'id_str'"),
        (HEADER + "1,a,2\x003\n", "non-numeric"),
    ],
    ids=str,
)
def test_csv_that_is_none(tmp_path: Path, content: bytes | str, message: str) -> None:
    with refused(CatalogError, message):
        read_votes(write(tmp_path / "catalog.csv", content))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        *((text, "non-numeric") for text in ("0x10", "1_0", '"1,5"', "١٢", "1e", "1d3", "1 000", "1+2j", "3%", "½")),
        *((text, "above a million") for text in ("1e400", "inf", "Infinity", "1000001", "1" * 30)),
        *((text, "missing") for text in ("nan", "NA", "")),
        *((text, "negative") for text in ("-1", "-inf", "-1e-9")),
    ],
)
def test_votes_that_are_no_numbers(tmp_path: Path, text: str, fault: str) -> None:
    with refused(CatalogError, f"votes: 1 {fault}"):
        read_votes(write(tmp_path / "catalog.csv", f"{HEADER}1,a,{text}\n"))


@pytest.mark.parametrize(
    ("text", "votes"), [("+3", 3), (" 3 ", 3), ("-0", 0), ("1e-400", 0), ("3.50", 3.5), ("1e3", 1000)]
)
def test_votes_that_look_odd_and_are_numbers(tmp_path: Path, text: str, votes: float) -> None:
    assert read_votes(write(tmp_path / "catalog.csv", f"{HEADER}1,a,{text}\n")) == [votes]


def test_line_ends_may_be_mixed(tmp_path: Path) -> None:
    content = "\r\n\n" + HEADER.replace("\n", "\r\n") + "1,a,2\r\n2,b,3\r3,c,4"
    assert read_votes(write(tmp_path / "catalog.csv", content)) == [2, 3, 4]


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


GALAXIES = {"id_str": pa.array(["1", "2"]), "file_loc": pa.array(["a", "b"]), "smooth": pa.array([1, 2])}
PARQUET = parquet(pa.table(GALAXIES))


def constant_rows(number: int) -> bytes:
    column = pa.array(np.zeros(number, np.int8))
    return parquet(pa.table({"smooth": column, "disk": column}), row_group_size=number)


def long_text_in_every_row() -> bytes:
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), pa.array(["x" * 100_000]))
    return parquet(pa.table({"id_str": text}), compression="zstd")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PARQUET[:-20], "magic bytes not found"),
        (PARQUET[:10], "magic bytes not found"),
        (PARQUET[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1", "size reported by footer"),
        (parquet(pa.table({**GALAXIES, "id_str": pa.array([["1"], ["2"]])})), "Unsupported cast from list"),
        (parquet(pa.table({**GALAXIES, "smooth": pa.array([{"a": 1}, {"a": 2}])})), "non-numeric"),
        (parquet(pa.table({**GALAXIES, "id_str": pa.array([b"\xff", b"2"])})), "Invalid UTF8"),
        (parquet(pa.table(GALAXIES).replace_schema_metadata({"pandas": '{"index_columns": 3}'})), "cannot be read as"),
        (parquet(pa.table({f"c{number}": [1] for number in range(10_001)})), "10,001 columns"),
    ],
    ids=range(8),
)
def test_parquet_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    with refused(CatalogError, message):
        read_votes(write(tmp_path / "catalog.parquet", content))


@pytest.mark.parametrize("make", [lambda: constant_rows(30_000_000), long_text_in_every_row])
def test_parquet_that_unpacks_to_gigabytes(tmp_path: Path, make: Callable[[], bytes]) -> None:
    with refused(CatalogError, "would take [0-9,]+ bytes of memory for [0-9,]+ in the file"):
        read_table(write(tmp_path / "catalog.parquet", make()))


def test_parquet_with_references_and_odd_numbers_is_read(tmp_path: Path) -> None:
    table = pa.table(
        {**GALAXIES, "id_str": pa.array(["1", "2"]).dictionary_encode(), "smooth": pa.array([1.5, 2], pa.float16())}
    )
    assert read_votes(write(tmp_path / "catalog.parquet", parquet(table))) == [1.5, 2]


def fits_table(columns: dict[str, Any], **changes: object) -> bytes:
    """A FITS table whose header then claims something else."""
    file = io.BytesIO()
    Table(columns).write(file, format="fits")
    content = file.getvalue()
    begin = content.index(b"XTENSION")
    for key, value in changes.items():
        place = content.index(key.ljust(8).encode(), begin)
        card = f"{key:<8}= {value:>20}".ljust(80).encode()
        content = content[:place] + card + content[place + 80 :]
    return content


ROWS = {"id_str": ["a", "b"], "file_loc": ["a", "b"], "smooth": [1, 2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (fits_table(ROWS)[:-2880], "is torn, or its header wrong"),
        (fits_table(ROWS)[:3000], "holds no table"),
        (fits_table(ROWS, NAXIS2=10**12), "would take .* bytes of memory"),
        (fits_table(ROWS, NAXIS2=10**5), "is torn, or its header wrong"),
        (fits_table(ROWS, NAXIS2=-5), "cannot be read as .fits"),
        (fits_table(ROWS, NAXIS2="'many'"), "cannot be read as .fits"),
        (fits_table(ROWS, PCOUNT=10**15), "cannot be read as .fits|would take"),
        (fits_table(ROWS, TFIELDS=10**9), "expected 0 to 999"),
        (fits_table(ROWS, TFIELDS=999), "cannot be read as .fits"),
        (fits_table(ROWS, TFORM1="'0A'"), "columns of no width: 'id_str'"),
        (fits_table(ROWS, TFORM3="'99999999999K'"), "cannot be read as .fits"),
        (fits_table(ROWS, TFORM1="'Q'"), "cannot be read as .fits"),
        (fits_table(ROWS, TTYPE3="'id_str'"), "name already used"),
        (fits_table({**ROWS, "id_str": np.ones((2, 3))}), "id_str holds lists or objects"),
        (b"PK\3\4" + bytes(3000), "no FITS file"),
    ],
    ids=range(15),
)
@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_fits_tables_that_are_none(tmp_path: Path, content: bytes, message: str, suffix: str) -> None:
    content = gzip.compress(content, 1) if suffix == ".fits.gz" and content.startswith(b"SIMPLE") else content
    gzipped = "|cannot be read as|would take" if suffix == ".fits.gz" else ""  # where the size is not known beforehand
    with refused(CatalogError, message + gzipped):
        read_votes(write(tmp_path / f"catalog{suffix}", content))


def test_a_fits_table_whose_rows_all_refer_to_the_same_numbers(tmp_path: Path) -> None:
    rows, numbers = 1000, 1_000_000
    column = fits.Column("smooth", "PJ()", array=np.array([np.zeros(1, np.int32)] * rows, dtype=object))
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([column])]).writeto(file)
    begin = 2 * 2880
    header = file.getvalue()[:begin].replace(f"{4 * rows:>20} / ".encode(), f"{4 * numbers:>20} / ".encode())
    content = header + np.array([[numbers, 0]] * rows, ">i4").tobytes() + bytes(4 * numbers)
    with refused(CatalogError, "would take 8,000,000,000 bytes of memory"):
        read_table(write(tmp_path / "catalog.fits.gz", gzip.compress(content + bytes(-len(content) % 2880), 1)))


FIELDS = '<FIELD name="id_str" datatype="char" arraysize="*"/><FIELD name="smooth" datatype="int"/>'
DATA = "<TABLEDATA><TR><TD>1</TD><TD>2</TD></TR></TABLEDATA>"
LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))


def votable(fields: str = FIELDS, data: str = DATA, attributes: str = "", declared: str = "") -> str:
    version = 'version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"'
    table = f"<TABLE {attributes}>{fields}<DATA>{data}</DATA></TABLE>"
    return f'<?xml version="1.0"?>{declared}<VOTABLE {version}><RESOURCE>{table}</RESOURCE></VOTABLE>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (votable()[:-60], "unclosed|no element"),
        ("<html>404</html>", "cannot be read as .vot"),
        (votable(declared=f'<!DOCTYPE x [<!ENTITY a0 "ha">{LAUGHS}]>', data=DATA.replace("1", "&a11;")), "entity 'a0'"),
        (votable(declared='<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>'), "entity 'e'"),
        (votable(data='<BINARY><STREAM href="http://localhost:9/"/></BINARY>'), "data lie elsewhere"),
        (votable(data='<FITS><STREAM href="file:///etc/hostname"/></FITS>'), "data lie elsewhere"),
        (votable(attributes='nrows="1000000000000"'), "would take"),
        (votable(FIELDS.replace('"*"', '"2000000000"')), "would take"),
        (votable(FIELDS.replace('"*"', '"99999x99999"')), "would take"),
        (votable(FIELDS.replace('"*"', '"-5"')), "Invalid arraysize"),
        (votable(FIELDS.replace("smooth", "id_str")), "more than once: 'id_str'"),
        (votable("".join(f'<FIELD name="c{n}" datatype="int"/>' for n in range(10_001))), "10,001 columns"),
        (votable(data=DATA.replace("2", "2.7")), "invalid literal"),
        ("<VOTABLE>" + "<RESOURCE>" * 100_000, "cannot be read as .vot"),
    ],
    ids=range(14),
)
def test_votables_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    with refused(CatalogError, message):
        read_table(write(tmp_path / "catalog.vot", content))


def ecsv(more: str = "", smooth: str = "{name: smooth, datatype: int64}", body: str = "id_str smooth\na 1\n") -> str:
    columns = f"# - {{name: id_str, datatype: string}}\n# - {smooth}\n"
    return f"# %ECSV 1.0\n# ---\n# datatype:\n{columns}{more}# schema: astropy-2.0\n{body}"


SERIALIZED = """# meta: !!omap
# - __serialized_columns__:
#     smooth: !astropy.table.SerializedColumn
#       __class__: subprocess.Popen
#       args: !astropy.table.SerializedColumn {name: smooth}
"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ecsv("# meta: !!python/object/apply:os.mkdir ['executed']\n"), "unable to parse yaml"),
        (ecsv(SERIALIZED), "unsupported class"),
        (ecsv(f"# meta: {'[' * 5000}\n"), "unable to parse yaml"),
        (ecsv(smooth="{name: smooth, datatype: string, subtype: 'float64[100000,100000]'}"), "would take"),
        (ecsv(smooth="{name: id_str, datatype: string}", body="id_str id_str\na b\n"), "more than once: 'id_str'"),
        (ecsv(body="id_str smooth\na 1.5\n"), "failed to convert"),
        ("id_str,smooth\na,1\n", "ECSV header"),
    ],
    ids=range(7),
)
def test_ecsv_tables_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with refused(CatalogError, message):
        read_table(write(tmp_path / "catalog.ecsv", content))
    assert not (tmp_path / "executed").exists()


# --- pipes, devices and links, wherever a file is expected


READERS: dict[str, tuple[str, Callable[[Path], object], type[ZoobotError]]] = {
    "tree": ("tree.toml", schemas.load, SchemaError),
    "catalog": ("catalog.csv", read_table, CatalogError),
    "image": ("image.png", images.read_image, ImageError),
    "tfrecord": ("file.tfrecord", lambda path: shards.ShardDataset([path]), ShardError),
    "manifest": (MANIFEST_NAME, lambda path: Manifest.load(path.parent), ShardError),
    "config": ("config.json", lambda path: checkpoint.load_config(path.parent), ModelError),
}


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "dangling", "empty"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file(tmp_path: Path, reader: str, kind: str) -> None:
    name, read, error = READERS[reader]
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    else:
        path.symlink_to({"device": "/dev/zero", "loop": name, "dangling": "nowhere"}[kind])
    with refused(error, re.escape(str(tmp_path))):
        read(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("reader", READERS)
def test_what_may_not_be_read(tmp_path: Path, reader: str) -> None:
    name, read, error = READERS[reader]
    path = write(tmp_path / name, b"x")
    path.chmod(0)
    with refused(error, re.escape(str(tmp_path))):
        read(path)


NAMES = [
    "a b.png",
    "a,b.png",
    "a\nb.png",
    "星 é.png",
    "'\"`$(x).png",
    "-rf.png",
    "%s{}.png",
    "\udcff.png",
    "a" * 251 + ".png",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_of_images(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / name, "PNG")
    assert images.find_images(tmp_path, "png") == [tmp_path / name]
    assert (images.read_image(tmp_path / name) == 9).all()


@pytest.mark.parametrize(
    "name", ["null\0byte.png", "a" * 300 + ".png", "/proc/self/mem", "http://localhost:9/a.png", ""]
)
def test_names_that_no_image_can_have(tmp_path: Path, name: str) -> None:
    with refused(ImageError, "cannot read image"):
        images.read_image(os.path.join(tmp_path, name))  # noqa: PTH118  # Path drops what is odd about them


def test_a_folder_linked_into_itself_is_searched_once(tmp_path: Path) -> None:
    write(tmp_path / "a.png", b"x")
    (tmp_path / "again").symlink_to(tmp_path)
    assert images.find_images(tmp_path, "png", recursive=True) == [tmp_path / "a.png"]


# --- images


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, extra: bytes = b"") -> bytes:
    """A PNG that says it has so many pixels, and has none."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(11)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def jpeg(mode: str, width: int, height: int) -> bytes:
    """A JPEG that says it has so many pixels."""
    file = io.BytesIO()
    Image.new(mode, (16, 16)).save(file, "JPEG")
    content = file.getvalue()
    place = re.search(rb"\xff[\xc0-\xc2]\x00", content).end() + 2  # type: ignore[union-attr]
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


PALETTE = chunk(b"PLTE", bytes(3))
BOMB_IN_TEXT = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7)))


@pytest.mark.parametrize(
    "content",
    [
        *(
            png(2**31 - 1, 2**31 - 1, depth, colour)
            for depth, colour in [(8, 0), (8, 2), (16, 2), (16, 6), (1, 0), (8, 4)]
        ),
        png(2**31 - 1, 2**31 - 1, 8, 3, PALETTE),
        *(png(8192, 8192, depth, colour) for depth, colour in [(8, 6), (1, 0)]),
        *(png(width, height, 8, 2) for width, height in [(0, 0), (0, 5), (2**32 - 1, 1), (2**26 + 1, 1)]),
        png(10, 10, 3, 2),
        png(10, 10, 8, 7),
        png(10, 10, 8, 3),
        png(10, 10, 8, 3, PALETTE + BOMB_IN_TEXT),
        *(jpeg(mode, 65_535, 65_535) for mode in ("L", "RGB", "CMYK")),
        *(jpeg(mode, 8192, 8192) for mode in ("L", "CMYK")),
        jpeg("RGB", 0, 16),
        b"<!DOCTYPE html><html>404</html>",
        b"GIF89a" + bytes(100),
        b"BM" + bytes(100),
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"",
    ],
    ids=range(29),
)
def test_images_that_are_none(content: bytes) -> None:
    with refused(ImageError, "cannot read image it: "):
        images.decode_image(content, name="it", size=8)


# --- decision trees


def chain(questions: int) -> str:
    entries = (
        f'[[question]]\nname = "q{n}"\nanswers = ["y", "n"]\n' + (f'asked_after = ["q{n - 1}_y"]\n' if n else "")
        for n in range(questions)
    )
    return "".join(entries)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[[question]]\nname="a"\nanswers=["x"]\n' * 100_000, "larger than 1,000,000 bytes"),
        (chain(10_000), "at most 1,000 answers"),
        (f'[[question]]\nname = "{"a" * 900_000}"\nanswers = ["x", "y"]\n', "expected one line of 1 to 300"),
        (f'description = "{"a" * 10_000_000}"\n', "larger than 1,000,000 bytes"),
        ("[a" + ".a" * 400_000 + "]\n", "not valid TOML|unknown key"),
        ("a = " + "{a=" * 200_000, "not valid TOML"),
        ('name = "x"\nname = "y"\n', "not valid TOML"),
        ("question = 3\n", "expected a list"),
        ("question = 1e400\n", "expected a list"),
        ("name = 1979-05-27T07:32:00Z\n", "expected one line"),
        ('[[question]]\nname = "a"\nanswers = [["x"], {}]\n', "expected one line"),
        ('[[question]]\nname = "a\\u0000"\nanswers = ["x", "y"]\n', "expected one line"),
        ("\0", "not valid TOML"),
        (chain(2).replace("q0_y", "q1_y"), "cycle"),
    ],
    ids=range(14),
)
def test_trees_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    with refused(SchemaError, message):
        schemas.load(write(tmp_path / "tree.toml", content))


def test_a_tree_that_is_its_own_answer() -> None:
    loop: dict[str, Any] = {"name": "made"}
    loop["question"] = [loop]
    with refused(SchemaError, "unknown key"):
        Schema.from_dict(loop)


def test_a_tree_where_every_answer_leads_everywhere() -> None:
    everything = [f"q{n}_{answer}" for n in range(200) for answer in "yn"]
    entries = [{"name": f"q{n}", "answers": ["y", "n"], "asked_after": everything[: 2 * n]} for n in range(200)]
    with refused(SchemaError, "a volunteer might give both"):
        Schema.from_dict({"name": "made", "question": entries})


# --- TFRecords and their indexes


def varint(number: int) -> bytes:
    return tfrecord._encode_varint(number)


def field(number: int, content: bytes, length: int | None = None) -> bytes:
    return varint(number << 3 | 2) + varint(len(content) if length is None else length) + content


def feature(name: str, kind: int, content: bytes) -> bytes:
    return field(1, field(1, name.encode()) + field(2, field(kind, content)))


def number(name: str, value: int) -> bytes:
    return feature(name, 3, field(1, varint(value)))


def example(*features: bytes, matrix: bytes = bytes(12), sides: tuple[int, int, int] = (2, 2, 3)) -> bytes:
    sizes = (number(name, side) for name, side in zip(("height", "width", "channels"), sides, strict=True))
    return field(1, feature("matrix", 1, field(1, matrix)) + b"".join(sizes) + b"".join(features))


def lying_length(length: int) -> bytes:
    header = struct.pack("<Q", length)
    return header + struct.pack("<I", tfrecord._masked_checksum(header)) + bytes(100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *((lying_length(length), "torn: it needs") for length in (2**63, 2**64 - 1, 2**64 - 13, 101, 97)),
        (bytes(1000), "checksum of its length is wrong"),
        (harnesses.frame(example())[:-1], "torn"),
        (harnesses.frame(example())[:-5] + b"x" + harnesses.frame(example())[-4:], "checksum of its data is wrong"),
        (b"<html>404</html>", "is this a TFRecord file"),
        (harnesses.frame(b""), "no image"),
        (harnesses.frame(b"\x0a" * 1_000_000), "not a tf.train.Example|no image"),
        (harnesses.frame(field(1, b"", length=2**63)), "not a tf.train.Example"),
        (harnesses.frame(b"\xff" * 11), "has no end"),
        (harnesses.frame(example(feature("smooth", 3, b"\x0a\x01\x80"))), "has no end"),
        (harnesses.frame(example(feature("smooth", 3, field(1, b"\xff" * 11)))), "has no end"),
        (harnesses.frame(example(feature("smooth", 2, field(1, b"123")))), "not a whole number of them"),
        (harnesses.frame(example(feature("smooth", 2, field(1, b"1234", length=99)))), "runs over the end"),
        (
            harnesses.frame(example(feature("\udcff".encode(errors="surrogateescape").decode("latin-1"), 3, b"\x0c"))),
            "wire type 4",
        ),
        (harnesses.frame(field(1, field(1, field(1, b"\xff\xfe")))), "not a tf.train.Example"),
        (harnesses.frame(example(matrix=bytes(11))), "its matrix holds 11 bytes"),
        (harnesses.frame(example(matrix=bytes(13))), "its matrix holds 13 bytes"),
        (harnesses.frame(example(sides=(2**32, 2**32, 3))), "expected sides from 1"),
        (harnesses.frame(example(sides=(-1, -4, 3))), "expected sides from 1"),
        (harnesses.frame(example(feature("height", 2, field(1, bytes(4))))), "kind float, not int64"),
        (harnesses.frame(example(*(number(f"f{n}", n) for n in range(10_001)))), "10,005 features"),
        (harnesses.frame(), "holds no galaxies"),
    ],
    ids=range(26),
)
def test_tfrecords_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    with refused(ShardError, message):
        shards.ShardDataset([write(tmp_path / "file.tfrecord", content)])


def test_odd_records_that_are_galaxies(tmp_path: Path) -> None:
    unpacked = feature("unpacked", 2, b"\x0d" + struct.pack("<f", 1.5))
    packed = feature("packed", 2, field(1, struct.pack("<f", 2.5)))
    overlong = feature("overlong", 3, field(1, b"\x83\x80\x80\x00"))
    twice = number("twice", 1) + number("twice", 2)
    unknown = feature("unknown", 3, b"\x15\xff\xff\xff\xff" + field(1, varint(7)))
    identity = feature("id_str", 1, field(1, b"\xff\0"))
    records = harnesses.frame(example(unpacked, packed, overlong, twice, unknown, identity))
    dataset = shards.ShardDataset([write(tmp_path / "file.tfrecord", records)])
    votes = dict(zip(dataset.label_cols, dataset.votes[0].tolist(), strict=True))
    assert votes == {"unpacked": 1.5, "packed": 2.5, "overlong": 3, "twice": 2, "unknown": 7}  # the last counts
    assert dataset.id_str == ["\\xff\0"]


def test_a_galaxy_without_a_name_gets_one(tmp_path: Path) -> None:
    dataset = shards.ShardDataset([write(tmp_path / "file.tfrecord", harnesses.frame(example(), example()))])
    assert dataset.id_str == ["file-0", "file-1"]


@pytest.mark.parametrize("votes", [np.nan, np.inf, -1, 2e6])
def test_votes_that_nobody_can_have_given(tmp_path: Path, votes: float) -> None:
    record = example(feature("smooth", 2, field(1, struct.pack("<f", votes))))
    path = write(tmp_path / "file.tfrecord", harnesses.frame(example(number("smooth", 1)), record))
    with refused(ShardError, r"galaxy file-1 has .* votes for smooth; expected 0 to 1,000,000 \(1 such"):
        shards.ShardDataset([path], ["smooth"])
    assert len(shards.ShardDataset([path])) == 2  # unless they are asked for they may be anything, such as coordinates


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    path = write(
        tmp_path / "file.tfrecord", harnesses.frame(example(number("smooth", 3)), example(number("smooth", 4)))
    )
    shard_index.load_index(path)
    return path


def change_index(path: Path, name: str, values: list[Any]) -> None:
    table = pq.read_table(shard_index.index_path(path))
    place = table.schema.get_field_index(name)
    table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    shard_index.write_index(table, path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("start", [-1, 50]),
        ("end", [10**6, 200]),
        ("end", [2**63 - 1, 2**63 - 1]),
        ("start", [10**5, 10**5]),
        ("end", [0, 0]),
        ("height", [0, 0]),
        ("width", [2**31 - 1, 2]),
        ("channels", [-3, 3]),
        ("height", [4, 4]),
    ],
)
def test_an_index_that_lies(indexed: Path, name: str, values: list[int]) -> None:
    change_index(indexed, name, values)
    with refused(ShardError, "points outside|gives it another length"):
        shards.ShardDataset([indexed])


def drop_votes(path: Path) -> None:
    index = shard_index.index_path(path)
    shard_index.write_index(pq.read_table(index).drop_columns("smooth"), path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: change_index(path, "start", [None, None]),
        lambda path: change_index(path, "id_str", [None, "b"]),
        lambda path: shard_index.index_path(path).write_bytes(b"PAR1"),
        lambda path: shard_index.index_path(path).write_bytes(parquet(pa.table(GALAXIES))),
        lambda path: shard_index.index_path(path).write_bytes(constant_rows(30_000_000)),
        lambda path: shard_index.index_path(path).write_bytes(
            (lambda table: parquet(table.append_column("smooth", table["smooth"])))(shard_index.load_index(path))
        ),
    ],
    ids=range(6),
)
def test_an_index_that_is_none_is_made_again(indexed: Path, damage: Callable[[Path], object]) -> None:
    damage(indexed)
    dataset = shards.ShardDataset([indexed], ["smooth"])
    assert dataset.votes.tolist() == [[3], [4]]


def test_an_index_that_is_a_pipe_is_not_waited_for(indexed: Path) -> None:
    shard_index.index_path(indexed).unlink()
    os.mkfifo(shard_index.index_path(indexed))
    with contextlib.suppress(ZoobotError):
        assert len(shards.ShardDataset([indexed])) == 2


def test_an_index_without_the_votes(indexed: Path) -> None:
    drop_votes(indexed)
    with refused(ShardError, "lacks the votes smooth"):
        shards.ShardDataset([indexed], ["smooth"])


# --- manifests, model folders, recalibrations


MANIFEST = {
    "schema": schemas.load("gz_rings").to_dict(),
    "image_size": 32,
    "channels": 3,
    "encoding": "raw",
    "counts": {},
}


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"schema": ' * 100_000,
        "9" * 5_000,
        "nan",
        json.dumps({**MANIFEST, "image_size": -1}),
        json.dumps({**MANIFEST, "image_size": 1e300}),
        json.dumps({**MANIFEST, "image_size": "32"}),
        json.dumps({**MANIFEST, "channels": 10**9}),
        json.dumps({**MANIFEST, "counts": []}),
        json.dumps({**MANIFEST, "counts": {"../..": 3}}),
        json.dumps({**MANIFEST, "__class__": "x"}),
        json.dumps({**MANIFEST, "schema": {"name": "x", "question": [{}] * 100_000}}),
    ],
    ids=range(12),
)
def test_manifests_that_are_none(tmp_path: Path, content: str) -> None:
    with refused(ShardError, "is not a manifest"):
        Manifest.load(write(tmp_path / MANIFEST_NAME, content).parent)


def test_a_manifest_of_images_beyond_memory(tmp_path: Path) -> None:
    content = {**MANIFEST, "image_size": 10**9, "counts": {"unlabelled": 1}}
    write(tmp_path / MANIFEST_NAME, json.dumps(content))
    (tmp_path / "unlabelled").mkdir()
    write(tmp_path / "unlabelled" / "file.tfrecord", harnesses.frame(example()))
    with refused(ShardError, "is 1000000000; expected 1 to 8192"):
        shards.open_split(tmp_path, "unlabelled")


@pytest.fixture(scope="module")
def saved_model(schema: Schema, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    checkpoint.save_model(make_model(schema), folder)
    return folder


@pytest.fixture
def model_folder(saved_model: Path, tmp_path: Path) -> Path:
    for path in saved_model.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", json.dumps({**config, **changes}))


def change_setting(folder: Path, name: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    change_config(folder, model={**config["model"], name: value})


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"format":' * 100_000, "9" * 5000, '{"format": NaN}', "null", '{"format": {}}']
)
def test_configs_that_are_none(tmp_path: Path, content: str) -> None:
    with refused(ModelError, "config.json"):
        checkpoint.load_config(write(tmp_path / "config.json", content).parent)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "1" * 10**6},
        {"format": 1.0},
        {"model": 3},
        {"schema": []},
        {"metadata": []},
        {"versions": None},
        {"weights_sha256": 5},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_configs_of_wrong_types(model_folder: Path, changes: dict[str, Any]) -> None:
    change_config(model_folder, **changes)
    with refused(ModelError, r"config\.json: (got format|holds something else as) "):
        checkpoint.load_config(model_folder)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("output_dim", 10**12, "expected a whole number from 1 to 65536"),
        ("output_dim", 65_536, r"config.json: output_dim|got \(5"),
        ("resize_size", 10**12, "expected a whole number"),
        ("channels", 65_536, "got "),
        ("dropout_rate", float("nan"), "expected a number from 0"),
        ("zoom", [1, 10**300], "zoom: got"),
        ("mean", [[1]], "expected a tuple"),
        ("encoder", "hf-hub:somebody/model", "unknown name"),
        ("encoder", "../../model", "unknown name"),
        ("encoder", "x" * 10**6, "unknown name"),
        ("head", "__class__", "unknown name"),
        ("x" * 10**6, 1, "xxx"),
    ],
    ids=range(12),
)
def test_models_that_are_none(model_folder: Path, name: str, value: object, message: str) -> None:
    change_setting(model_folder, name, value)
    with refused(ModelError, message):
        checkpoint.load_model(model_folder)


def test_an_encoder_with_more_weights_than_memory(model_folder: Path) -> None:
    side = 8_192
    config = json.loads((model_folder / "config.json").read_text())["model"]
    sizes = dict.fromkeys(("input_size", "crop_size", "resize_size"), side)
    change_config(model_folder, model={**config, **sizes, "encoder": "vit_base_patch16_224"})
    with refused(ModelError, "does not fit encoder vit_base_patch16_224"):
        checkpoint.load_model(model_folder)


def replace_weights(folder: Path, content: bytes) -> None:
    write(folder / "model.safetensors", content)
    change_config(folder, weights_sha256=hashlib.sha256(content).hexdigest())


def tensors_file(header: object, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ENTRY: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        *(tensors_file({}, length=length) for length in (2**63, 2**64 - 1, 2**62, 2**40)),
        tensors_file(b"[" * 100_000),
        tensors_file({"a": {**ENTRY, "data_offsets": [0, 2**40]}}),
        tensors_file({"a": {**ENTRY, "data_offsets": [-8, 0]}}),
        tensors_file({"a": {**ENTRY, "data_offsets": [8, 0]}}),
        tensors_file({"a": {**ENTRY, "shape": [2**40]}}),
        tensors_file({"a": {**ENTRY, "shape": [2**63, 2]}}),
        *(
            tensors_file({"a": {**ENTRY, "dtype": kind, "shape": [shape]}})
            for kind, shape in (("F4", 16), ("F8_E8M0", 8), ("X", 8))
        ),
        tensors_file({"a": ENTRY, "b": ENTRY}),
        pickle.dumps({"a": torch.zeros(2)}),
    ],
    ids=range(17),
)
def test_weights_that_are_none(model_folder: Path, content: bytes) -> None:
    replace_weights(model_folder, content)
    with refused(ModelError, "not a safetensors file"):
        checkpoint.load_model(model_folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor * np.nan, "no finite numbers"),
        (lambda tensor: tensor * np.inf, "no finite numbers"),
        (lambda tensor: tensor.to(torch.int64), "got torch.int64, expected torch.float32"),
        (lambda tensor: tensor.to(torch.complex64), "got torch.complex64, expected torch.float32"),
    ],
    ids=["nan", "infinite", "whole", "complex"],
)
def test_weights_that_predict_nonsense(
    model_folder: Path, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    tensors = safetensors.torch.load_file(model_folder / "model.safetensors")
    tensors["head.linear.weight"] = change(tensors["head.linear.weight"])
    replace_weights(model_folder, safetensors.torch.save(tensors))
    with refused(ModelError, f"head.linear.weight: .*{message}"):
        checkpoint.load_model(model_folder)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"format": 1e999}', "9" * 5_000, '{"format": 1, "weights_sha256": [[[]]]}']
)
def test_recalibrations_that_are_none(model_folder: Path, content: str) -> None:
    write(model_folder / checkpoint.CALIBRATION_NAME, content)
    with refused(ModelError, "no-recalibrate"):
        load_calibration(model_folder)


def test_a_recalibration_that_is_a_pipe_is_not_waited_for(model_folder: Path) -> None:
    os.mkfifo(model_folder / checkpoint.CALIBRATION_NAME)
    with refused(ModelError, "a pipe"):
        load_calibration(model_folder)


def test_a_folder_whose_marker_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "survey.json")
    with refused(SettingError, "cannot be read"):
        files.claim_folder(tmp_path, "survey.json", {})


# --- nothing is executed


class Payload:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("executed",)


def test_nothing_in_a_model_folder_is_executed(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_folder)
    payload = pickle.dumps(Payload())
    for name in ("model.pt", "model.ckpt", "pytorch_model.bin", "data.pkl", "config.pkl"):
        write(model_folder / name, payload)
    for name in ("config.py", "modeling.py", "__init__.py", "sitecustomize.py", "conftest.py"):
        write(model_folder / name, "import os\nos.mkdir('executed')\n")
    checkpoint.load_model(model_folder)
    replace_weights(model_folder, payload)
    with refused(ModelError, "not a safetensors file"):
        checkpoint.load_model(model_folder)
    assert not (model_folder / "executed").exists()


def test_nothing_in_a_table_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    payload = pickle.dumps(Payload())
    kind = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": payload}
    schema = pa.schema([pa.field("smooth", pa.int64(), metadata=kind), pa.field("disk", pa.binary())])
    table = pa.table({"smooth": [1], "disk": [payload]}, schema=schema)
    with contextlib.suppress(CatalogError):
        read_table(write(tmp_path / "catalog.parquet", parquet(table)))
    with contextlib.suppress(CatalogError):
        read_table(write(tmp_path / "catalog.csv", payload))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT / "src"))
)
def test_the_source_never_unpickles_nor_evaluates(path: Path) -> None:
    modules = r"(import|from) (pickle|marshal|shelve|dill|joblib)|(pickle|marshal|shelve|dill|joblib)\.load"
    calls = r"(?<![\w.])(eval|exec)\(|allow_pickle\s*=\s*True|yaml\.(unsafe_|full_)?load\("
    assert not re.search(rf"{modules}|{calls}|(?<!safetensors\.)torch\.load\((?!.*weights_only=True)", path.read_text())


def test_every_case_in_the_list_is_tested() -> None:
    named = re.findall(r"`(test_\w+)::(test_\w+)`", (ROOT / "docs" / "hostile_input.md").read_text())
    assert len(named) >= 60
    for file, test in set(named):
        assert f"def {test}(" in (ROOT / "tests" / f"{file}.py").read_text(), f"{file}::{test}"
