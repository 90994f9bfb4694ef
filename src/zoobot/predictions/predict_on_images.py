"""Predicting how volunteers would vote, for images in a folder, a catalog or shards."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoobot.errors import PredictionError, SettingError
from zoobot.predictions.drawing import choose_device, choose_devices
from zoobot.predictions.job_progress import Tell, follow_job
from zoobot.predictions.merging import Predicted, count_galaxies, merge
from zoobot.predictions.outputs import check_save_loc, check_writable, failed_path
from zoobot.predictions.prediction_job import Job, PartsFailedError, run_on_devices, run_parts
from zoobot.predictions.prediction_parts import PartsFolder, choose_share
from zoobot.predictions.prediction_settings import PredictConfig
from zoobot.predictions.ray_engine import run_on_ray
from zoobot.predictions.sources import make_settings

__all__ = ["PartsFailedError", "PredictConfig", "Predicted", "failed_path", "predict"]


def predict(config: PredictConfig | None = None, **settings: Any) -> Predicted:
    """Predict every galaxy of a folder, a catalog or shards, and write a table of posteriors.

    The encoder runs once for each image, however many samples are drawn. Rows are in the order of the input.
    Images that cannot be read are rows of a second table, ``<name>.failed.csv``, with the reason.

    The galaxies are predicted in parts, each written when it is done: into the folder that ``save_loc`` is, or into a
    hidden one beside the table that it is, where they stay until they are joined. After an interruption the same call
    goes on with the parts that are missing. Memory does not grow with the galaxies, save for their names.

    Args:
        config: what to predict; or give the fields of :class:`PredictConfig` by name.

    Raises:
        SettingError: a setting is wrong or unknown; or the folder holds predictions with other settings.
        ModelError: the model folder cannot be used, or does not have the sizes that are given.
        PredictionError: ``save_loc`` exists, or not one image could be read.
        PartsFailedError: parts failed twice; the others are kept.
        CatalogError, ImageError, ShardError: there is nothing to predict where it was looked for.
    """
    config = replace(config, **settings) if config else make_settings(PredictConfig, settings, "predict")
    save_loc = Path(config.save_loc)
    friendly = [] if config.friendly_loc is None else [Path(config.friendly_loc)]
    if config.writes_parts:
        check_writable(save_loc / "manifest.json")
    else:
        check_save_loc(save_loc, friendly, overwrite=config.overwrite)
    if config.engine == "local":
        config = replace(config, device=choose_device(config.device))
        choose_devices(str(config.device), config.devices)
    job = Job.open(config)
    folder = _claim(config, job)
    _run(config, job, folder)
    if config.writes_parts:
        return count_galaxies(folder)
    try:
        done = merge(
            folder.path,
            save_loc,
            friendly_loc=config.friendly_loc,
            asked_threshold=config.asked_threshold,
            overwrite=config.overwrite,
        )
    except PredictionError:
        if not count_galaxies(folder).galaxies:  # to be tried afresh
            PartsFolder.delete(folder.path)
        raise
    PartsFolder.delete(folder.path)
    return done


def _claim(config: PredictConfig, job: Job) -> PartsFolder:
    """The folder of parts; a hidden one of other predictions, which was left by a killed run, is begun afresh."""
    path, about = config.parts_path, job.describe()
    if config.writes_parts:
        if config.overwrite:
            PartsFolder.delete(path)
        return PartsFolder.claim(path, about, len(job.id_str), config.whole_part)
    try:
        return PartsFolder.claim(path, about, len(job.id_str), config.whole_part)
    except (SettingError, PredictionError):
        PartsFolder.delete(path)
        return PartsFolder.claim(path, about, len(job.id_str), config.whole_part)


def _run(config: PredictConfig, job: Job, folder: PartsFolder) -> None:
    """Predict the parts that are missing, of those that are this process's to do."""
    numbers = range(len(folder)) if config.part is None else choose_share(config.part, len(folder))
    if config.part is None:
        folder.delete_leftovers()
    missing = folder.list_missing(numbers)
    galaxies, left = (sum(len(folder.find_rows(number)) for number in each) for each in (numbers, missing))
    with follow_job(galaxies, galaxies - left, config.log_json) as tell:
        failed = _choose_engine(config)(job, folder, missing, tell)
    if failed:
        raise PartsFailedError(failed)


def _choose_engine(config: PredictConfig) -> Callable[[Job, PartsFolder, Sequence[int], Tell], dict[int, str]]:
    if config.engine == "ray":
        return run_on_ray
    return run_parts if config.devices == 1 else run_on_devices
