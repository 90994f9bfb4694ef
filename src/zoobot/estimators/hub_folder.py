"""Model folders ready for the Hugging Face hub: the model, its calibration, and its card as the page to read."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoobot.errors import ModelError, SettingError
from zoobot.estimators.checkpoint import CALIBRATION_NAME, load_config, load_model
from zoobot.estimators.model_card import dig, write_card

__all__ = ["export_hub", "read_calibration"]

_FILES = ("config.json", "model.safetensors")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
_UNDECIDED = "unknown"


def export_hub(
    checkpoint_dir: str | Path, save_loc: str | Path, *, license_id: str = _UNDECIDED, metrics: str | Path | None = None
) -> Path:
    """Write a folder to upload to the Hugging Face hub, which is a model folder still; give its path.

    It has the model's ``config.json`` and ``model.safetensors`` as they are, its ``calibration.json`` if there is one,
    and its card as ``README.md``, with what the hub reads at the top. ``zoobot predict --checkpoint-dir`` and
    ``zoobot train --weights`` take the folder, and the latter its name on the hub (``hf_hub:OWNER/NAME``).

    Args:
        checkpoint_dir: The model folder; loaded once, so that nothing damaged is passed on.
        save_loc: A folder that does not exist or is empty.
        license_id: As the hub names licences, such as ``bsd-3-clause`` or ``cc-by-4.0``.
        metrics: What ``zoobot evaluate`` wrote about this model's predictions, for the card.

    Raises:
        SettingError: ``save_loc`` holds something, or the licence is no such name.
        ModelError: The model, its calibration or the metrics cannot be read.
    """
    source, target = Path(checkpoint_dir), Path(save_loc)
    if not _LICENSE.fullmatch(license_id):
        raise SettingError(f"license: got {license_id!r}, expected a name as the hub has it, such as bsd-3-clause")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SettingError(f"save_loc: {target} holds something; name a new folder")
    model = load_model(source)
    config = {**load_config(source), "model": model.config.to_dict()}
    calibration = read_calibration(source)
    scores = None if metrics is None else _read_table(Path(metrics), "write it with `zoobot evaluate`")
    card = write_card(config, calibration=calibration, metrics=scores)
    with _new_folder(target) as folder:
        for name in _FILES if calibration is None else (*_FILES, CALIBRATION_NAME):
            shutil.copyfile(source / name, folder / name)
        header = _write_header(config, license_id, scores)
        (folder / "README.md").write_text(f"---\n{header}---\n\n{card}", encoding="utf-8")
    return target


def read_calibration(folder: str | Path) -> dict[str, Any] | None:
    """Read a model folder's ``calibration.json`` as it is; None where there is none.

    Raises:
        ModelError: It cannot be read, or belongs to other weights.
    """
    path = Path(folder) / CALIBRATION_NAME
    if not path.exists():
        return None
    fix = "run `zoobot calibrate` again, or delete it"
    calibration = _read_table(path, fix)
    if calibration.get("weights_sha256") != load_config(folder)["weights_sha256"]:
        raise ModelError(f"{path}: belongs to other weights than those beside it; {fix}")
    return calibration


def _read_table(path: Path, fix: str) -> dict[str, Any]:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ModelError(f"{path}: there is no such file; {fix}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}); {fix}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: is no table of names; {fix}")
    return content


def _write_header(config: Mapping[str, Any], license_id: str, metrics: Mapping[str, Any] | None) -> str:
    """What the hub reads, as YAML, of which JSON is a part."""
    schema = dig(config, "schema", "name")
    known = dig(metrics, "all_questions") or {}
    origin = str(dig(config, "model", "weights", "source") or "")
    header = {
        "license": license_id,
        "library_name": "zoobot",
        "pipeline_tag": None if dig(config, "model", "targets") else "image-classification",  # numbers have none there
        "tags": ["astronomy", "galaxy-zoo", "galaxy-morphology", *([schema] if schema else [])],
        "metrics": [name for name, ours in (("accuracy", "accuracy"), ("mae", "mean_absolute_error")) if ours in known],
        "base_model": re.sub("^hf[_-]hub:", "", origin).partition("@")[0] if re.match("hf[_-]hub:", origin) else None,
    }
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in header.items() if value]
    note = "# decide on a licence, and write its name here: https://huggingface.co/docs/hub/repositories-licenses\n"
    return "".join(([note] if license_id == _UNDECIDED else []) + lines)


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill, which takes its name once it is whole."""
    target = target.absolute()  # "." has no name
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        if target.exists():
            target.rmdir()  # it is empty
        folder.replace(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
