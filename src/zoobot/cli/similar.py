"""``zoobot similar``."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["similar"]


def similar(
    representations: Annotated[Path, typer.Option(help="What `zoobot represent` wrote.")],
    ids: Annotated[list[str], typer.Option("--id", help="id_str of a galaxy in it; may be given several times.")],
    save_loc: Annotated[Path, typer.Option(help="Table to write: .csv, .parquet or .fits.")],
    number: Annotated[int, typer.Option(help="How many similar galaxies for each.")] = 20,
    exact: Annotated[
        bool | None,
        typer.Option(
            "--exact/--approximate",
            help="Compare all, or look into an index (made once, needs the package usearch).",
            show_default="exact, unless there is an index of over 100,000 galaxies",
        ),
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw them, a row for each --id: .png or .jpg.")] = None,
) -> None:
    """List the galaxies that look most like some that you know.

    Examples:

        zoobot similar --representations reps.parquet --id J094651.40-010228.5 --save-loc similar.csv

        zoobot similar --representations reps.parquet --id J1 --id J2 --number 9 --save-loc s.csv --picture s.png
    """
    from zoobot.predictions.similarity import find_similar

    done = find_similar(representations, ids, save_loc, number=number, exact=exact, picture=picture)
    how = "exactly" if done.exact else f"approximately, by {done.index_loc}"
    typer.echo(f"{done.save_loc}: {number} similar galaxies for each of {len(ids)}, among {done.galaxies}, {how}")
