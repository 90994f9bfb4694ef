"""The recalibration of a model, or of a mixture of models, in a JSON file: written, checked, read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoobot.errors import ModelError, SettingError
from zoobot.estimators.checkpoint import CALIBRATION_NAME, load_config
from zoobot.files import replace_atomically
from zoobot.stats.recalibration import Recalibration

__all__ = ["choose_calibration_path", "list_model_folders", "load_calibration", "save_calibration"]

_FORMAT = 1
_KEYS = ("format", "weights_sha256", "recalibration")


def list_model_folders(checkpoint_dir: str | Path | Sequence[str | Path]) -> list[Path]:
    """One model folder, or several, as a list.

    Raises:
        SettingError: there is none.

    >>> [folder.name for folder in list_model_folders("models/a")]
    ['a']
    """
    given = [checkpoint_dir] if isinstance(checkpoint_dir, (str, Path)) else checkpoint_dir
    if not given:
        raise SettingError("checkpoint_dir is empty; give a model folder, or several")
    return [Path(folder) for folder in given]


def choose_calibration_path(
    checkpoint_dir: str | Path | Sequence[str | Path], save_loc: str | Path | None = None
) -> Path:
    """Where a recalibration goes: into the model folder, or where it is told to, which it is for several models.

    Raises:
        SettingError: there are several models and no ``save_loc``; or it is not to a ``.json``, or over a file of
            another kind, such as a model's ``config.json``.
    """
    folders = list_model_folders(checkpoint_dir)
    if save_loc is None:
        if len(folders) != 1:
            raise SettingError(
                f"save_loc (--save-loc) is missing; the recalibration of a mixture of {len(folders)} models has no "
                "folder of its own, so name its file, such as mixture.calibration.json"
            )
        return folders[0] / CALIBRATION_NAME
    path = Path(save_loc)
    if path.suffix != ".json":
        raise SettingError(f"save_loc is {path}; a recalibration is written as .json")
    if path.exists() and not _holds_recalibration(path):
        raise SettingError(
            f"save_loc: {path} exists and holds something else than a recalibration; choose another name"
        )
    return path


def save_calibration(
    checkpoint_dir: str | Path | Sequence[str | Path],
    recalibration: Recalibration,
    facts: Mapping[str, Any],
    save_loc: str | Path | None = None,
) -> Path:
    """Write a recalibration into a model folder or ``save_loc``, bound to the weights of all models; give the path.

    Args:
        checkpoint_dir: the model folder, or several in any order.
        recalibration: what to write.
        facts: what else is worth knowing, ready for JSON.
        save_loc: the file, as :func:`choose_calibration_path`.

    Raises:
        ModelError: a model folder cannot be read.
        SettingError: as :func:`choose_calibration_path`.
    """
    path = choose_calibration_path(checkpoint_dir, save_loc)
    content = {
        "format": _FORMAT,
        "weights_sha256": _weights([load_config(folder) for folder in list_model_folders(checkpoint_dir)]),
        "recalibration": recalibration.to_dict(),
        **facts,
    }
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def load_calibration(
    checkpoint_dir: str | Path | Sequence[str | Path],
    path: str | Path | None = None,
    *,
    n_samples: int | None = None,
    tta: str | None = None,
) -> Recalibration | None:
    """Read a recalibration: the file that is named, or that of the model folder; None where it has none.

    Args:
        checkpoint_dir: the model folder, or several in any order.
        path: the file; left out, it is the model folder's own.
        n_samples: how many draws it will be used for, to be checked: a mixture of more samples is wider.
        tta: for which views, likewise.

    Raises:
        SettingError: it was fitted with another ``n_samples`` or ``tta``; or no file is named, and one of several
            models has its own.
        ModelError: it is not one, belongs to other weights (a model was trained again) or to other answers; or a
            model folder cannot be read.
    """
    folders = list_model_folders(checkpoint_dir)
    configs = [load_config(folder) for folder in folders]
    if path is None and len(folders) > 1:
        _refuse_own(folders)
        return None
    if path is None and not (folders[0] / CALIBRATION_NAME).exists():
        return None
    skip = "with --no-recalibrate" if path is None else "without --calibration"
    fix = f"run `zoobot calibrate` again, or predict {skip}"
    path = folders[0] / CALIBRATION_NAME if path is None else Path(path)
    content = _read(path, fix)
    if content["weights_sha256"] != _weights(configs):
        raise ModelError(
            f"{path}: belongs to other weights ({_count(content['weights_sha256'])}) than those given "
            f"({_count(folders)}); a model may have been trained since; {fix}"
        )
    try:
        recalibration = Recalibration.from_dict(content["recalibration"])
    except SettingError as error:
        raise ModelError(f"{path}: {error} {fix[0].upper()}{fix[1:]}") from error
    answers, expected = recalibration.question_index_groups[-1][1] + 1, configs[0]["model"]["output_dim"]
    if answers != expected:
        raise ModelError(f"{path}: is for {answers} answers, the model has {expected}; {fix}")
    for name, wanted in (("n_samples", n_samples), ("tta", tta)):
        if wanted is not None and content.get(name, wanted) != wanted:
            raise SettingError(
                f"{name} is {wanted}, but {path} was fitted with {content[name]}; predict with that, or run "
                f"`zoobot calibrate` again with {name} {wanted}, or predict {skip}"
            )
    return recalibration


def _weights(configs: Sequence[Mapping[str, Any]]) -> Any:
    """What identifies the weights of a model, or of several in any order."""
    found = sorted(str(config["weights_sha256"]) for config in configs)
    return found[0] if len(found) == 1 else found


def _count(models: object) -> str:
    return f"{len(models)} models" if isinstance(models, list) and len(models) != 1 else "one model"


def _refuse_own(folders: Sequence[Path]) -> None:
    for folder in folders:
        if (folder / CALIBRATION_NAME).exists():
            raise SettingError(
                f"the recalibration in {folder} is for that model alone, and a mixture is wider; fit one to the "
                "mixture (`zoobot calibrate --save-loc FILE`) and predict with --calibration FILE, or with "
                "--no-recalibrate"
            )


def _holds_recalibration(path: Path) -> bool:
    try:
        _read(path, "")
    except ModelError:
        return False
    return True


def _read(path: Path, fix: str) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ModelError(f"{path}: a folder, a pipe or a device; {fix}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; {fix}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}); {fix}") from error
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ModelError(f"{path}: lacks {', '.join(missing)}; {fix}")
    if content["format"] != _FORMAT:
        raise ModelError(f"{path}: got format {content['format']!r}, expected {_FORMAT}; {fix}")
    return dict(content)
