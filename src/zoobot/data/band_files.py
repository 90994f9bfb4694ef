"""Several files of one galaxy, one for each band, as one text: ``images/12-{g,r,z}.fits``, as shells write it."""

import re
from bisect import bisect_left
from collections.abc import Sequence

from zoobot.errors import CatalogError

__all__ = ["join_files", "split_files", "split_section"]

_SECTION = re.compile(r"(.+)(\[-?\d+:-?\d+,-?\d+:-?\d+\])", re.DOTALL)
_PATTERN = re.compile(r"([^{}]*)\{([^{}]*,[^{}]*)\}([^{}]*)")


def join_files(paths: Sequence[str]) -> str:
    """Write paths as one: what all begin with, in braces what they differ in, what all end with.

    :func:`split_files` gives the same paths in the same order back. One path is written as it is.

    Raises:
        CatalogError: There is no path, or names hold braces or commas, so that the text would mean other paths.

    >>> join_files(["/images/12-g.fits", "/images/12-r.fits", "/images/12-z.fits"])
    '/images/12-{g,r,z}.fits'
    >>> join_files(["/g/12.fits", "/r/12-deep.fits"])
    '/{g/12,r/12-deep}.fits'
    """
    if not paths:
        raise CatalogError("paths: got none; expected the path of at least one file")
    joined = paths[0]
    if len(paths) > 1:
        start = _shared_length(paths)
        end = _shared_length([path[start:][::-1] for path in paths])
        middles = ",".join(path[start : len(path) - end] for path in paths)
        joined = f"{joined[:start]}{{{middles}}}{joined[len(joined) - end :]}"
    if split_files(joined) != list(paths):
        raise CatalogError(
            f"{', '.join(map(repr, paths[:4]))}: cannot be written as one pattern; "
            f"expected paths without braces, and without commas where they differ; rename the files or their folders"
        )
    return joined


def split_files(file_loc: str) -> list[str]:
    """Give the paths that a pattern with one pair of braces and a comma in them stands for, in its order.

    Anything else, with other braces or none, is one path. Whether there are such files, or one whose own name looks
    like a pattern, is not looked at.

    >>> split_files("images/12-{g,r,z}.fits")
    ['images/12-g.fits', 'images/12-r.fits', 'images/12-z.fits']
    >>> split_files("images/12-{g}.fits")
    ['images/12-{g}.fits']
    """
    found = _PATTERN.fullmatch(file_loc) if "{" in file_loc else None
    if found is None:
        return [file_loc]
    start, middles, end = found.groups()
    return [f"{start}{middle}{end}" for middle in middles.split(",")]


def split_section(file_loc: str) -> tuple[str, str]:
    """Part a section of a FITS image, as CFITSIO writes it, from the file that it is of; empty where there is none.

    >>> split_section("mosaic.fits[11:60,1:50]")
    ('mosaic.fits', '[11:60,1:50]')
    >>> split_section("mosaic[1].fits")
    ('mosaic[1].fits', '')
    """
    found = _SECTION.fullmatch(file_loc) if file_loc.endswith("]") else None
    return (found[1], found[2]) if found else (file_loc, "")


def _shared_length(texts: Sequence[str]) -> int:
    """Count the characters that all begin with; by halves, which for a million galaxies saves many seconds."""
    first, last = min(texts), max(texts)  # all others lie between, and begin with what these two share
    return bisect_left(
        range(min(len(first), len(last))), True, key=lambda place: first[: place + 1] != last[: place + 1]
    )
