"""Predicted labels as a table: the chances of classes, or numbers, of models that were finetuned to these."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zoobot.estimators.define_model import Model

__all__ = ["make_label_table"]


def make_label_table(
    id_str: Sequence[str],
    file_loc: Sequence[str],
    outputs: NDArray[np.float32],
    model: Model,
    bad_pixels: NDArray[np.int64],
) -> pd.DataFrame:
    """Turn a model's outputs into a table with a row for each galaxy, each output the mean over samples.

    Args:
        id_str: names, (galaxies,).
        file_loc: where the images came from, (galaxies,).
        outputs: (galaxies, samples, outputs).
        model: of task classification or regression; or the first of several, of the same outputs.
        bad_pixels: how many pixels of each image were filled, (galaxies,).

    Returns:
        Columns ``id_str``, ``file_loc``, ``bad_pixels``; for classes the question's name, with the likeliest class, and
        ``<question>_<class>_probability`` for each; for numbers their names. float32.
    """
    table = pd.DataFrame({"id_str": list(id_str), "file_loc": list(file_loc), "bad_pixels": bad_pixels})
    means = outputs.mean(axis=1, dtype=np.float64).astype(np.float32)
    if model.schema is None:
        numbers = dict(zip(model.config.targets, means.T, strict=True))
        return table.assign(**numbers)
    question = model.schema.questions[0]
    leading = np.array([answer.text for answer in question.answers], object)[means.argmax(axis=1)]
    chances = {f"{name}_probability": column for name, column in zip(model.schema.label_cols, means.T, strict=True)}
    return table.assign(**{question.name: leading, **chances})
