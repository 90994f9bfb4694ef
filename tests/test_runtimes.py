"""Other programs that compute the encoder: what they predict is what torch predicts."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SIZE

from zoobot.errors import SettingError
from zoobot.estimators import checkpoint
from zoobot.estimators.define_model import Model
from zoobot.estimators.runtimes import RUNTIMES, use_runtime
from zoobot.predictions.predict_on_images import predict

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def model(model_dir: Path) -> Model:
    return checkpoint.load_model(model_dir)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_they_predict_the_same(model: Model, runtime: str) -> None:
    other = use_runtime(model, runtime)
    for count in (3, 1, 8):
        images = torch.randint(0, 256, (count, SIZE, SIZE, 3), dtype=torch.uint8)
        with torch.inference_mode():
            expected, found = model.sample(images, 4), other.sample(images, 4)
            torch.testing.assert_close(other.represent(images), model.represent(images), atol=1e-4, rtol=1e-3)
        assert found.shape == (count, 4, 5)
        torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-3)


def test_predict_takes_them(model_dir: Path, catalog: Path, tmp_path: Path) -> None:
    tables = []
    for runtime in ("torch", "openvino"):
        save_loc = tmp_path / f"{runtime}.parquet"
        predict(
            checkpoint_dir=model_dir, catalog=catalog, save_loc=save_loc, device="cpu", runtime=runtime, batch_size=7
        )
        tables.append(pd.read_parquet(save_loc))
    assert list(tables[0]) == list(tables[1])
    fractions = [table.filter(regex="_fraction$").to_numpy() for table in tables]
    np.testing.assert_allclose(fractions[1], fractions[0], atol=1e-4)


def test_settings_that_are_none(
    model: Model, model_dir: Path, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert use_runtime(model, "torch") is model
    with pytest.raises(SettingError, match="expected one of torch"):
        use_runtime(model, "tensorrt")
    with pytest.raises(SettingError, match="runtime"):
        predict(checkpoint_dir=model_dir, catalog=catalog, save_loc=tmp_path / "p.csv", runtime="tensorrt")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SettingError, match=r"pip install 'zoobot\[openvino\]'"):
        use_runtime(model, "openvino")
