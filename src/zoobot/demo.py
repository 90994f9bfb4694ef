"""The whole journey in a few minutes, on a simulated survey: from galaxies and votes to a report."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.rule import Rule

from zoobot import schemas
from zoobot.data import shard_writing, shards
from zoobot.data.manifest import MANIFEST_NAME, Manifest
from zoobot.data.shard_writing import ShardConfig
from zoobot.errors import SettingError
from zoobot.estimators import define_model
from zoobot.files import claim_folder
from zoobot.predictions import evaluate as evaluating
from zoobot.predictions import predict_on_images
from zoobot.report.page import make_report
from zoobot.schemas import Schema
from zoobot.simulate.impressions import check_is_known
from zoobot.simulate.survey import SurveyConfig, simulate_survey
from zoobot.training.training_config import TrainConfig, train_estimator

__all__ = ["DemoConfig", "DemoFiles", "run_demo"]


@dataclass(frozen=True)
class DemoConfig:
    """How large the demonstration is. The defaults take about five minutes on two cores.

    Raises:
        SettingError: a setting is outside what it may be.
    """

    galaxies: int = 3000
    """How many to simulate; a fifth of them is held back for testing."""
    img_size: int = 96
    """Height and width of the images, in pixels."""
    train_minutes: float = 4.0
    """How long to train."""
    schema: str = "gz_decals"
    """The decision tree."""
    seed: int = 0
    """What decides everything that is random."""

    def __post_init__(self) -> None:
        """Check what the steps themselves would check too late."""
        SurveyConfig(galaxies=self.galaxies, img_size=self.img_size, seed=self.seed)
        if self.galaxies < 20:
            raise SettingError(f"galaxies: got {self.galaxies}, expected at least 20, to train and to test")
        if self.img_size < 32:
            raise SettingError(f"img_size: got {self.img_size}, expected at least 32, to see anything")
        if not 0 < self.train_minutes < math.inf:
            raise SettingError(f"train_minutes: got {self.train_minutes}, expected more than 0")


@dataclass(frozen=True)
class DemoFiles:
    """Where everything lies that a demonstration makes."""

    folder: Path

    @property
    def survey(self) -> Path:
        """Images, catalog of votes, clicks, and the truth."""
        return self.folder / "survey"

    @property
    def catalog(self) -> Path:
        """Votes."""
        return self.survey / "catalog.csv"

    @property
    def truth(self) -> Path:
        """What made the galaxies and the votes."""
        return self.survey / "truth.parquet"

    @property
    def shards(self) -> Path:
        """The same images and votes, fast to train on."""
        return self.folder / "shards"

    @property
    def model(self) -> Path:
        """The trained model and its history."""
        return self.folder / "model"

    @property
    def predictions(self) -> Path:
        """Posteriors of the held-back galaxies."""
        return self.folder / "predictions.parquet"

    @property
    def metrics(self) -> Path:
        """Scores, as JSON."""
        return self.folder / "metrics.json"

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.folder / "report.html"


def run_demo(save_dir: str | Path = "demo", config: DemoConfig | None = None) -> DemoFiles:
    """Simulate a survey, write shards, train, predict, score and report; interrupted, it goes on where it stopped.

    Args:
        save_dir: folder to make.
        config: how large it is.

    Returns:
        Where everything lies.

    Raises:
        SettingError: the folder holds something else, or a demonstration with other settings.
    """
    config = config or DemoConfig()
    files = DemoFiles(Path(save_dir))
    schema = schemas.load(config.schema)
    check_is_known(schema)
    settings = {name: value for name, value in asdict(config).items() if name != "train_minutes"}  # which may grow
    claim_folder(files.folder, "demo.json", settings)
    console = Console(stderr=True)
    steps: dict[str, Callable[[], object]] = {
        f"Simulate {config.galaxies} galaxies, and volunteers who look at them": lambda: simulate_survey(
            files.survey, schema, SurveyConfig(galaxies=config.galaxies, img_size=config.img_size, seed=config.seed)
        ),
        "Write images and votes as shards": lambda: _write_shards(files, schema, config),
        f"Train a small network for {config.train_minutes:g} minutes": lambda: _train(files, schema, config),
        "Predict the votes for galaxies that were held back": lambda: predict_on_images.predict(
            checkpoint_dir=files.model, shard_dir=files.shards, save_loc=files.predictions, overwrite=True
        ),
        "Score the predictions": lambda: evaluating.evaluate(
            files.predictions, files.catalog, files.metrics, schema=schema
        ),
        "Report": lambda: make_report(
            files.predictions, files.catalog, files.report, checkpoint_dir=files.model, truth=files.truth
        ),
    }
    for number, (what, step) in enumerate(steps.items(), 1):
        console.print(Rule(f"{number} of {len(steps)}: {what}", align="left"))
        step()
    return files


def _write_shards(files: DemoFiles, schema: Schema, config: DemoConfig) -> None:
    if (files.shards / MANIFEST_NAME).exists() and Manifest.load(files.shards).complete:
        return  # the folder may have been moved since, and with it the images
    settings = ShardConfig(img_size=config.img_size, seed=config.seed)
    shard_writing.create_shards(files.catalog, files.shards, schema, settings)


def _train(files: DemoFiles, schema: Schema, config: DemoConfig) -> None:
    torch.manual_seed(config.seed)  # the initial weights
    model = define_model.get_model(
        schema=schema,
        input_size=config.img_size,
        crop_size=round(config.img_size * 5 / 6),
        resize_size=min(64, round(config.img_size * 5 / 6)),
        encoder="resnet10t",
        head="wide",  # arms that few see: many votes for nothing, or for one answer
    )
    settings = TrainConfig(
        log_dir=files.model,
        max_minutes=config.train_minutes,
        patience=1000,
        learning_rate=2e-3,
        seed=config.seed,
        resume=True,
    )
    train_estimator(model, settings, *shards.load_datasets(files.shards))
