"""Predicting parts of the galaxies on a Ray cluster: its workers draw them, and this process writes what they send."""

import contextlib
import logging
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from zoobot.data.remote_files import is_url
from zoobot.errors import PredictionError, SettingError
from zoobot.estimators.checkpoint import load_model
from zoobot.estimators.onnx_export import import_optional
from zoobot.estimators.runtimes import use_runtime
from zoobot.files import replace_atomically
from zoobot.predictions.drawing import choose_workers
from zoobot.predictions.job_progress import Event, Tell
from zoobot.predictions.prediction_job import Job, run_parts
from zoobot.predictions.prediction_parts import PartsFolder
from zoobot.predictions.sources import open_for_each, open_source

__all__ = ["run_on_ray"]

_MOST_LOST_WORKERS = 3  # while at the same part; machines that are rented for less go often
_PATIENCE = 10.0  # seconds


def run_on_ray(job: Job, folder: PartsFolder, numbers: Sequence[int], tell: Tell) -> dict[int, str]:
    """Predict parts as `run_parts`, on as many workers of a Ray cluster as it has room for, or makes room for.

    They get models and names from this process and send tables back, which it writes: of the machines only this one
    needs to see the folder. A part whose worker dies goes to another worker.

    Returns:
        Why a part failed, by its number.

    Raises:
        SettingError: Ray is not installed, or no cluster answers.
        PredictionError: the cluster is lost, or its workers cannot begin.
    """
    if not numbers:
        return {}
    failed = dict.fromkeys(numbers, f"its worker died, {_MOST_LOST_WORKERS + 1} times")
    with _connect(job.config.address) as ray:
        try:
            for sent in _map_parts(ray, job, folder, numbers):
                number = int(sent["number"])
                failed[number] = sent["error"] or _write(folder, number, sent)
                if failed[number]:
                    tell(Event(part=number, error=failed[number]))
                    continue
                del failed[number]
                rows = len(folder.find_rows(number))
                tell(Event(drawn=rows, part=number, galaxies=rows, failed=int(sent["failed"])))
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise PredictionError(f"Ray gave up: {reason}; the parts that are done are kept, run it again") from error
    return failed


def _map_parts(ray: ModuleType, job: Job, folder: PartsFolder, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    device = job.config.device or _choose_device(ray, job.config.runtime)
    gpus = int(device == "cuda")
    cores = job.config.cores_per_worker or (4 if gpus else 1)
    # a runtime does not travel, what it is made from does
    models = [load_model(each) for each in job.config.checkpoint_dirs]
    shipped = ray.put(replace(job, models=models, config=replace(job.config, device=device)))
    parts = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # max_task_retries is to have another place from Ray 2.64 on
        predicted = parts.map_batches(
            _PartWorker,
            fn_constructor_args=(shipped, dict(folder.manifest), cores),
            batch_size=1,
            # one part at a time, or those in the queue behind a part that kills its worker would be lost with it
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=len(numbers), max_tasks_in_flight_per_actor=1),
            num_cpus=cores,  # Ray gives torch as many threads
            num_gpus=gpus,
            max_task_retries=_MOST_LOST_WORKERS,
        )
    predicted.context.enable_progress_bars = False  # there is one already
    predicted.context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0  # as nothing queues
    predicted.context.max_errored_blocks = -1  # a part that is lost for good does not stop the others
    yield from predicted.iter_rows()


class _PartWorker:
    """Draws parts, in a process of the cluster."""

    def __init__(self, shipped: Any, manifest: Mapping[str, Any], cores: int) -> None:
        job: Job = import_optional("ray", "ray").get(shipped)
        self._manifest = manifest
        workers = job.config.workers
        if workers is None:
            workers = min(cores, choose_workers(str(job.config.device), manifest["galaxies_per_part"]))
        models, datasets = job.models, job.datasets
        if job.config.shard_dir is not None and is_url(job.config.shard_dir):  # they have a cache on each machine
            datasets = open_for_each(models, lambda model: open_source(job.config, model))
            if datasets[0].id_str != job.id_str:
                raise PredictionError(f"{job.config.shard_dir} has other galaxies than when this began; begin afresh")
        models = [use_runtime(model, job.config.runtime) for model in models]
        self._job = replace(job, models=models, datasets=datasets, config=replace(job.config, workers=workers))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        number = int(batch["number"][0])
        events: list[Event] = []
        with tempfile.TemporaryDirectory() as scratch:
            folder = PartsFolder(Path(scratch), self._manifest)
            error = run_parts(self._job, folder, [number], events.append).get(number, "")
            files = [folder.part_path(number), folder.failed_path(number)]
            table, failures = ([path.read_bytes() if path.exists() else b""] for path in files)
        failed = [sum(event.failed for event in events)]
        return {"number": [number], "error": [error], "failed": failed, "table": table, "failures": failures}


def _write(folder: PartsFolder, number: int, sent: Mapping[str, Any]) -> str:
    """Write what a worker sent; give the reason if that cannot be done."""
    try:
        if sent["failures"]:
            with replace_atomically(folder.failed_path(number)) as temporary:
                temporary.write_bytes(sent["failures"])
        else:
            folder.failed_path(number).unlink(missing_ok=True)
        with replace_atomically(folder.part_path(number)) as temporary:
            temporary.write_bytes(sent["table"])
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _choose_device(ray: ModuleType, runtime: str) -> str:
    return "cuda" if runtime == "torch" and ray.cluster_resources().get("GPU") else "cpu"


@contextlib.contextmanager
def _connect(address: str | None) -> Iterator[ModuleType]:
    """Join a cluster, or begin one on this machine; one that the caller has joined is used, and not left.

    Raises:
        SettingError: Ray is not installed, or no cluster answers.
    """
    ray = import_optional("ray", "ray")
    import_optional("ray.data", "ray")
    if ray.is_initialized():
        yield ray
        return
    try:
        if address and ":" in address:
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()  # Ray would try for minutes
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it remarks on its own workings
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingError(
            f"address {address or 'of Ray'}: no cluster answers ({reason}); `ray start --head` begins one, "
            "`ray status` shows whether it runs"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
