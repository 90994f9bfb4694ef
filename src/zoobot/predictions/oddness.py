"""Odd galaxies first; and, once some are rated, interesting ones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zoobot.data import tables
from zoobot.errors import CatalogError, PredictionError, SettingError
from zoobot.predictions.catalogue import check_tables_to_write
from zoobot.predictions.representation_file import RepresentationFile
from zoobot.predictions.similarity import check_picture, draw_galaxies
from zoobot.stats.interest import predict_interest
from zoobot.stats.oddness import measure_oddness
from zoobot.stats.principal_components import fit_principal_components

__all__ = ["Odd", "find_odd"]

_COMPONENTS = 40
_FEWEST = 10  # galaxies
_DRAWN = 50
_EXPLORATION = 0.3
"""How much of the spread to hope for: measured, see docs/representations.md."""


@dataclass(frozen=True)
class Odd:
    """What :func:`find_odd` did.

    Attributes:
        save_loc: the table.
        galaxies: its rows.
        rated: how many of them have a rating.
        rate_next: ``id_str`` of the galaxies to rate next.
    """

    save_loc: Path
    galaxies: int
    rated: int
    rate_next: list[str]


def find_odd(
    representations: str | Path,
    save_loc: str | Path,
    *,
    ratings: str | Path | None = None,
    rate_next: int = 20,
    seed: int = 0,
    picture: str | Path | None = None,
) -> Odd:
    """Write a table of all galaxies, the oddest first, or the most interesting first if some have been rated.

    Oddness is the distance from others (:func:`zoobot.stats.oddness.measure_oddness`), interest is expected from the
    ratings of similar galaxies (:func:`zoobot.stats.interest.predict_interest`), both among the 40 leading principal
    components. To search for something: rate the galaxies that ``rate_next`` names, in the column ``interest`` of the
    table, give that as ``ratings``, and again. At first these are half the oddest and half random; later those of which
    most may be hoped, expected interest plus 0.3 times its spread, so that what resembles nothing rated is looked at.

    Args:
        representations: the ``.parquet`` file that :func:`zoobot.predictions.representations.represent` made.
        save_loc: the table to write, by suffix: ``id_str``, ``file_loc``, ``oddness``, ``interest`` (the rating, NaN
            where there is none), ``rate_next`` (1 and so on, NaN for the others), and with ratings
            ``expected_interest`` and ``interest_spread``. An existing one is replaced.
        ratings: a table with ``id_str`` and ``interest``, numbers on any scale (0 or 1, 0 to 5), at least two; rows
            without a number count as unrated.
        rate_next: how many to rate next.
        seed: of what is random.
        picture: a ``.png`` or ``.jpg`` of the first 50 galaxies.

    Raises:
        SettingError: a setting is wrong.
        PredictionError: the file holds no representations, or of fewer than 10 galaxies; a rated galaxy is not there.
        CatalogError: a file cannot be read, or there are no ratings in it.
    """
    # the table itself may hold the ratings
    check_tables_to_write({"save_loc": save_loc}, [representations])
    check_picture(picture)
    if rate_next < 0:
        raise SettingError(f"rate_next is {rate_next}; it must be 0 or more")
    file = RepresentationFile(representations)
    if len(file) < _FEWEST:
        raise PredictionError(f"{file.path}: holds {len(file)} galaxies; what is odd shows among {_FEWEST} or more")
    given = np.full(len(file), np.nan) if ratings is None else _read_ratings(ratings, file)
    vectors = _compress(file)
    table = file.names.assign(oddness=measure_oddness(vectors, seed=seed), interest=given)
    oddness, rated = table["oddness"].to_numpy(), np.flatnonzero(~np.isnan(given))
    wish = _wish_at_first(oddness, rate_next, seed)
    if rated.size:
        expected = predict_interest(vectors, rated, given[rated])
        table = table.assign(expected_interest=expected.mean, interest_spread=expected.spread)
        wish = np.where(np.isnan(given), expected.mean + _EXPLORATION * expected.spread, -np.inf)
    chosen = np.lexsort((-oddness, -wish))[: min(rate_next, len(file) - len(rated))]
    table["rate_next"] = np.nan
    table.loc[chosen, "rate_next"] = np.arange(1.0, len(chosen) + 1)
    order = "expected_interest" if rated.size else "oddness"
    ranked = table.sort_values([order, "oddness"], ascending=False)  # as long as all ratings are the same: the oddest
    tables.write_table(ranked, save_loc)
    if picture is not None:
        first = ranked.iloc[:_DRAWN]
        draw_galaxies(
            first, [f"{rank}: {value:.2f}" for rank, value in enumerate(first[order], 1)], picture, columns=10
        )
    return Odd(Path(save_loc), len(file), len(rated), table["id_str"].iloc[chosen].tolist())


def _compress(file: RepresentationFile) -> NDArray[np.float32]:
    components = fit_principal_components(file.chunks(), min(_COMPONENTS, file.features, len(file) - 1))
    return np.concatenate([components.apply(chunk) for chunk in file.chunks()])


def _wish_at_first(oddness: NDArray[np.float64], number: int, seed: int) -> NDArray[np.float64]:
    """The oddest half of the number, then others at random: of the usual, too, someone must say how they like it."""
    wish = np.random.default_rng(seed).uniform(0, 1, len(oddness))
    oddest = np.argsort(-oddness, kind="stable")[: -(-number // 2)]
    wish[oddest] = 2 + oddness[oddest]
    return wish


def _read_ratings(ratings: str | Path, file: RepresentationFile) -> NDArray[np.float64]:
    """The rating of each galaxy of the file, NaN where there is none."""
    table = tables.read_table(ratings)
    missing = [name for name in ("id_str", "interest") if name not in table]
    if missing:
        raise CatalogError(f"{ratings}: lacks the column {' and '.join(missing)}; expected id_str and interest")
    interest = pd.to_numeric(table["interest"], errors="coerce")
    odd = table["interest"][(interest.isna() & table["interest"].notna()) | np.isinf(interest)]
    if len(odd):
        raise CatalogError(f"{ratings}: interest holds {odd.iloc[0]!r}; expected numbers, or nothing")
    rated = table["id_str"][interest.notna()]
    if len(rated) < 2:
        raise CatalogError(f"{ratings}: has {len(rated)} ratings in the column interest; expected at least 2")
    if rated.duplicated().any():
        raise CatalogError(f"{ratings}: id_str {rated[rated.duplicated()].iloc[0]} is rated twice")
    given = np.full(len(file), np.nan)
    given[file.find(rated.tolist())] = interest[interest.notna()]
    return given
