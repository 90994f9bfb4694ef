"""Catalogs: every fault is found and told at once; splits and hashes depend on ids alone."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from zoobot.data.catalog import catalog_fingerprint, read_catalog, sample_catalog, split_catalog
from zoobot.data.tables import write_table
from zoobot.errors import CatalogError, SettingError

LABELS = ["smooth", "disk"]


def write_csv(folder: Path, *rows: str, header: str = "id_str,file_loc,smooth,disk") -> Path:
    path = folder / "catalog.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def fault_lines(path: Path, label_cols: list[str] | None = None, **settings: object) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        read_catalog(path, LABELS if label_cols is None else label_cols, **settings)  # type: ignore[arg-type]
    first, *faults = str(caught.value).splitlines()
    assert first.startswith(str(path))
    return faults


@pytest.fixture
def galaxies() -> pd.DataFrame:
    random = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "id_str": [f"J{number:06d}" for number in range(2000)],
            "file_loc": [f"/images/{number}.png" for number in range(2000)],
            "smooth": random.integers(0, 40, 2000),
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".fits", ".ecsv", ".vot"])
def test_a_good_catalog(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    (tmp_path / "b.png").touch()
    path = tmp_path / f"catalog{suffix}"
    frame = pd.DataFrame(
        {
            "id_str": ["007", "NA"],
            "file_loc": ["images/a.png", str(tmp_path / "b.png")],
            "smooth": [3, 0],
            "disk": [1.5, 0.0],
            "ra": [150.1, np.nan],
        }
    )
    write_table(frame, path)
    catalog = read_catalog(path, LABELS)
    assert catalog["id_str"].tolist() == ["007", "NA"]
    assert catalog["file_loc"].tolist() == [str(tmp_path / "images" / "a.png"), str(tmp_path / "b.png")]
    assert catalog[LABELS].dtypes.tolist() == [np.float32, np.float32]
    assert catalog[LABELS].to_numpy().tolist() == [[3, 1.5], [0, 0]]
    np.testing.assert_array_equal(catalog["ra"], frame["ra"])
    assert list(catalog.columns) == list(frame.columns)


def test_relative_paths_start_from_the_root_or_the_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    write_csv(tmp_path, "1,a.png", header="id_str,file_loc")
    monkeypatch.chdir(tmp_path)
    expected = [str(tmp_path / "elsewhere" / "a.png")]
    assert read_catalog("catalog.csv", image_root="elsewhere")["file_loc"].tolist() == expected
    unchecked = read_catalog("catalog.csv", check_files=False)
    assert unchecked["file_loc"].tolist() == [str(tmp_path / "a.png")]
    with pytest.raises(SettingError, match="--image-root"):
        read_catalog("catalog.csv", image_root="absent")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    path = write_csv(
        tmp_path,
        "1,a.png,3,0",
        "1,a.png,-2,0",
        ",a.png,,1",
        "4,,x,1",
        "5,b.png,inf,-1",
        " 6,a.png,1e39,1",
    )
    assert fault_lines(path) == [
        "- id_str: 1 missing (row 3); expected a name for each galaxy",
        "- id_str: 1 with spaces at the ends, or null characters (row 6: ' 6'); expected none, since FITS tables "
        "lose them",
        "- id_str: 1 repeated: '1' (rows 1, 2); expected each once",
        "- file_loc: 1 missing (row 4); expected the path of an image",
        f"- file_loc: 1 of 6 files do not exist (row 5): {str(tmp_path / 'b.png')!r}; "
        f"a relative file_loc starts from {tmp_path}: is another folder meant (--image-root)?",
        "- votes: 1 missing: 'smooth' (row 3: nan); expected a number, 0 where nobody voted",
        "- votes: 1 non-numeric: 'smooth' (row 4: x); expected a number",
        "- votes: 2 negative: 'smooth' (row 2: -2), 'disk' (row 5: -1); expected 0 or more",
        "- votes: 2 above a million: 'smooth' (rows 5, 6: inf); expected numbers of volunteers",
    ]


def test_long_lists_of_faults_stay_short(tmp_path: Path) -> None:
    labels = [f"q{number}_yes" for number in range(34)]
    rows = (f"{row},a.png," + ",".join(["-1"] * 34) for row in range(1500))
    path = write_csv(tmp_path, *rows, header=",".join(["id_str", "file_loc", *labels]))
    (fault,) = fault_lines(path, labels, check_files=False)
    assert "51,000 negative" in fault
    assert "rows 1, 2, 3, 4, 5 and 1,495 more" in fault
    assert "and 29 more; expected" in fault


def test_missing_columns_with_the_names_that_come_close(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "1,2,-3", header="id,smooth-gz2_smooth,disk")
    missing, votes = fault_lines(path, ["smooth_smooth", "disk", *map(str, range(20))])
    assert "'smooth_smooth' (is it 'smooth-gz2_smooth'?)" in missing
    assert "and 15 more" in missing
    assert "--schema" in missing
    assert "negative" in votes
    assert "--schema" not in fault_lines(path, [])[0]


def test_a_catalog_without_rows(tmp_path: Path) -> None:
    assert fault_lines(write_csv(tmp_path)) == ["- the table has no rows; expected one for each galaxy"]


@pytest.mark.parametrize(
    "votes",
    [pd.to_datetime(["2020-01-01"]), [[1, 2]], ["three"], [b"3 votes"], [""]],
)
def test_votes_of_odd_types_are_non_numeric(tmp_path: Path, votes: object) -> None:
    path = tmp_path / "catalog.parquet"
    pd.DataFrame({"id_str": ["1"], "file_loc": ["a"], "smooth": votes}).to_parquet(path)
    (fault,) = fault_lines(path, ["smooth"], check_files=False)
    assert "1 non-numeric: 'smooth' (row 1" in fault


def test_only_files_count_as_files(tmp_path: Path) -> None:
    (tmp_path / "images" / "folder.png").mkdir(parents=True)
    (tmp_path / "images" / "file.png").touch()
    (tmp_path / "images" / "link.png").symlink_to("file.png")
    (tmp_path / "images" / "broken.png").symlink_to("absent.png")
    (tmp_path / "images" / "loop.png").symlink_to("loop.png")
    (tmp_path / "linked").symlink_to("images")
    good = ["images/file.png", "images/link.png", "linked/link.png", "images/../images/file.png"]
    bad = [
        "images/folder.png",
        "images/broken.png",
        "images/loop.png",
        "images/file.png/x.png",
        "images/",
        "absent/file.png",
        "images/" + 300 * "x",
        ".",
    ]
    path = write_csv(tmp_path, *(f"{row},{name}" for row, name in enumerate(good + bad)), header="id_str,file_loc")
    (fault,) = fault_lines(path, [])
    assert "8 of 12 files do not exist (rows 5, 6, 7, 8, 9 and 3 more)" in fault
    assert "folder.png' (a folder), " in fault
    write_csv(tmp_path, *(f"{row},{name}" for row, name in enumerate(good)), header="id_str,file_loc")
    assert len(read_catalog(path)) == len(good)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder.png", "a folder"),
        ("loop.png", "too many levels of symbolic links"),
        ("loop/a.png", "too many levels of symbolic links"),
        ("file.png/x.png", "not a directory"),
        (300 * "x", "file name too long"),
        ("pipe.png", "no ordinary file"),
        ("\0", "no file can have this name"),
    ],
)
def test_why_something_is_no_file(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.png").touch()
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "loop").symlink_to("other")
    (tmp_path / "other").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe.png")
    write_table(pd.DataFrame({"id_str": ["1"], "file_loc": [name]}), tmp_path / "catalog.parquet")
    (fault,) = fault_lines(tmp_path / "catalog.parquet", [])
    assert f"{str(tmp_path / name)!r} ({reason}); a relative" in fault


def test_a_folder_that_is_a_link_to_itself_further_up(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "again").symlink_to("..")
    (tmp_path / "images" / "a.png").touch()
    path = write_csv(tmp_path, "1,images/again/images/again/images/a.png", header="id_str,file_loc")
    assert len(read_catalog(path)) == 1
    write_csv(tmp_path, f"1,{50 * 'images/again/'}images/a.png", header="id_str,file_loc")
    assert "too many levels" in fault_lines(path, [])[0]


def touch_bands(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".fits"])
def test_a_file_for_each_band(tmp_path: Path, suffix: str) -> None:
    touch_bands(tmp_path, "g/1.fits", "r/1.fits", "z/1.fits", "deep/2-g.fits", "deep/2-r.fits", "deep/2-z.fits")
    elsewhere = tmp_path / "deep" / "2-z.fits"
    frame = pd.DataFrame(
        {
            "id_str": ["1", "2"],
            "file_loc_r": ["r/1.fits", "deep/2-r.fits"],
            "file_loc_g": ["g/1.fits", "deep/2-g.fits"],
            "file_loc_z": ["z/1.fits", str(elsewhere)],
        }
    )
    path = tmp_path / f"catalog{suffix}"
    write_table(frame, path)
    expected = [f"{tmp_path}/{{r,g,z}}/1.fits", f"{tmp_path}/deep/2-{{r,g,z}}.fits"]
    assert read_catalog(path)["file_loc"].tolist() == expected
    assert read_catalog(path, bands=["0", "2"])["file_loc"].tolist() == expected
    assert read_catalog(path, bands=["g", "z"])["file_loc"][0] == f"{tmp_path}/{{g,z}}/1.fits"
    assert read_catalog(path, bands="z")["file_loc"][1] == str(elsewhere)
    with pytest.raises(CatalogError, match=r"missing columns: 'file_loc_i'"):
        read_catalog(path, bands=["g", "i"])
    write_table(frame.assign(file_loc=["r/1.fits", "deep/2-{g,z}.fits"]), path)
    plain = [str(tmp_path / "r" / "1.fits"), f"{tmp_path}/deep/2-{{g,z}}.fits"]
    assert read_catalog(path, bands=["r", "g", "z"])["file_loc"].tolist() == plain


def test_faults_of_bands(tmp_path: Path) -> None:
    touch_bands(tmp_path, "1-g.fits", "1-r.fits", "2-g.fits", "{5}-g.fits", "{5}-r.fits")
    rows = ["1,1-g.fits,1-r.fits", "2,2-g.fits,2-r.fits", "3,,1-r.fits", "4,NA,", '5,"{5}-g.fits","{5}-r.fits"']
    path = write_csv(tmp_path, *rows, header="id_str,file_loc_g,file_loc_r")
    assert fault_lines(path, []) == [
        "- file_loc_g: 2 missing (rows 3, 4); expected the path of an image",
        "- file_loc_r: 1 missing (row 4); expected the path of an image",
        "- file_loc_g: 1 with braces, or with commas where bands differ (row 5: '{5}-g.fits', '{5}-r.fits'); "
        "expected none, since several files are named together as 'a-{g,r}.fits'; rename them",
        f"- file_loc: 1 of 5 files do not exist (row 2): {str(tmp_path / '2-r.fits')!r}; "
        f"a relative file_loc starts from {tmp_path}: is another folder meant (--image-root)?",
    ]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    touch_bands(tmp_path, "{a,b}.fits", "1-g.fits", "1-r.fits")
    path = write_csv(tmp_path, '1,"{a,b}.fits"', '2,"1-{g,r}.fits"', header="id_str,file_loc")
    assert read_catalog(path)["file_loc"].tolist() == [str(tmp_path / "{a,b}.fits"), str(tmp_path / "1-{g,r}.fits")]
    write_csv(tmp_path, '1,"{a,c}.fits"', '2,"1-{g,r,z}.fits"', header="id_str,file_loc")
    (fault,) = fault_lines(path, [])
    assert (
        f"2 of 2 files do not exist (rows 1, 2): {str(tmp_path / 'a.fits')!r}, {str(tmp_path / '1-z.fits')!r}" in fault
    )


def test_files_in_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").touch()
    path = write_csv(tmp_path, "1,a.png", "2,b.png", header="id_str,file_loc")

    def refuse(folder: str) -> None:
        raise PermissionError(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    (fault,) = fault_lines(path, [])
    assert "1 of 2 files do not exist (row 2)" in fault


def test_the_split_depends_on_ids_and_seed_alone(galaxies: pd.DataFrame) -> None:
    train, test = split_catalog(galaxies, eval_size=500, seed=3)
    assert (len(train), len(test)) == (1500, 500)
    assert set(train["id_str"]) | set(test["id_str"]) == set(galaxies["id_str"])
    shuffled = galaxies.sample(frac=1, random_state=0).drop(columns="smooth")
    for part, again in zip((train, test), split_catalog(shuffled, eval_size=500, seed=3), strict=True):
        assert part["id_str"].tolist() == again["id_str"].tolist()
    _, other = split_catalog(galaxies, eval_size=500, seed=4)
    # Independent choices of a quarter share a sixteenth: 125 of 2000, with a standard deviation of 9.7.
    assert 75 < len(set(test["id_str"]) & set(other["id_str"])) < 175
    assert set(split_catalog(galaxies, eval_size=100, seed=3)[1]["id_str"]) < set(test["id_str"])
    pd.testing.assert_frame_equal(
        test.sort_values("id_str", ignore_index=True),
        galaxies[galaxies["id_str"].isin(test["id_str"])].reset_index(drop=True),
    )


def test_the_split_is_the_same_on_every_machine() -> None:
    # Ranks of hashlib.blake2b(id, digest_size=16, key=b"0", person=b"split"), smallest first.
    import hashlib

    ids = [f"J{number}" for number in range(50)]
    ranked = sorted(ids, key=lambda i: hashlib.blake2b(i.encode(), digest_size=16, key=b"0", person=b"split").digest())
    train, test = split_catalog(pd.DataFrame({"id_str": ids}), eval_size=20)
    assert [*test["id_str"], *train["id_str"]] == ranked


@pytest.mark.parametrize("eval_size", [-1, 0, 2000, 2001])
def test_a_split_must_leave_both_parts_something(galaxies: pd.DataFrame, eval_size: int) -> None:
    with pytest.raises(SettingError, match=f"got {eval_size} of 2000"):
        split_catalog(galaxies, eval_size=eval_size)


def test_samples(galaxies: pd.DataFrame) -> None:
    few, more = sample_catalog(galaxies, 500), sample_catalog(galaxies[::-1], 1000)
    assert few["id_str"].tolist() == more["id_str"].tolist()[:500]
    assert few.index.tolist() == list(range(500))
    _, test = split_catalog(galaxies, eval_size=500)
    assert 75 < len(set(few["id_str"]) & set(test["id_str"])) < 175
    for n in (None, 2000, 3000):
        assert sample_catalog(galaxies, n) is galaxies
    with pytest.raises(SettingError, match="--max-labelled"):
        sample_catalog(galaxies, 0)


def test_the_fingerprint_follows_the_content_and_nothing_else(galaxies: pd.DataFrame, tmp_path: Path) -> None:
    columns = list(galaxies.columns)
    fingerprint = catalog_fingerprint(galaxies, columns)
    assert len(fingerprint) == 64
    for path in (tmp_path / "a.csv", tmp_path / "a.parquet", tmp_path / "a.fits"):
        write_table(galaxies.sample(frac=1, random_state=1), path)
        again = read_catalog(path, ["smooth"], check_files=False)
        assert catalog_fingerprint(again, columns) == fingerprint
    others = [
        galaxies[1:],
        galaxies.assign(smooth=galaxies["smooth"] + (galaxies["id_str"] == "J000007")),
        galaxies.assign(file_loc=galaxies["file_loc"].str.upper()),
        galaxies.assign(id_str="X" + galaxies["id_str"]),
        galaxies.assign(smooth=galaxies["smooth"].to_numpy()[::-1]),
    ]
    fingerprints = {catalog_fingerprint(other, columns) for other in others}
    assert len(fingerprints | {fingerprint, catalog_fingerprint(galaxies, columns[::-1])}) == len(others) + 2


@pytest.mark.parametrize("rows", [0, 3, 100_001])
def test_the_fingerprint_is_the_same_on_every_machine(rows: int) -> None:
    # SHA-256 of the JSON of the number of rows and the columns' names, then of each column, numbers as little doubles.
    import hashlib
    import json

    ids = [f"é{number:06d}" for number in range(rows)]
    votes = np.arange(rows) / 4
    expected = hashlib.sha256(f"{json.dumps([rows, 'id_str', 'smooth'])}{json.dumps(ids)}".encode() + votes.tobytes())
    catalog = pd.DataFrame({"id_str": pd.Series(ids, dtype=str), "smooth": votes})
    assert catalog_fingerprint(catalog, ["id_str", "smooth"]) == expected.hexdigest()


def test_columns_of_a_long_csv_have_one_type(tmp_path: Path) -> None:
    # Long enough to be parsed in pieces, of which the last ones hold something else than the first.
    rows = [f"{row},a.png,{row % 40},{row},{row}" for row in range(60_000)]
    header = "id_str,file_loc,smooth,objid,name"
    path = write_csv(tmp_path, *rows, f"x,a.png,3,{2**63 + 1},{2**70}", header=header)
    catalog = read_catalog(path, ["smooth"], check_files=False)
    assert catalog["objid"].tolist() == [*range(60_000), 2**63 + 1]
    assert [int(name) for name in catalog["name"]] == [*range(60_000), 2**70]
    assert catalog["smooth"].dtype == np.float32
    path = write_csv(tmp_path, *rows, "x,a.png,three,1,blue", "y,a.png,-1,,", header=header)
    assert fault_lines(path, ["smooth"], check_files=False) == [
        "- votes: 1 non-numeric: 'smooth' (row 60001: three); expected a number",
        "- votes: 1 negative: 'smooth' (row 60002: -1); expected 0 or more",
    ]
    catalog = read_catalog(path, check_files=False)
    assert catalog["name"].tolist()[-3:-1] == ["59999", "blue"]


@pytest.mark.parametrize(("name", "rows"), [("decals_rings", 183), ("gz2_kaggle", 5760)])
def test_real_catalogs(shared_data: Path, name: str, rows: int) -> None:
    catalog = read_catalog(shared_data / name / "catalog.csv", ["ring"] if name == "decals_rings" else [])
    assert len(catalog) == rows
    assert Path(catalog["file_loc"][0]).is_file()


def test_long_cells_are_cut_short_and_complex_votes_and_null_characters_are_faults(tmp_path):
    table = pd.DataFrame({"id_str": ["a" * 10_000, "a" * 10_000, "b\0c"], "votes": ["x" * 10_000, "1", "2"]})
    write_table(table, tmp_path / "c.parquet")
    with pytest.raises(CatalogError, match="null characters") as caught:
        read_catalog(tmp_path / "c.parquet", ["votes"], need_files=False)
    assert len(str(caught.value)) < 1000
    Table({"id_str": ["a", "b"], "votes": [1 + 2j, 3 + 0j]}).write(tmp_path / "c.fits")
    with pytest.raises(CatalogError, match="non-numeric"):
        read_catalog(tmp_path / "c.fits", ["votes"], need_files=False)
