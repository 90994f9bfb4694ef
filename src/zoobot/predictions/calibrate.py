"""Recalibrating a model, or a mixture, on votes that it was not trained on, and measuring what that gains."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoobot.data.datasets import describe_dataset
from zoobot.errors import PredictionError, SettingError
from zoobot.estimators.checkpoint import load_config, load_model
from zoobot.predictions.calibration_file import choose_calibration_path, list_model_folders, save_calibration
from zoobot.predictions.drawing import check_drawing, predict_mixture
from zoobot.predictions.model_checks import choose_schema
from zoobot.predictions.outputs import check_writable
from zoobot.predictions.sources import GalaxySource, make_settings, open_for_each, open_source
from zoobot.schemas import Schema
from zoobot.stats.calibration import Calibration, Estimate, measure_calibration
from zoobot.stats.concentrations import Floats, round_votes
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
    checkpoint_dir: str | Path | Sequence[str | Path],
    *,
    save_loc: str | Path | None = None,
    n_samples: int = 5,
    tta: str = "none",
    batch_size: int = 64,
    workers: int | None = None,
    device: str | None = None,
    **where: Any,
) -> Calibrated:
    """Fit a recalibration to galaxies with votes, and write it into the model folder, where predict finds it.

    Of several models it is one recalibration of their mixture, written to ``save_loc`` and bound to all their weights.
    The galaxies must not be those that a model was trained on: of these it knows the votes. Votes that are not whole
    are rounded to measure coverage, not to fit.

    Args:
        checkpoint_dir: a model folder, as training makes it; or several, in any order.
        save_loc: the ``.json`` file to write instead of that in the model folder; predict takes it as ``calibration``.
        n_samples: draws of dropout; as many as you will predict with.
        tta: views of each image, ``none`` or ``dihedral``; as you will predict with.
        batch_size: galaxies at a time.
        workers: processes that decode images; chosen by the machine when left out.
        device: ``cpu``, ``cuda``, ``mps``; the best there is when left out.
        where: the galaxies are: fields of :class:`~zoobot.predictions.sources.GalaxySource` by name, ``shard_dir`` or
            ``catalog`` above all; they must have votes.

    Raises:
        SettingError: a setting is wrong, the models have other answers, or the galaxies are just those that a model was
            trained on (that some of them are is not noticed).
        ModelError: a model folder cannot be used.
        PredictionError: no galaxy has both votes and an image that can be read; or ``save_loc`` cannot be written.
        CatalogError, ShardError: the galaxies cannot be read.
    """
    if (where.get("shard_dir") is None) == (where.get("catalog") is None):
        raise SettingError("give just one of shard_dir and catalog")
    source = make_settings(GalaxySource, where, "calibrate")
    if source.shard_dir is not None and source.split == "unlabelled":
        raise SettingError("split (--split) is unlabelled; calibration needs votes, such as those of test")
    check_drawing(n_samples=n_samples, tta=tta, batch_size=batch_size, workers=workers)
    folders = list_model_folders(checkpoint_dir)
    models = [load_model(folder) for folder in folders]
    path = choose_calibration_path(folders, save_loc)
    check_writable(path)
    schema = choose_schema(folders, models)
    datasets = open_for_each(models, lambda model: open_source(source, model, schema=schema))
    data = describe_dataset(datasets[0])
    _refuse_training_galaxies(folders, data)
    concentrations = predict_mixture(
        models, datasets, n_samples=n_samples, tta=tta, batch_size=batch_size, workers=workers, device=device
    ).concentrations
    found = _fit(path, np.asarray(datasets[0].votes, dtype=np.float64), concentrations, schema)
    facts = {"n_samples": n_samples, "tta": tta, "data": data, "label_cols": schema.label_cols, **_describe(found)}
    save_calibration(folders, found.recalibration, facts, save_loc)
    return found


def _fit(path: Path, votes: Floats, concentrations: NDArray[np.float32], schema: Schema) -> Calibrated:
    usable = np.isfinite(concentrations).all(axis=(1, 2)) & votes.any(axis=1)
    if not usable.any():
        raise PredictionError(f"not one of {len(votes)} galaxies has votes and an image that can be read")
    votes, concentrations, groups = votes[usable], concentrations[usable], schema.question_index_groups
    whole = round_votes(votes, groups)
    before, all_before = measure_calibration(whole, concentrations, groups)
    after, all_after = measure_calibration(whole, cross_recalibrate(votes, concentrations, groups), groups)
    recalibration = fit_recalibration(votes, concentrations, groups)
    return Calibrated(path, recalibration, schema.question_names, before, after, all_before, all_after)


def _describe(found: Calibrated) -> dict[str, Any]:
    """What was measured, for JSON."""
    names = [*found.question_names, "all questions"]
    rows = zip(names, [*found.before, found.all_before], [*found.after, found.all_after], strict=True)
    measured = {name: {"before": _plain(before), "after": _plain(after)} for name, before, after in rows}
    return {"galaxies": found.all_before.galaxies, "measured": measured}


def _refuse_training_galaxies(folders: Sequence[Path], data: dict[str, Any]) -> None:
    for folder in folders:
        trained_on = load_config(folder)["metadata"].get("data", {}).get("train", {}).get("sha256")
        if trained_on == data["sha256"]:
            raise SettingError(
                f"the model in {folder} was trained on just these {data['galaxies']} galaxies; of others, such as "
                "those of test, it learns how sure it may be"
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
