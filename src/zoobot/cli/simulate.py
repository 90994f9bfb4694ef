"""``zoobot simulate``."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["simulate"]


def simulate(
    save_dir: Annotated[Path, typer.Option(help="Folder to make.")],
    galaxies: Annotated[int, typer.Option(help="How many to make.")] = 3000,
    img_size: Annotated[int, typer.Option(help="Height and width of the images, in pixels.")] = 96,
    votes: Annotated[int, typer.Option(help="How many volunteers look at each galaxy.")] = 40,
    schema: Annotated[
        str, typer.Option(help="Decision tree: a name (see `zoobot schemas`) or a TOML file.")
    ] = "gz_decals",
    seed: Annotated[int, typer.Option(help="What decides everything that is random.")] = 0,
    file_format: Annotated[str, typer.Option(help="png, jpeg, or fits (g, r, z in nanomaggies, with a WCS).")] = "png",
    volunteers: Annotated[
        int | None,
        typer.Option(help="How many people there are to look.", show_default="500, or 3 times the votes if more"),
    ] = None,
    clicks: Annotated[bool, typer.Option("--clicks/--no-clicks", help="Write every classification as a row.")] = True,
    workers: Annotated[int | None, typer.Option(help="Processes that draw.", show_default="one per core")] = None,
) -> None:
    """Make galaxies, and let volunteers answer the decision tree: a survey whose truth is known.

    The same settings give the same bytes. Interrupted, it goes on where it stopped when the same command is run again.

    Examples:

        zoobot simulate --save-dir survey

        zoobot simulate --save-dir survey --galaxies 20000 --img-size 128 --schema gz2 --seed 7 --file-format fits
    """
    from zoobot import schemas
    from zoobot.simulate.survey import SurveyConfig, simulate_survey

    config = SurveyConfig(
        galaxies=galaxies,
        img_size=img_size,
        votes=votes,
        seed=seed,
        file_format=file_format,
        volunteers=volunteers,
        clicks=clicks,
    )
    tree = schemas.load(schema)
    catalog = simulate_survey(save_dir, tree, config, workers=workers)
    typer.echo(f"{catalog}: {galaxies} galaxies, {votes} volunteers for each, answering {tree.name}")
    typer.echo(f"Beside it lie images/, truth.parquet, volunteers.parquet, contact_sheet.jpg{', clicks.csv' * clicks}.")
    if file_format == "fits":
        return  # shards take png and jpeg
    typer.echo("Next:")
    options = f"--shard-dir shards --schema {shlex.quote(schema)} --img-size {img_size}"
    typer.echo(f"  zoobot create-shards --labelled-catalog {shlex.quote(str(catalog))} {options}")
