"""Made galaxies, small enough to train on in seconds, and the real ones where they are at hand."""

import os
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import numpy as np
import pandas as pd
import pytest
import torch

from zoobot import schemas
from zoobot.data import shard_writing, shards
from zoobot.data.shard_writing import ShardConfig
from zoobot.estimators import define_model
from zoobot.estimators.define_model import Model
from zoobot.schemas import Schema
from zoobot.training.training_config import TrainConfig, train_estimator

hypothesis.settings.register_profile("zoobot", deadline=None)  # machines are shared, and one run may be slow
hypothesis.settings.load_profile("zoobot")

TREE = """
description = "a tree for tests"

[[question]]
name = "shape"
answers = ["round", "flat"]

[[question]]
name = "tilt"
answers = ["upright", "lying", "unclear"]
asked_after = ["shape_flat"]
"""
SIZE = 32


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real galaxies that lie beside the checkout on the developers' machines; the project does not contain them."""
    folder = Path(os.environ.get("ZOOBOT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no shared data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tree") / "shapes.toml"
    path.write_text(TREE)
    return path


@pytest.fixture(scope="session")
def schema(tree: Path) -> Schema:
    return schemas.load(tree)


def make_survey(folder: Path, galaxies: int = 40, suffix: str = ".png") -> Path:
    """Write blurred ellipses and what ten volunteers would say of them; return the catalog's path."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    y, x = np.mgrid[:48, :48] - 23.5
    rows = []
    for number in range(galaxies):
        flat, angle = generator.uniform(0, 1), generator.uniform(0, np.pi)
        along = x * np.cos(angle) + y * np.sin(angle)
        across = y * np.cos(angle) - x * np.sin(angle)
        light = np.exp(-0.5 * (along**2 + (across * (1 + 3 * flat)) ** 2) / 8**2)
        pixels = np.stack([200 * light, 180 * light, 160 * light], axis=-1) + generator.uniform(0, 20, (48, 48, 3))
        name = f"J{number:04d}"
        cv2.imwrite(str(folder / "images" / f"{name}{suffix}"), pixels.astype(np.uint8))
        said_flat = generator.binomial(10, flat)
        rows.append(
            {
                "id_str": name,
                "file_loc": f"images/{name}{suffix}",
                "shape_round": 10 - said_flat,
                "shape_flat": said_flat,
                "tilt_upright": said_flat // 2,
                "tilt_lying": said_flat - said_flat // 2,
                "tilt_unclear": 0,
            }
        )
    path = folder / "catalog.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_survey(tmp_path_factory.mktemp("survey"))


@pytest.fixture(scope="session")
def shard_dir(catalog: Path, schema: Schema, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "s"
    config = ShardConfig(img_size=SIZE, eval_size=11)
    shard_writing.create_shards(catalog, folder, schema, config, unlabelled_catalog=catalog)
    return folder


def make_model(schema: Schema, seed: int = 0, **settings: Any) -> Model:
    torch.manual_seed(seed)
    return define_model.get_model(schema=schema, input_size=SIZE, encoder="test_resnet", **settings)


@pytest.fixture(scope="session")
def model_dir(shard_dir: Path, schema: Schema, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    config = TrainConfig(log_dir=folder, epochs=2, batch_size=8)
    train_estimator(make_model(schema), config, *shards.load_datasets(shard_dir))
    return folder
