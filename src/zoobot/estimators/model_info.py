"""What is known about a model folder or one of our ONNX files, as plain types."""

from pathlib import Path
from typing import Any

from zoobot.errors import ModelError, ZoobotError
from zoobot.estimators.checkpoint import count_parameters, load_config, load_model
from zoobot.estimators.define_model import ModelConfig
from zoobot.estimators.hub_folder import read_calibration
from zoobot.estimators.model_card import dig
from zoobot.estimators.onnx_export import read_onnx_facts
from zoobot.schemas import Schema

__all__ = ["describe_model"]


def describe_model(path: str | Path) -> dict[str, Any]:
    """Describe a model folder, which is loaded to see that it is whole, or an ONNX file of `zoobot export`.

    Returns:
        Ready for JSON: ``kind`` ("model folder" or "onnx"), ``path``, ``bytes`` (on disk), ``model`` (its settings),
        ``schema``, ``questions``, ``answers``, ``weights_sha256``, ``versions``; and of a folder ``parameters``
        (encoder, head, all), ``training``, ``finetuning``, ``data``, ``metrics`` and ``calibration``, None where it is
        not known.

    Raises:
        ModelError: It is neither, or is damaged.
        SettingError: It is an ONNX file, and the package that reads it is missing.
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(f"{path} does not exist, expected a model folder, or an .onnx file of `zoobot export`")
    found = _describe_folder(path) if path.is_dir() else {"kind": "onnx", **read_onnx_facts(path)}
    try:
        model = ModelConfig.from_dict(found["model"])
        schema = None if found.get("schema") is None else Schema.from_dict(found["schema"])
    except (ZoobotError, TypeError) as error:
        raise ModelError(f"{path}: {error}") from error
    return {
        **found,
        "path": str(path),
        "bytes": sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]) if file.is_file()),
        "model": model.to_dict(),
        "questions": None if schema is None else len(schema.questions),
        "answers": model.output_dim,
    }


def _describe_folder(path: Path) -> dict[str, Any]:
    config, model = load_config(path), load_model(path)
    about = config["metadata"]
    calibration = read_calibration(path)
    shown = ("galaxies", "n_samples", "tta")
    return {
        "kind": "model folder",
        **{name: config[name] for name in ("model", "schema", "weights_sha256", "versions")},
        "parameters": {
            "encoder": count_parameters(model.encoder),
            "head": count_parameters(model.head),
            "all": count_parameters(model),
        },
        **{name: dig(about, name) for name in ("training", "finetuning", "data", "metrics")},
        "calibration": None if calibration is None else {name: calibration.get(name) for name in shown},
    }
