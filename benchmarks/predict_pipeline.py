"""Prediction of PNGs as a pipeline beside its stages alone: reading, encoding, writing; and in two processes.

Run ``python benchmarks/predict_pipeline.py --folder FOLDER`` with a folder of PNGs (made-up ones of 424 x 424 pixels
without it). All stages share the cores, so the pipeline can be as fast as the slowest stage alone only where the others
take next to nothing; "the cores' limit" is what it would take if no core were ever idle: the sum of the stages, each
with all cores. Whole runs are without start-up: the models are loaded, the processes are not yet started.
"""

import tempfile
from functools import partial
from pathlib import Path

import galaxies
import timing
import torch

from zoobot import schemas
from zoobot.data.datasets import make_loader
from zoobot.estimators.checkpoint import save_model
from zoobot.estimators.define_model import Model, get_model
from zoobot.predictions.drawing import Drawn
from zoobot.predictions.job_progress import follow_job
from zoobot.predictions.prediction_job import Job, _write_part, run_on_devices, run_parts
from zoobot.predictions.prediction_parts import PartsFolder
from zoobot.predictions.prediction_settings import PredictConfig
from zoobot.processes import count_cores

SIZE, BATCH_SIZE, SCHEMA = 300, 32, "gz_decals"


def read(job: Job) -> None:
    for _ in make_loader(job.datasets[0], BATCH_SIZE, workers=count_cores()):
        pass


def encode(model: Model, images: torch.Tensor, batches: int) -> None:
    with torch.inference_mode():
        for _ in range(batches):
            model.sample(images, 5)


def write(job: Job, folder: PartsFolder, drawn: Drawn) -> None:
    for number in range(len(folder)):
        _write_part(job, folder, number, drawn)


def run(job: Job, scratch: Path, workers: int, devices: int = 1) -> None:
    config = PredictConfig(**{**vars(job.config), "workers": workers, "devices": devices})
    job = Job(**{**vars(job), "config": config})
    with tempfile.TemporaryDirectory(dir=scratch) as path:
        folder = PartsFolder.claim(Path(path, "parts"), job.describe(), len(job.id_str), config.whole_part)
        with follow_job(len(job.id_str), 0) as tell:
            failed = (run_parts if devices == 1 else run_on_devices)(job, folder, range(len(folder)), tell)
        if failed:
            raise RuntimeError(str(failed))


def main() -> None:
    parser = timing.make_parser(__doc__, repeats=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--galaxies", type=int, default=512)
    parser.add_argument("--encoder", default="efficientnet_b0")
    parser.add_argument("--resize-size", type=int, default=224)
    args = parser.parse_args()
    count, repeats = (64, 1) if args.quick else (args.galaxies, args.repeats)
    count -= count % (4 * BATCH_SIZE) if count >= 4 * BATCH_SIZE else count % BATCH_SIZE
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        paths = galaxies.find_or_make_up(args.folder, scratch)
        catalog = galaxies.write_catalog(scratch / "catalog.parquet", paths, count)
        sizes = {"input_size": SIZE, "crop_size": 225, "resize_size": args.resize_size, "channels": 1}
        save_model(get_model(schema=schemas.load(SCHEMA), encoder=args.encoder, **sizes), scratch / "model")
        part = min(count, 4 * BATCH_SIZE)
        settings = {"batch_size": BATCH_SIZE, "galaxies_per_part": part, "device": "cpu"}
        job = Job.open(
            PredictConfig(checkpoint_dir=scratch / "model", catalog=catalog, save_loc=scratch / "p", **settings)
        )
        model = job.models[0].eval().to(memory_format=torch.channels_last)
        images = job.datasets[0].__getitems__(range(BATCH_SIZE)).images
        with torch.inference_mode():
            concentrations = model.sample(images, 5).numpy().repeat(part // BATCH_SIZE, axis=0)
        drawn = Drawn(concentrations, [""] * part, torch.zeros(part, dtype=torch.long).numpy())
        written = PartsFolder.claim(scratch / "written", {}, count, part)
        cases: dict[str, timing.Case] = {
            f"reading alone, {count_cores()} processes": partial(read, job),
            "encoding alone, all cores": partial(encode, model, images, count // BATCH_SIZE),
            "writing alone": partial(write, job, written, drawn),
            "**zoobot**, reading in turn": partial(run, job, scratch, 0),
            "**zoobot**, 1 process reads": partial(run, job, scratch, 1),
            f"**zoobot**, {count_cores()} processes read": partial(run, job, scratch, count_cores()),
            "**zoobot**, 2 processes, start-up included": partial(run, job, scratch, 0, 2),
        }
        seconds = timing.interleave(cases, repeats)
    slowest = max(list(cases)[:3], key=lambda case: seconds[case])
    timing.print_comparison(seconds, dict.fromkeys(cases, count), slowest, "image")
    print(f"\nThe cores' limit, if none were ever idle: {count / sum(list(seconds.values())[:3]):.3g} images a second.")
    timing.print_machine(repeats)


if __name__ == "__main__":
    main()
