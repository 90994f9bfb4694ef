"""The model card: what a model predicts, what it learned from, how good it is, and how to use it, as markdown."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from zoobot.schemas import Schema

__all__ = ["dig", "write_card"]

_PYTHON = """\
```python
from zoobot.predictions.predict_on_images import predict

predict(checkpoint_dir="this/folder", folder_to_predict="images", save_loc="predictions.parquet")
```"""
_COMMANDS = """\
```bash
zoobot predict --checkpoint-dir this/folder --folder images --save-loc predictions.parquet
zoobot train --shard-dir shards --weights this/folder --save-dir next  # start another model from its encoder
```"""
_PURPOSE = """\
For statistics of galaxy morphology, for choosing samples and for finding galaxies of a kind, in images like those that
it was trained on: of the same survey, filters, resolution and depth, and galaxies about as bright and as large."""
_LIMITS_OF_VOTES = """\
- Fractions are of the volunteers who would give an answer, not chances that it is true: distant, faint and small
  galaxies look smooth to volunteers, and to this model.
- A question that hardly anyone would be asked has an answer all the same: look at `proportion_asked` first.
- Images of other surveys, of other stretches, and of stars and artifacts get answers like any others. Compare some
  with votes (`zoobot evaluate`) before you trust the rest."""
_LIMITS_OF_LABELS = """\
- It repeats what it was taught: errors and habits of whoever made the labels are its own.
- Its probabilities are those of the mixture of classes that it was taught, or balanced classes if it was taught so;
  numbers come without an error.
- Images of other surveys, of other stretches, and of stars and artifacts get answers like any others. Label some of
  them before you trust the rest."""
_MEASURES = {
    "loss": "loss (negative log-likelihood of the votes)",
    "crps": "CRPS",
    "mean_absolute_error": "mean absolute error of fractions",
    "rms_error": "RMS error of fractions",
    "accuracy": "leading answers that are right",
    "agreed_accuracy": "leading answers that are right, where volunteers agree",
    "calibration_error": "calibration error",
    "coverage_90": "votes inside 90% intervals",
}


def dig(value: Any, *names: str) -> Any:
    """Look into dictionaries in dictionaries; None where one is missing, or is something else.

    >>> dig({"data": {"train": {"galaxies": 3}}}, "data", "train", "galaxies")
    3
    """
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def write_card(
    config: Mapping[str, Any],
    *,
    calibration: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> str:
    """Write the card of a model folder as markdown; what is not known is left out or said to be unknown.

    Args:
        config: The content of its ``config.json``.
        calibration: The content of its ``calibration.json``.
        metrics: What ``zoobot evaluate`` wrote.

    Raises:
        SchemaError: The config's decision tree makes no sense.
    """
    schema = None if config["schema"] is None else Schema.from_dict(config["schema"])
    sections = {
        f"Galaxy morphology: {'a model' if schema is None else schema.name}": _describe(config, schema),
        "Data": _describe_data(config),
        "How good it is": _describe_metrics(config, metrics),
        **({"Calibration": [_describe_calibration(calibration)]} if _predicts_votes(config) else {}),
        "What it is for, and its limits": [
            f"{_PURPOSE}\n\n{_LIMITS_OF_VOTES if _predicts_votes(config) else _LIMITS_OF_LABELS}"
        ],
        "How to use it": [_PYTHON, _COMMANDS],
    }
    (title, first), *others = sections.items()
    parts = [f"# {title}", *first]
    for heading, texts in others:
        parts += [f"## {heading}", *texts]
    return "\n\n".join(parts) + "\n"


def _predicts_votes(config: Mapping[str, Any]) -> bool:
    return config["model"]["head"] not in ("softmax", "linear")


def _describe(config: Mapping[str, Any], schema: Schema | None) -> Iterator[str]:
    model, parameters = config["model"], config.get("parameters")
    size = f" {parameters:,} parameters" if isinstance(parameters, int) else ""
    if model.get("targets"):
        yield f"Predicts {', '.join(model['targets'])} of a galaxy in an image."
    elif model["head"] == "softmax" and schema is not None:
        yield "Predicts which class a galaxy in an image is of, as the probability of each."
    else:
        yield (
            "Predicts how Galaxy Zoo volunteers would classify a galaxy in an image: for each question the "
            "concentrations of a Dirichlet distribution, whence the expected fraction of votes for each answer, and "
            "its credible interval."
        )
    if schema is None and not model.get("targets"):
        yield f"It has {model['output_dim']} answers; their decision tree is not in the folder."
    elif schema is not None:
        about = f" ({schema.description})" if schema.description else ""
        what = "question" if len(schema.questions) == 1 else "questions"
        yield f"Decision tree `{schema.name}`{about}, {len(schema.questions)} {what}, {model['output_dim']} answers:"
        yield f"```\n{schema.draw()}\n```"
    facts = {
        "Encoder": f"`{model['encoder']}`; with the head `{model['head']}`{size}",
        "Images": f"{model['input_size']} pixels square, {model['channels']} channels, uint8; "
        f"cropped to {model['crop_size']}, resized to {model['resize_size']}",
        "FITS images": f"read and stretched as `{json.dumps(model['fits'])}`" if model.get("fits") else None,
        "Started from": f"`{dig(model, 'weights', 'source')}`" if model.get("weights") else "random weights",
        "Made with": ", ".join(f"{package} {number}" for package, number in config["versions"].items()),
    }
    yield "\n".join(f"- **{name}**: {fact}" for name, fact in facts.items() if fact is not None)


def _describe_data(config: Mapping[str, Any]) -> Iterator[str]:
    about = config["metadata"]
    lines = []
    for part, what in (("train", "trained on"), ("test", "held back")):
        found = dig(about, "data", part)
        if dig(found, "galaxies") is not None:
            lines.append(f"- {what} {found['galaxies']} galaxies, fingerprint `{str(found.get('sha256'))[:12]}`")
    yield "\n".join(lines) or "What it was trained on is not recorded."
    settings = dig(about, "training")
    if isinstance(settings, Mapping):
        shown = ", ".join(f"{name} {_show(value)}" for name, value in settings.items() if value is not None)
        yield f"Settings of the training: {shown}."


def _describe_metrics(config: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> Iterator[str]:
    run, finetuned = dig(config, "metadata", "metrics"), dig(config, "metadata", "finetuning", "scores")
    if isinstance(finetuned, Mapping):
        yield "Scores of the galaxies that were held back (and, unless the head alone learnt, stopped the training):"
        yield _draw_table(["score", "value"], [[name, _show(value)] for name, value in finetuned.items()])
    elif dig(run, "test_loss") is None and metrics is None:
        yield "Not measured yet: see `zoobot evaluate`."
    if dig(run, "test_loss") is not None:
        prefix = "test_loss_"
        meaning = " (negative log-likelihood of a galaxy's votes)" if _predicts_votes(config) else ""
        yield (
            f"Loss{meaning} of the galaxies held back, "
            f"which decided which epoch was best: {_show(run['test_loss'])}, after epoch {_show(run.get('epoch'))}."
        )
        losses = {name.removeprefix(prefix): value for name, value in run.items() if name.startswith(prefix)}
        if losses:
            yield _draw_table(["question", "loss"], [[name, _show(value)] for name, value in losses.items()])
    if metrics is not None:
        yield from _describe_scores(metrics)


def _describe_scores(metrics: Mapping[str, Any]) -> Iterator[str]:
    scores = dig(metrics, "all_questions") or {}
    sources = ("", "baseline_", "floor_")
    rows = [
        [text, *(_show(scores.get(source + name)) for source in sources)]
        for name, text in _MEASURES.items()
        if name in scores
    ]
    cumulative = dig(metrics, "cumulative")
    if cumulative is not None:
        values = (dig(cumulative, f"{source}rms_error") for source in sources)
        rows.append(["RMS error of cumulative fractions", *map(_show, values)])
    yield f"`zoobot evaluate` on {_show(dig(metrics, 'galaxies'))} galaxies, all questions:"
    yield _draw_table(["measure", "this model", "the mean votes", "volunteers' noise alone"], rows)


def _describe_calibration(calibration: Mapping[str, Any] | None) -> str:
    if calibration is None:
        return "Not in this card; `zoobot calibrate` writes `calibration.json`, which predict then applies."
    text = (
        f"`calibration.json`, which predict applies, was fitted to {_show(calibration.get('galaxies'))} galaxies, for "
        f"--n-samples {_show(calibration.get('n_samples'))} and --tta {_show(calibration.get('tta'))}."
    )
    measured = [dig(calibration, "measured", "all questions", when, "coverage_90") for when in ("before", "after")]
    if all(isinstance(pair, list) and pair for pair in measured):
        before, after = (_show(pair[0]) for pair in measured)
        text += f" Share of votes inside 90% intervals: {before} before, {after} after."
    return text


def _draw_table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _show(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
