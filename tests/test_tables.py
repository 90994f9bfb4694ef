"""Tables come back as they were written, in every format, and ids are always text."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.table import MaskedColumn, Table

from zoobot.data.tables import check_table_suffix, read_table, write_table
from zoobot.errors import CatalogError, SettingError

WRITTEN = [".csv", ".parquet", ".fits", ".fit", ".ecsv", ".vot", ".votable", ".CSV", ".FITS"]
IDS = ["00123", "NA", "nan", "1237648720693755918", "é,ü 星", 'a"b', "null", "1e5"]


@pytest.fixture
def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id_str": IDS,
            "file_loc": [f"images, old/{row}.png" for row in range(len(IDS))],
            "smooth-or-featured_smooth": np.arange(len(IDS)),
            "ra": random.uniform(0, 360, len(IDS)) * 10.0 ** random.integers(-20, 20, len(IDS)),
            "fraction": random.uniform(size=len(IDS)).astype(np.float32),
            "redshift": [0.1, np.nan] * (len(IDS) // 2),
            "survey": ["DECaLS", "SDSS, Stripe 82"] * (len(IDS) // 2),
        }
    )


@pytest.mark.parametrize("suffix", WRITTEN)
def test_what_is_written_comes_back(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    write_table(frame.set_index(frame.index + 7), path)
    back = read_table(path)
    assert list(back.columns) == list(frame.columns)
    assert list(back.index) == list(range(len(frame)))
    for name in frame.columns:
        np.testing.assert_array_equal(back[name].astype(frame[name].dtype), frame[name])
    assert back["smooth-or-featured_smooth"].dtype == np.int64
    assert all(dtype.isnative for dtype in back.dtypes if isinstance(dtype, np.dtype))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".fits", ".ecsv", ".vot"])
def test_a_table_without_rows(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    write_table(frame[:0], tmp_path / f"table{suffix}")
    back = read_table(tmp_path / f"table{suffix}")
    assert (len(back), list(back.columns)) == (0, list(frame.columns))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".fits", ".ecsv", ".vot"])
def test_whole_number_ids_become_text_even_with_gaps(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    ids = MaskedColumn([1237648720693755918, 7, 42], mask=[False, True, False])
    if suffix in (".csv", ".parquet"):
        write_table(pd.DataFrame({"id_str": pd.array([1237648720693755918, None, 42], dtype="Int64")}), path)
    else:
        Table({"id_str": ids}).write(path, format={".fits": "fits", ".ecsv": "ascii.ecsv", ".vot": "votable"}[suffix])
    if suffix == ".csv":  # a line without anything would be no row
        path.write_text('id_str\n1237648720693755918\n""\n42\n')
    assert read_table(path)["id_str"].tolist() == ["1237648720693755918", "", "42"]


def test_parquet_keeps_a_named_index_and_drops_the_others(tmp_path: Path) -> None:
    frame = pd.DataFrame({"smooth": [3, 4]}, index=pd.Index([5, 6], name="id_str"))
    frame.to_parquet(tmp_path / "named.parquet")
    assert read_table(tmp_path / "named.parquet").to_dict("list") == {"id_str": ["5", "6"], "smooth": [3, 4]}
    frame.rename_axis(None).to_parquet(tmp_path / "unnamed.parquet")
    assert read_table(tmp_path / "unnamed.parquet").to_dict("list") == {"smooth": [3, 4]}


def test_fits_of_others(tmp_path: Path) -> None:
    table = Table(
        {
            "id_str": np.array([b"a", "é".encode()]),
            "flux": np.array([[1.0, 2.0], [3.0, 4.0]], dtype=">f4"),
            "votes": MaskedColumn(np.array([1, 2], dtype=">i2"), mask=[False, True]),
        }
    )
    table.write(tmp_path / "table.fits")
    (tmp_path / "table.fits.gz").write_bytes(gzip.compress((tmp_path / "table.fits").read_bytes()))
    for name in ("table.fits", "table.fits.gz"):
        back = read_table(tmp_path / name)
        assert back["id_str"].tolist() == ["a", "é"]
        np.testing.assert_array_equal(back["votes"], [1.0, np.nan])
        np.testing.assert_array_equal(np.stack(back["flux"].tolist()), [[1, 2], [3, 4]])


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id_str,smooth\n1,2\n", encoding="utf-8-sig")
    assert read_table(path).to_dict("list") == {"id_str": ["1"], "smooth": [2]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.csv", b"", "empty"),
        ("table.fits", b"", "empty"),
        ("table.csv", b"\n\n", "cannot be read as .csv"),
        ("table.csv", b"id_str,id_str\n1,2\n", "more than once: 'id_str'"),
        ("table.csv", b"id_str,smooth\n1,2,3\n1,2,3\n", "cannot be read as .csv"),
        ("table.csv", b"id_str,smooth\n1,2\n1,2,3\n", "line 3, saw 3"),
        ("table.csv", b'id_str,smooth\n1,"2\n', "cannot be read as .csv"),
        ("table.csv", b"id_str,smooth\n\xff\xfe,2\n", "cannot be read as .csv"),
        ("table.parquet", b"id_str,smooth\n1,2\n", "cannot be read as .parquet"),
        ("table.fits", b"id_str,smooth\n1,2\n", "cannot be read as .fits"),
        ("table.ecsv", b"id_str,smooth\n1,2\n", "cannot be read as .ecsv"),
        ("table.vot", b"<html></html>", "cannot be read as .vot"),
        ("table.xlsx", b"PK", r"expected one of \.csv, \.parquet, \.fits"),
        ("table", b"id_str\n1\n", "expected one of"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CatalogError, match=message) as caught:
        read_table(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_faults_of_files(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no such file"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(CatalogError, match="folder"):
        read_table(tmp_path / "folder.csv")
    pd.DataFrame({"id_str": [1.5e18]}).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(CatalogError, match="id_str holds float64 numbers"):
        read_table(tmp_path / "table.parquet")


def test_the_suffix_is_checked_before_the_work(frame: pd.DataFrame, tmp_path: Path) -> None:
    for suffix in WRITTEN:
        check_table_suffix(f"table{suffix}")
    for bad in ("table.xlsx", "table", "table.fits.gz", "csv"):
        with pytest.raises(SettingError, match="expected one of"):
            check_table_suffix(bad)
        with pytest.raises(SettingError, match="expected one of"):
            write_table(frame, tmp_path / bad)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SettingError, match="folder"):
        check_table_suffix(tmp_path / "folder.csv")


def test_a_failed_write_leaves_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_table(pd.DataFrame({"smooth": [1]}), path)
    with pytest.raises(Exception, match=r"Conversion failed|Could not convert"):
        write_table(pd.DataFrame({"smooth": [object()]}), path)
    assert read_table(path).to_dict("list") == {"smooth": [1]}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
