"""Prediction by the workers of a Ray cluster: the same tables, whatever dies."""

import io
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from zoobot.errors import SettingError
from zoobot.predictions import ray_engine
from zoobot.predictions.merging import merge
from zoobot.predictions.predict_on_images import PartsFailedError, PredictConfig, predict
from zoobot.predictions.prediction_job import Job
from zoobot.predictions.prediction_parts import PartsFolder

ZOOBOT = str(Path(sys.executable).with_name("zoobot"))


@pytest.fixture(scope="module")
def job(catalog, model_dir, tmp_path_factory):
    """Forty galaxies in five parts; of one nothing can be read, of another not all."""
    table = pd.read_csv(catalog)
    table["file_loc"] = [str(catalog.parent / file) for file in table["file_loc"]]
    table.loc[[3, *range(16, 24)], "file_loc"] = "/gone.png"
    path = tmp_path_factory.mktemp("catalog") / "c.csv"
    table.to_csv(path, index=False)
    return {"checkpoint_dir": model_dir, "catalog": path, "batch_size": 8, "galaxies_per_part": 8}


@pytest.fixture(scope="module")
def on_ray(job):
    """The same by workers with as many threads as this process has, which round alike."""
    return {**job, "engine": "ray", "cores_per_worker": torch.get_num_threads()}


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "p.parquet"
    predict(**job, save_loc=path)
    return path


@pytest.fixture(scope="module")
def cluster():
    """Room for two workers, on this machine."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(
        "local",
        num_cpus=2 * torch.get_num_threads(),
        num_gpus=0,
        object_store_memory=100_000_000,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield ray
    ray.shutdown()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "spark"}, "engine is 'spark'; it must be one of local, ray"),
        ({"address": "auto"}, "are for Ray; add --engine ray"),
        ({"cores_per_worker": 2}, "are for Ray; add --engine ray"),
        ({"engine": "ray", "cores_per_worker": 0}, "cores_per_worker is 0; it must be at least 1"),
        ({"engine": "ray", "devices": 2}, "devices is for one machine"),
        ({"engine": "ray", "device": "cuda:1"}, "device is 'cuda:1'; for Ray it must be cpu or cuda"),
        ({"engine": "ray", "address": "ray://head:10001"}, "where Ray Data does not run; .* or give host:6379"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        PredictConfig(checkpoint_dir="m", save_loc="p.csv", catalog="c.csv", **settings)


def test_a_runtime_for_cpus_and_gpus_exclude_each_other(on_ray, tmp_path):
    with pytest.raises(SettingError, match="runtime onnx is for CPUs, and device is cuda; add --device cpu"):
        predict(**on_ray, save_loc=tmp_path / "p.csv", runtime="onnx", device="cuda")


def test_without_ray_the_fix_is_named(on_ray, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingError, match=re.escape("needs ray, which is not installed: pip install 'zoobot[ray]'")):
        predict(**on_ray, save_loc=tmp_path / "p.csv")


def test_a_cluster_that_does_not_answer_is_named(on_ray, tmp_path):
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        pytest.skip("the cluster that is joined would be used")
    with pytest.raises(SettingError, match=r"address 127\.0\.0\.1:1: no cluster answers .* `ray start --head`"):
        predict(**on_ray, save_loc=tmp_path / "p.csv", address="127.0.0.1:1")


def test_workers_have_a_cache_of_remote_shards_of_their_own(model_dir, shard_dir, tmp_path, monkeypatch):
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(shard_dir), "/shards", recursive=True)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda shipped: pickle.loads(shipped)))
    settings = {"checkpoint_dir": model_dir, "batch_size": 8, "galaxies_per_part": 8, "device": "cpu"}
    predict(**settings, shard_dir=shard_dir, save_loc=tmp_path / "whole")
    monkeypatch.setenv("ZOOBOT_CACHE_DIR", str(tmp_path / "here"))
    config = PredictConfig(**settings, shard_dir="memory://shards", save_loc=tmp_path / "p", engine="ray")
    shipped = pickle.dumps(Job.open(config))
    shutil.rmtree(tmp_path / "here")
    monkeypatch.setenv("ZOOBOT_CACHE_DIR", str(tmp_path / "there"))
    worker = ray_engine._PartWorker(shipped, PartsFolder.open(tmp_path / "whole").manifest, cores=1)
    sent = worker({"number": [1]})
    filesystem.rm("/shards", recursive=True)
    assert (sent["number"], sent["error"], sent["failed"], sent["failures"]) == ([1], [""], [0], [b""])
    found = pq.read_table(io.BytesIO(sent["table"][0])).drop(["file_loc"])
    assert found.equals(pq.read_table(tmp_path / "whole" / "part-00001.parquet").drop(["file_loc"]))
    assert not (tmp_path / "here").exists()


def test_a_part_that_cannot_be_written_is_named(tmp_path):
    folder = PartsFolder(tmp_path / "a file" / "p", {"rows": [8], "galaxies_per_part": 8})
    (tmp_path / "a file").write_text("no folder")
    assert "a file" in ray_engine._write(folder, 0, {"table": b"table", "failures": b""})


@pytest.mark.slow
def test_workers_of_a_cluster_make_the_same_table(on_ray, whole, cluster, tmp_path):
    command = [ZOOBOT, "predict", "--address", cluster.get_runtime_context().gcs_address]
    settings = {**on_ray, "save_loc": tmp_path / "p.parquet"}
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "p.parquet: 31 of 40 galaxies" in done.stdout
    for name in ("p.parquet", "p.failed.csv"):
        assert (tmp_path / name).read_bytes() == (whole.parent / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.failed.csv", "p.parquet"]


@pytest.mark.slow
def test_killed_workers_change_nothing_and_lost_parts_are_named(on_ray, whole, cluster, tmp_path, monkeypatch):
    pids = tmp_path / "pids"
    pids.mkdir()

    class Mortal(ray_engine._PartWorker):
        """Killed once at part 1, and always at part 3."""

        def __call__(self, batch):
            number, place = int(batch["number"][0]), pids / str(os.getpid())
            place.touch()
            if number == 3 or (number == 1 and not (pids / "killed").exists()):
                (pids / ("always" if number == 3 else "killed")).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    folder = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(ray_engine, "_PartWorker", Mortal)
        patch.setattr(ray_engine, "_MOST_LOST_WORKERS", 1)
        with pytest.raises(PartsFailedError) as raised:
            predict(**on_ray, save_loc=folder)
    assert raised.value.parts == {3: "its worker died, 2 times"}
    assert (pids / "killed").exists()
    assert len(list(pids.iterdir())) > 4  # the two names, and processes: one killed, two killed, one that did the rest
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    done = predict(**on_ray, save_loc=folder)  # goes on
    assert (done.galaxies, done.failed, done.missing) == (31, 9, 0)
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*") if path.name in times}
    assert kept == times
    merge(folder, tmp_path / "p.parquet")
    assert (tmp_path / "p.parquet").read_bytes() == whole.read_bytes()
