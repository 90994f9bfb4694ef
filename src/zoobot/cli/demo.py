"""``zoobot demo``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from zoobot.demo import DemoFiles

__all__ = ["demo"]


def demo(
    save_dir: Annotated[Path, typer.Option(help="Folder to make.")] = Path("demo"),
    galaxies: Annotated[int, typer.Option(help="How many to simulate.")] = 3000,
    img_size: Annotated[int, typer.Option(help="Height and width of the images, in pixels.")] = 96,
    train_minutes: Annotated[float, typer.Option(help="How long to train.")] = 4.0,
    schema: Annotated[str, typer.Option(help="Decision tree: a name (see `zoobot schemas`).")] = "gz_decals",
    seed: Annotated[int, typer.Option(help="What decides everything that is random.")] = 0,
) -> None:
    """Show everything in a few minutes: simulate a survey, make shards, train, predict, score, report.

    Nothing is downloaded. Interrupted, it goes on where it stopped when the same command is run again.

    Examples:

        zoobot demo

        zoobot demo --save-dir longer --galaxies 20000 --train-minutes 30
    """
    from zoobot.demo import DemoConfig, run_demo

    config = DemoConfig(galaxies=galaxies, img_size=img_size, train_minutes=train_minutes, schema=schema, seed=seed)
    files = run_demo(save_dir, config)
    _summarise(files, schema)
    typer.echo(f"Open the report in a browser: {files.report.resolve()}")


def _summarise(files: "DemoFiles", schema: str) -> None:
    from rich.console import Console
    from rich.table import Table

    scores = json.loads(files.metrics.read_text(encoding="utf-8"))["all_questions"]
    made = Table(box=None, show_header=False, title="What was made", title_justify="left", title_style="bold")
    made.add_row(str(files.survey), "images, votes, clicks, volunteers, truth, contact_sheet.jpg")
    made.add_row(str(files.shards), "the same images and votes, fast to train on")
    made.add_row(str(files.model), "the model, and its history")
    made.add_row(str(files.predictions), f"posteriors of {scores['galaxies']} galaxies it was not trained on")
    made.add_row(str(files.metrics), "how good they are")
    made.add_row(str(files.report), "all of it to look at")
    console = Console()
    console.print()
    console.print(made)
    console.print()
    console.print(
        f"Of all leading answers {scores['accuracy']:.0%} are right; the mean votes would get "
        f"{scores['baseline_accuracy']:.0%}."
    )
    console.print()
    console.print("[bold]With your own galaxies[/]: put id_str, file_loc and votes in a table, then")
    for command in (
        f"zoobot create-shards --labelled-catalog catalog.csv --shard-dir shards --schema {schema} --img-size 300",
        "zoobot train --shard-dir shards --save-dir model",
        "zoobot predict --checkpoint-dir model --folder images --save-loc predictions.parquet",
        "zoobot report --predictions predictions.parquet --catalog catalog.csv --checkpoint-dir model",
    ):
        console.print(f"  {command}", highlight=False, soft_wrap=True)
    console.print()
