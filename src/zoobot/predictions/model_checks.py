"""Whether models fit one another, and the settings of a prediction."""

from collections.abc import Sequence
from pathlib import Path

from zoobot.errors import SettingError
from zoobot.estimators.augment import VIEWS
from zoobot.estimators.define_model import Model
from zoobot.predictions.catalogue import count_columns
from zoobot.predictions.merging import MOST_FITS_COLUMNS
from zoobot.predictions.prediction_settings import PredictConfig
from zoobot.schemas import Schema

__all__ = ["check_models", "choose_n_samples", "choose_schema"]


_N_SAMPLES = 5
_ONLY_VOTES = {"keep_raw": False, "uncertainty": False, "friendly_loc": None, "schema": None, "calibration": None}


def check_models(config: PredictConfig, models: Sequence[Model]) -> Schema | None:
    """Check that models fit the settings of a prediction; give their decision tree, if they predict votes.

    Raises:
        SettingError: they were trained with other sizes than those given, or for other tasks or outputs than one
            another; as `choose_schema`; or a FITS table cannot have so many columns.
    """
    sizes = {"initial_size": "input_size", "crop_size": "crop_size", "final_size": "resize_size"}
    for given, own in sizes.items():
        wanted = getattr(config, given)
        others = [getattr(model.config, own) for model in models if getattr(model.config, own) != wanted]
        if wanted is not None and others:
            raise SettingError(f"{given} is {wanted}, but the model was trained with {others[0]}; leave it out")
    task = models[0].head.task
    if task != "votes":
        _check_labels(config, models)
        return None
    schema = choose_schema(config.checkpoint_dirs, models, config.schema)
    kept = config.keep_concentrations + config.keep_raw
    samples = len(models) * VIEWS[config.tta] * choose_n_samples(config, models)
    columns = count_columns(schema, samples * kept, uncertainty=config.uncertainty)
    if columns > MOST_FITS_COLUMNS and Path(config.save_loc).suffix.lower() in (".fits", ".fit"):
        raise SettingError(
            f"save_loc {config.save_loc} would need {columns} columns, a FITS table holds {MOST_FITS_COLUMNS}; "
            "leave the concentrations out with --no-concentrations, or write .parquet"
        )
    return schema


def choose_n_samples(config: PredictConfig, models: Sequence[Model]) -> int:
    """How often to draw dropout: as the settings have it, or else as suits the task."""
    if config.n_samples is not None:
        return config.n_samples
    return _N_SAMPLES if models[0].head.task == "votes" else 1


def _check_labels(config: PredictConfig, models: Sequence[Model]) -> None:
    task = models[0].head.task
    unfit = [name for name, plain in _ONLY_VOTES.items() if getattr(config, name) != plain]
    if unfit:
        raise SettingError(f"{unfit[0]} is for models of votes; the model is for {task}: leave it out")
    names = [
        (model.head.task, model.config.targets if model.schema is None else model.schema.label_cols) for model in models
    ]
    if any(other != names[0] for other in names):
        raise SettingError("the models predict different labels; only models of the same can be mixed")
    unnamed = [
        folder for folder, model in zip(config.checkpoint_dirs, models, strict=True) if not _names_outputs(model)
    ]
    if unnamed:
        raise SettingError(
            f"the model in {unnamed[0]} does not say what it predicts; make it with get_model(targets=...) or a schema"
        )


def _names_outputs(model: Model) -> bool:
    """Whether classes are the answers of one question, and numbers have names."""
    if model.head.task == "classification":
        return model.schema is not None and len(model.schema.questions) == 1
    return bool(model.config.targets) and model.schema is None


def choose_schema(folders: Sequence[Path], models: Sequence[Model], schema: Schema | None = None) -> Schema:
    """The decision tree of all models, or the one given for models that have none.

    Args:
        folders: where the models come from, for the messages.
        models: one or more.
        schema: checked against the models' own, if they have one.

    Raises:
        SettingError: there is none, a model is not for votes, or the models, or the one given, have other answers.
    """
    others = [model.head.task for model in models if model.head.task != "votes"]
    if others:
        raise SettingError(f"a model is for {others[0]}; this needs models of votes")
    chosen = models[0].schema or schema
    if chosen is None:
        raise SettingError(f"the model in {folders[0]} has no schema; give the one it was trained for")
    if schema is not None and schema.label_cols != chosen.label_cols:
        raise SettingError(f"schema {schema.name} has other answers than the model's, {chosen.name}; leave it out")
    for folder, model in zip(folders, models, strict=True):
        if len(chosen.label_cols) != model.config.output_dim:
            raise SettingError(
                f"schema {chosen.name} has {len(chosen.label_cols)} answers, the model in {folder} "
                f"{model.config.output_dim}"
            )
        if model.schema is not None and model.schema.label_cols != chosen.label_cols:
            raise SettingError(
                f"the models in {folders[0]} and {folder} have other answers, of {chosen.name} and "
                f"{model.schema.name}; only models of the same can be mixed"
            )
    return chosen
