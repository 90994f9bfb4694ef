"""Patterns of files: what is joined splits into the same, and anything else is one path."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoobot.data.band_files import join_files, split_files
from zoobot.errors import CatalogError

NAMES = st.text(st.characters(exclude_characters="{},"), max_size=8)
ANY_NAMES = st.text(st.sampled_from("ab/.{},"), max_size=8)


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_plain_paths_join_and_split_into_the_same(paths: list[str]) -> None:
    assert split_files(join_files(paths)) == paths


@given(NAMES, st.lists(NAMES, min_size=2, max_size=5), NAMES)
def test_what_paths_share_is_written_once(start: str, middles: list[str], end: str) -> None:
    joined = join_files([start + middle + end for middle in middles])
    assert joined.startswith(start)
    assert len(joined) <= len(start) + len(",".join(middles)) + len(end) + 2


@given(st.lists(ANY_NAMES, min_size=1, max_size=4))
def test_no_paths_join_into_something_else(paths: list[str]) -> None:
    try:
        joined = join_files(paths)
    except CatalogError:
        return
    assert split_files(joined) == paths


@given(ANY_NAMES)
def test_any_text_splits_into_paths_that_do_not_split_further(text: str) -> None:
    paths = split_files(text)
    assert len(paths) == 1 + (text.count(",", text.index("{"), text.index("}")) if len(paths) > 1 else 0)
    assert [split_files(path) for path in paths] == ([[path] for path in paths])


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("/images/12-{g,r,z}.fits", ["/images/12-g.fits", "/images/12-r.fits", "/images/12-z.fits"]),
        ("/{g,r}/12.fits", ["/g/12.fits", "/r/12.fits"]),
        ("/images/12{,-r}.fits", ["/images/12.fits", "/images/12-r.fits"]),
        ("/images/1{1,}.fits", ["/images/11.fits", "/images/1.fits"]),
        ("/images/12.fits{,}", ["/images/12.fits", "/images/12.fits"]),
        ("/größe, 12/{g,r}.fits", ["/größe, 12/g.fits", "/größe, 12/r.fits"]),
        ("/images/12-g.fits", ["/images/12-g.fits"]),
        ("/images/{12}.fits", ["/images/{12}.fits"]),
        ("/images/}12,{.fits", ["/images/}12,{.fits"]),
        ("/{images,}/{12,}.fits", ["/{images,}/{12,}.fits"]),
        ("/{images/{12,}}.fits", ["/{images/{12,}}.fits"]),
        ("", [""]),
    ],
)
def test_examples(pattern: str, paths: list[str]) -> None:
    assert join_files(paths) == pattern
    assert split_files(pattern) == paths


@pytest.mark.parametrize("paths", [["a,b.fits", "c.fits"], ["{a}.fits", "b.fits"], ["{d}/a", "{d}/b"], ["a{b,c}"], []])
def test_paths_that_cannot_be_joined(paths: list[str]) -> None:
    with pytest.raises(CatalogError, match=r"without commas|at least one"):
        join_files(paths)
