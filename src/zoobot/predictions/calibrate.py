"""Recalibrating a model on votes that it was not trained on, and measuring honestly what that gains."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import GalaxyDataset, ImageDataset, describe_dataset
from zoobot.errors import PredictionError, SettingError
from zoobot.estimators.checkpoint import load_config, load_model
from zoobot.estimators.define_model import Model
from zoobot.predictions.calibration_file import save_calibration
from zoobot.predictions.predict_on_images import predict_dataset
from zoobot.predictions.sources import open_shards
from zoobot.schemas import Schema
from zoobot.stats.calibration import Calibration, Estimate, measure_calibration
from zoobot.stats.concentrations import Floats
from zoobot.stats.recalibration import Recalibration, cross_recalibrate, fit_recalibration

__all__ = ["Calibrated", "calibrate"]


@dataclass(frozen=True)
class Calibrated:
    """What :func:`calibrate` found.

    Attributes:
        path: the file written.
        recalibration: fitted to all galaxies.
        question_names: in the order of what follows.
        before: calibration of each question without it.
        after: with it, measured by cross-fitting: each half of the galaxies with what was fitted to the other.
        all_before: of all questions together.
        all_after: likewise.
    """

    path: Path
    recalibration: Recalibration
    question_names: list[str]
    before: list[Calibration]
    after: list[Calibration]
    all_before: Calibration
    all_after: Calibration


def calibrate(
    checkpoint_dir: str | Path,
    *,
    shard_dir: str | Path | None = None,
    split: str = "test",
    catalog: str | Path | None = None,
    image_root: str | Path | None = None,
    n_samples: int = 5,
    tta: str = "none",
    batch_size: int = 64,
    workers: int = 0,
    device: str | None = None,
) -> Calibrated:
    """Fit a recalibration to galaxies with votes, and write it into the model folder, where predict finds it.

    They must not be those that the model was trained on: of these it knows the votes. Votes that are not whole are
    rounded to measure coverage, not to fit.

    Args:
        checkpoint_dir: a model folder, as training makes it.
        shard_dir: a folder of shards; or a ``catalog``, just one of the two.
        split: which part of the shards.
        catalog: a table with ``id_str``, ``file_loc`` and votes.
        image_root: the folder that relative ``file_loc`` of the catalog start from; the catalog's own when left out.
        n_samples: draws of dropout; as many as you will predict with.
        tta: views of each image, ``none`` or ``dihedral``; as you will predict with.
        batch_size: galaxies at a time.
        workers: processes that decode images.
        device: ``cpu``, ``cuda``, ``mps``; the best there is when left out.

    Raises:
        SettingError: a setting is wrong, or the galaxies are just those that the model was trained on (that some of
            them are is not noticed).
        ModelError: the model folder cannot be used.
        PredictionError: no galaxy has both votes and an image that can be read.
        CatalogError, ShardError: the galaxies cannot be read.
    """
    if (shard_dir is None) == (catalog is None):
        raise SettingError("give just one of shard_dir and catalog")
    if n_samples < 1:
        raise SettingError(f"n_samples is {n_samples}; it must be at least 1")
    model = load_model(checkpoint_dir)
    if model.schema is None:
        raise SettingError(f"the model in {checkpoint_dir} has no schema, so its questions are unknown")
    schema = model.schema
    if shard_dir is not None:
        if split == "unlabelled":
            raise SettingError("split (--split) is unlabelled; calibration needs votes, such as those of test")
        sizes = {"size": model.config.input_size, "channels": model.config.channels}
        dataset = open_shards(Path(shard_dir), split, **sizes, schema=schema)
    else:
        dataset = _open_catalog(str(catalog), image_root, model, schema)
    data = describe_dataset(dataset)
    _refuse_training_galaxies(checkpoint_dir, data)
    concentrations, _ = predict_dataset(
        model, dataset, n_samples=n_samples, tta=tta, batch_size=batch_size, workers=workers, device=device
    )
    votes = np.asarray(dataset.votes, dtype=np.float64)
    usable = np.isfinite(concentrations).all(axis=(1, 2)) & votes.any(axis=1)
    if not usable.any():
        raise PredictionError(f"not one of {len(votes)} galaxies has votes and an image that can be read")
    settings = {"n_samples": n_samples, "tta": tta, "data": data}
    return _fit_and_write(checkpoint_dir, votes[usable], concentrations[usable], schema, settings)


def _fit_and_write(
    folder: str | Path, votes: Floats, concentrations: NDArray[np.float32], schema: Schema, settings: dict[str, Any]
) -> Calibrated:
    groups = schema.question_index_groups
    whole = np.rint(votes)
    before, all_before = measure_calibration(whole, concentrations, groups)
    after, all_after = measure_calibration(whole, cross_recalibrate(votes, concentrations, groups), groups)
    recalibration = fit_recalibration(votes, concentrations, groups)
    rows = zip([*schema.question_names, "all questions"], [*before, all_before], [*after, all_after], strict=True)
    measured = {name: {"before": _plain(one), "after": _plain(other)} for name, one, other in rows}
    facts = {"galaxies": len(votes), **settings, "label_cols": schema.label_cols, "measured": measured}
    path = save_calibration(folder, recalibration, facts)
    return Calibrated(path, recalibration, schema.question_names, before, after, all_before, all_after)


def _open_catalog(catalog: str, image_root: str | Path | None, model: Model, schema: Schema) -> GalaxyDataset:
    table = read_catalog(catalog, schema.label_cols, image_root=image_root, check_files=False)
    config = model.config
    return ImageDataset(
        table,
        size=config.input_size,
        channels=config.channels,
        label_cols=schema.label_cols,
        fit=config.fit,
        keep_faulty=True,
    )


def _refuse_training_galaxies(folder: str | Path, data: dict[str, Any]) -> None:
    trained_on = load_config(folder)["metadata"].get("data", {}).get("train", {}).get("sha256")
    if trained_on == data["sha256"]:
        raise SettingError(
            f"the model was trained on just these {data['galaxies']} galaxies; of others, such as those of test, it "
            "learns how sure it may be"
        )


def _plain(measured: Calibration) -> dict[str, Any]:
    """A calibration for JSON: values and standard errors, None where there are none."""
    intervals = zip(measured.credibilities, measured.coverages, strict=True)
    return {
        "galaxies": measured.galaxies,
        "loss": _pair(measured.loss),
        **{f"coverage_{credibility * 100:g}": _pair(found) for credibility, found in intervals},
        "calibration_error": _pair(measured.calibration_error),
        "mean_deviation": _pair(measured.deviation),
        "mean_width_90": _pair(measured.width),
    }


def _pair(estimate: Estimate) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in (estimate.value, estimate.standard_error)]
