"""What the README shows works as written."""

import re
from pathlib import Path

import torch
import typer.main

from zoobot import schemas
from zoobot.cli.main import app
from zoobot.estimators import augment, define_model, encoders

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_parts_of_ones_own_make_a_model():
    (code,) = [block for block in blocks("python") if "register_head" in block]
    names: dict = {}
    try:
        exec(compile(code, "README.md", "exec"), names)
        concentrations = names["model"](torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
        assert concentrations.shape == (2, 30)
        assert (concentrations > 0).all()
    finally:
        for registry, name in (
            (define_model.HEADS, "unbounded"),
            (encoders.ENCODERS, "tiny"),
            (augment.PREPROCESSES, "bright"),
        ):
            registry.pop(name, None)


def test_the_tree_is_one(tmp_path):
    (code,) = blocks("toml")
    (tmp_path / "tree.toml").write_text(code)
    assert len(schemas.load(tmp_path / "tree.toml").label_cols) == 5


def test_every_option_exists():
    commands = typer.main.get_group(app).commands
    shown = [line.split() for block in blocks("bash") for line in block.splitlines() if line.startswith("zoobot ")]
    used = [words for words in shown if words[1] in commands]
    assert {words[1] for words in used} >= {"create-shards", "train", "predict", "evaluate"}
    for words in used:
        known = {option for parameter in commands[words[1]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
