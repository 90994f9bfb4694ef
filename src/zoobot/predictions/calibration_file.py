"""The recalibration that a model folder may hold, ``calibration.json``: written, checked, read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoobot.errors import ModelError, SettingError
from zoobot.estimators.checkpoint import CALIBRATION_NAME, load_config
from zoobot.files import replace_atomically
from zoobot.stats.recalibration import Recalibration

__all__ = ["load_calibration", "save_calibration"]

_FORMAT = 1
_KEYS = ("format", "weights_sha256", "recalibration")
_FIX = "run `zoobot calibrate` again, or delete the file, or predict with --no-recalibrate"


def save_calibration(checkpoint_dir: str | Path, recalibration: Recalibration, facts: Mapping[str, Any]) -> Path:
    """Write a recalibration into a model folder, bound to its weights; give the path.

    Args:
        checkpoint_dir: the model folder.
        recalibration: what to write.
        facts: what else is worth knowing, ready for JSON.

    Raises:
        ModelError: the model folder cannot be read.
    """
    content = {
        "format": _FORMAT,
        "weights_sha256": load_config(checkpoint_dir)["weights_sha256"],
        "recalibration": recalibration.to_dict(),
        **facts,
    }
    path = Path(checkpoint_dir) / CALIBRATION_NAME
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def load_calibration(
    checkpoint_dir: str | Path, *, n_samples: int | None = None, tta: str | None = None
) -> Recalibration | None:
    """Read the recalibration of a model folder; None where it has none.

    Args:
        checkpoint_dir: the model folder.
        n_samples: how many draws it will be used for, to be checked: a mixture of more samples is wider.
        tta: for which views, likewise.

    Raises:
        SettingError: it was fitted with another ``n_samples`` or ``tta``.
        ModelError: it is not one, belongs to other weights (the model was trained again) or to other questions; or the
            model folder cannot be read.
    """
    path = Path(checkpoint_dir) / CALIBRATION_NAME
    config = load_config(checkpoint_dir)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}); {_FIX}") from error
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ModelError(f"{path}: lacks {', '.join(missing)}; {_FIX}")
    if content["format"] != _FORMAT:
        raise ModelError(f"{path}: got format {content['format']!r}, expected {_FORMAT}; {_FIX}")
    if content["weights_sha256"] != config["weights_sha256"]:
        raise ModelError(f"{path}: belongs to other weights than the model's, which was trained since; {_FIX}")
    try:
        recalibration = Recalibration.from_dict(content["recalibration"])
    except SettingError as error:
        raise ModelError(f"{path}: {error} {_FIX[0].upper()}{_FIX[1:]}") from error
    answers = recalibration.question_index_groups[-1][1] + 1
    if answers != config["model"]["output_dim"]:
        raise ModelError(f"{path}: is for {answers} answers, the model has {config['model']['output_dim']}; {_FIX}")
    for name, wanted in (("n_samples", n_samples), ("tta", tta)):
        if wanted is not None and content.get(name, wanted) != wanted:
            raise SettingError(
                f"{name} is {wanted}, but {path} was fitted with {content[name]}; predict with that, or run "
                f"`zoobot calibrate` again with {name} {wanted}, or predict with --no-recalibrate"
            )
    return recalibration
