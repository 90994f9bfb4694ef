"""``zoobot schemas``: look at decision trees."""

from typing import Annotated

import typer

__all__ = ["show_schemas"]


def show_schemas(
    schema: Annotated[str | None, typer.Argument(help="A name from the list, or your own TOML file.")] = None,
) -> None:
    """List the decision trees, or draw one.

    Examples:

        zoobot schemas

        zoobot schemas gz2

        zoobot schemas path/to/my_tree.toml
    """
    from rich.console import Console
    from rich.table import Table

    from zoobot import schemas

    if schema is not None:
        tree = schemas.load(schema)
        title = f"{tree.name}: {tree.description}" if tree.description else tree.name
        typer.echo(f"{title}\n\n{tree.draw()}")
        return
    table = Table("schema", "questions", "answers", "what it is for", box=None)
    for name in schemas.available():
        tree = schemas.load(name)
        table.add_row(name, str(len(tree.questions)), str(len(tree.label_cols)), tree.description)
    Console().print(table)
