"""``zoobot odd``."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["odd"]


def odd(
    representations: Annotated[Path, typer.Option(help="What `zoobot represent` wrote.")],
    save_loc: Annotated[Path, typer.Option(help="Table to write: .csv, .parquet or .fits.")],
    ratings: Annotated[
        Path | None,
        typer.Option(help="Table with id_str and interest (0 or 1, 0 to 5); --save-loc of before, filled in."),
    ] = None,
    rate_next: Annotated[int, typer.Option(help="How many galaxies to name for rating.")] = 20,
    seed: Annotated[int, typer.Option(help="Of what is random.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="Draw the first 50 galaxies: .png or .jpg.")] = None,
) -> None:
    """List the oddest galaxies first; once some are rated, the most interesting first.

    Rate the galaxies that have a number in the column rate_next: write how interesting each is into the column
    interest, and run again with that table as --ratings.

    Examples:

        zoobot odd --representations reps.parquet --save-loc odd.csv --picture odd.png

        zoobot odd --representations reps.parquet --ratings odd.csv --save-loc interesting.csv
    """
    from zoobot.predictions.oddness import find_odd

    done = find_odd(representations, save_loc, ratings=ratings, rate_next=rate_next, seed=seed, picture=picture)
    order = f"by {done.rated} ratings, the most interesting first" if done.rated else "the oddest first"
    typer.echo(f"{done.save_loc}: {done.galaxies} galaxies, {order}")
    if done.rate_next:
        typer.echo(f"to rate next: {', '.join(done.rate_next)}")
