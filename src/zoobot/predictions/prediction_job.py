"""Predicting parts of the galaxies: reading, encoding and writing at once, in one process or one for each device."""

import hashlib
import multiprocessing
import multiprocessing.connection
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from zoobot.data.datasets import GalaxyDataset
from zoobot.errors import PredictionError, SettingError, ZoobotError
from zoobot.estimators.checkpoint import load_config, load_model
from zoobot.estimators.define_model import Model
from zoobot.estimators.runtimes import use_runtime
from zoobot.predictions.calibration_file import load_calibration
from zoobot.predictions.catalogue import make_catalogue
from zoobot.predictions.drawing import DrawConfig, Drawn, choose_devices, choose_workers, draw_parts
from zoobot.predictions.job_progress import Event, Tell
from zoobot.predictions.label_tables import make_label_table
from zoobot.predictions.model_checks import check_models, choose_n_samples
from zoobot.predictions.outputs import write_failures
from zoobot.predictions.prediction_parts import PartsFolder, name_part
from zoobot.predictions.prediction_settings import PredictConfig
from zoobot.predictions.sources import choose_fits, open_for_each, open_source
from zoobot.processes import count_cores, end_with_parent
from zoobot.schemas import Schema
from zoobot.stats.recalibration import Recalibration

__all__ = ["Job", "PartsFailedError", "run_on_devices", "run_parts"]

_DECIDING = ("tta", "batch_size", "runtime", "keep_concentrations", "keep_raw", "intervals", "uncertainty")
_MOST_WAITING = 2  # parts that are drawn and not yet written


class PartsFailedError(PredictionError):
    """Parts of a prediction failed twice; the others are done. Run it again to try only these.

    Attributes:
        parts: why each failed, by its number.
    """

    def __init__(self, parts: dict[int, str]) -> None:
        lines = [f"{name_part(number)}: {reason}" for number, reason in sorted(parts.items())]
        super().__init__("\n".join([f"parts failed ({len(parts)}), the others are done; run it again:", *lines]))
        self.parts = parts


@dataclass(frozen=True)
class Job:
    """What a prediction needs, opened.

    Attributes:
        config: its settings.
        models: on the CPU.
        datasets: the galaxies, for each model.
        id_str: their names.
        file_loc: their files.
        schema: the decision tree; none if the models predict classes or numbers.
        recalibration: of the models, if there is one.
    """

    config: PredictConfig
    models: list[Model]
    datasets: list[GalaxyDataset]
    id_str: list[str]
    file_loc: list[str]
    schema: Schema | None
    recalibration: Recalibration | None

    @classmethod
    def open(cls, config: PredictConfig) -> "Job":
        """Load the models, and find the galaxies.

        Raises:
            ZoobotError: some of it is not to be had.
        """
        if config.runtime != "torch" and config.device not in (None, "cpu"):
            raise SettingError(f"runtime {config.runtime} is for CPUs, and device is {config.device}; add --device cpu")
        models = [load_model(folder) for folder in config.checkpoint_dirs]
        schema = check_models(config, models)
        recalibration = None
        if config.recalibrate and schema is not None:
            recalibration = load_calibration(
                config.checkpoint_dirs, config.calibration, n_samples=choose_n_samples(config, models), tta=config.tta
            )
        datasets = open_for_each(models, lambda model: open_source(config, model))
        models = [use_runtime(model, config.runtime) for model in models]
        return cls(config, models, datasets, datasets[0].id_str, datasets[0].file_loc, schema, recalibration)

    @property
    def n_samples(self) -> int:
        """How often dropout is drawn."""
        return choose_n_samples(self.config, self.models)

    def describe(self) -> dict[str, Any]:
        """What the predictions depend on, ready for JSON."""
        config = self.config
        digest = hashlib.sha256()
        for name, file in zip(self.id_str, self.file_loc, strict=True):
            digest.update(f"{name}\0{file}\n".encode(errors="surrogateescape"))
        return {
            "weights_sha256": [load_config(folder)["weights_sha256"] for folder in config.checkpoint_dirs],
            "source": {"galaxies": len(self.id_str), "sha256": digest.hexdigest()},
            "n_samples": self.n_samples,
            **{name: getattr(config, name) for name in _DECIDING},
            "recalibration": None if self.recalibration is None else self.recalibration.to_dict(),
            "fits": [choose_fits(model, config.layout, config.stretch).to_dict() for model in self.models],
            "schema": None if self.schema is None else self.schema.to_dict(),
        }


def run_parts(job: Job, folder: PartsFolder, numbers: Sequence[int], tell: Tell) -> dict[int, str]:
    """Predict parts in this process; one that fails does not stop the others, and is tried once more at the end.

    Images are read ahead by worker processes and a thread writes, so that the slowest sets the pace.

    Returns:
        Why a part failed twice, by its number.
    """
    failed = _Attempt(job, folder, tell).run(numbers)
    return _Attempt(job, folder, tell).run(sorted(failed)) if failed else {}


class _Attempt:
    """Predicting each part once."""

    def __init__(self, job: Job, folder: PartsFolder, tell: Tell) -> None:
        self._job, self._folder, self._tell = job, folder, tell
        self._failed: dict[int, str] = {}
        self._waiting: deque[tuple[int, Future[Event]]] = deque()
        self._drawn = 0  # of the part that is being drawn

    def run(self, numbers: Sequence[int]) -> dict[int, str]:
        config = self._job.config
        draw = DrawConfig(self._job.n_samples, config.tta, config.batch_size, config.workers, config.device)
        left = deque(numbers)
        with ThreadPoolExecutor(1) as writer:
            while left:
                self._settle(0)  # the readers are forked, which a thread that holds a lock would make them wait for
                parts = [self._folder.find_rows(number) for number in left]
                try:
                    for drawn in draw_parts(self._job.models, self._job.datasets, parts, draw, self._advance):
                        number, self._drawn = left.popleft(), 0
                        written = writer.submit(_write_part, self._job, self._folder, number, drawn)
                        self._waiting.append((number, written))
                        self._settle(_MOST_WAITING)
                except Exception as error:  # whatever it is, the other parts may do
                    if not left:  # all were drawn: it is not a part's
                        raise
                    self._fail(left.popleft(), error, self._drawn)
            self._settle(0)
        return self._failed

    def _advance(self, galaxies: int) -> None:
        self._drawn += galaxies
        self._tell(Event(drawn=galaxies))

    def _settle(self, most: int) -> None:
        """Wait until no more parts than so many are still to be written."""
        while len(self._waiting) > most:
            number, written = self._waiting.popleft()
            try:
                event = written.result()
            except Exception as error:
                self._fail(number, error, len(self._folder.find_rows(number)))
            else:
                self._tell(event)

    def _fail(self, number: int, error: Exception, drawn: int) -> None:
        self._drawn = 0
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        self._failed[number] = f"{type(error).__name__}: {reason}"
        self._tell(Event(drawn=-drawn, part=number, error=self._failed[number]))


def _write_part(job: Job, folder: PartsFolder, number: int, drawn: Drawn) -> Event:
    rows = folder.find_rows(number)
    ids, files = job.id_str[rows.start : rows.stop], job.file_loc[rows.start : rows.stop]
    failed = write_failures(ids, files, drawn.faults, folder.failed_path(number))
    good = np.array([not fault for fault in drawn.faults])
    raw, bad_pixels = drawn.concentrations[good], drawn.bad_pixels[good]
    ids = [name for name, fault in zip(ids, drawn.faults, strict=True) if not fault]
    files = [file for file, fault in zip(files, drawn.faults, strict=True) if not fault]
    folder.write_part(number, _make_table(job, ids, files, raw, bad_pixels))
    return Event(part=number, galaxies=len(rows), failed=failed)


def _make_table(
    job: Job, ids: list[str], files: list[str], raw: NDArray[np.float32], bad_pixels: NDArray[np.int64]
) -> pd.DataFrame:
    config = job.config
    if job.schema is None:
        return make_label_table(ids, files, raw, job.models[0], bad_pixels)
    return make_catalogue(
        ids,
        files,
        raw if job.recalibration is None else job.recalibration.apply(raw).astype(np.float32),
        job.schema,
        bad_pixels=bad_pixels,
        keep_concentrations=config.keep_concentrations,
        raw=raw if config.keep_raw else None,
        uncertainty=config.uncertainty,
        intervals=config.intervals,
    )


def run_on_devices(job: Job, folder: PartsFolder, numbers: Sequence[int], tell: Tell) -> dict[int, str]:
    """Predict parts as `run_parts`, in a process for each device; the parts of one that dies are tried once more."""
    errors: dict[int, str] = {}

    def listen(event: Event) -> None:
        if event.part is not None and event.error:
            errors[event.part] = event.error
        tell(event)

    lost = list(numbers)
    for _ in range(2):
        _run_processes(job.config, folder, lost, listen)
        missing = folder.list_missing(lost)
        lost = [number for number in missing if number not in errors]
        if not lost:
            break
    missing = folder.list_missing(numbers)
    return {number: errors.get(number, "its process died, twice") for number in missing}


def _run_processes(config: PredictConfig, folder: PartsFolder, numbers: Sequence[int], tell: Tell) -> None:
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    devices = choose_devices(config.device or "cpu", min(config.devices, len(numbers)))
    processes, receivers = [], []
    for place, device in enumerate(devices):
        receiver, sender = context.Pipe(duplex=False)
        share = numbers[place :: len(devices)]
        task = (replace(config, device=device), folder.path, share, len(devices), sender)
        processes.append(context.Process(target=_work, args=task))
        processes[-1].start()
        sender.close()
        receivers.append(receiver)
    try:
        _listen(receivers, tell)
    except BaseException:  # Ctrl-C above all
        for process in processes:
            process.terminate()
        raise
    finally:
        for process in processes:
            process.join()


def _listen(receivers: list[Connection], tell: Tell) -> None:
    """Pass on what processes tell until they have all ended."""
    while receivers:
        ready = multiprocessing.connection.wait(receivers)
        for receiver in [each for each in receivers if each in ready]:
            try:
                told = receiver.recv()
            except (EOFError, OSError):  # it has ended, or was killed while it spoke
                receivers.remove(receiver)
                continue
            if isinstance(told, ZoobotError):
                raise told
            tell(told)


def _work(config: PredictConfig, path: Path, numbers: Sequence[int], processes: int, sender: Connection) -> None:
    """Be one of several processes."""
    end_with_parent()
    torch.set_num_threads(max(1, count_cores() // processes))
    try:
        folder = PartsFolder.open(path)
        if config.workers is None:
            galaxies = sum(len(folder.find_rows(number)) for number in numbers)
            config = replace(config, workers=choose_workers(str(config.device), galaxies, processes))
        job = Job.open(config)
        # the galaxies may be others by now, above all in a second try
        PartsFolder.claim(path, job.describe(), len(job.id_str), config.whole_part)
        run_parts(job, folder, numbers, sender.send)
    except ZoobotError as error:
        sender.send(error)
