"""``zoobot info``."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["info"]


def info(
    model: Annotated[Path, typer.Argument(help="Model folder, or .onnx file of `zoobot export`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for machines.")] = False,
) -> None:
    """Show what a model predicts, takes, learned from, and how good it is.

    Examples:

        zoobot info model

        zoobot info model.onnx --json
    """
    from zoobot.estimators.model_info import describe_model

    found = describe_model(model)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, title=escape(f"{found['path']}: {found['kind']}"), title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in _list_facts(found):
        table.add_row(name, escape(fact))
    Console().print(table)


def _list_facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model, schema = found["model"], found["schema"]
    yield "predicts", _name_answers(model, schema, found)
    parameters = found.get("parameters")
    yield "encoder", model["encoder"] + (f", {parameters['encoder']:,} parameters" if parameters else "")
    yield "head", model["head"] + (f", {parameters['head']:,} parameters" if parameters else "")
    yield (
        "images",
        f"{model['input_size']} × {model['input_size']} pixels, {'grey' if model['channels'] == 1 else 'colour'} "
        f"({model['channels']} channel{'s' * (model['channels'] > 1)}); cropped to {model['crop_size']}, resized to "
        f"{model['resize_size']}; not square: {model['fit']}",
    )
    yield "pixels", f"less {_show(model['mean'])}, divided by {_show(model['std'])}"
    yield "FITS", "as images of other kinds, or not known" if model["fits"] is None else _show(model["fits"])
    weights = model["weights"]
    yield "began with", "random weights" if weights is None else str(weights.get("source"))
    if found.get("finetuning"):
        yield "finetuning", _show(found["finetuning"])
    for name in ("training", "data", "metrics"):
        if found["kind"] != "onnx":
            yield name, _show(found[name]) if found[name] else "not recorded"
    if found["kind"] != "onnx":
        yield "calibration", _show(found["calibration"]) if found["calibration"] else "none"
    yield "made with", _show(found["versions"])
    yield "weights", f"sha256 {found['weights_sha256']}"
    yield "on disk", f"{found['bytes'] / 1e6:.1f} MB"


def _name_answers(model: Mapping[str, Any], schema: Mapping[str, Any] | None, found: Mapping[str, Any]) -> str:
    if model.get("targets"):
        return f"numbers: {', '.join(model['targets'])}"
    if schema is None:
        return f"no decision tree, {found['answers']} answers"
    what = "1 question" if found["questions"] == 1 else f"{found['questions']} questions"
    return f"{schema['name']}, {what}, {found['answers']} {'classes' if model['head'] == 'softmax' else 'answers'}"


def _show(value: Any) -> str:
    """Plain values in a line, tables in lines of their own."""
    if isinstance(value, Mapping):
        deep = any(isinstance(each, Mapping) for each in value.values())
        shown = [f"{name} {_show(each)}" for name, each in value.items() if each is not None]
        return ("\n" if deep else ", ").join(shown)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_show, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
