"""The settings of a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoobot.data.remote_files import is_url
from zoobot.errors import SettingError
from zoobot.estimators.runtimes import RUNTIMES
from zoobot.predictions.calibration_file import list_model_folders
from zoobot.predictions.catalogue import INTERVALS, check_tables_to_write
from zoobot.predictions.drawing import check_drawing
from zoobot.predictions.outputs import failed_path
from zoobot.predictions.prediction_parts import choose_share
from zoobot.predictions.sources import GalaxySource
from zoobot.schemas import Schema

__all__ = ["ENGINES", "PredictConfig"]

ENGINES = ("local", "ray")
"""Who can predict the parts."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig(GalaxySource):
    """What to predict, with which model, and where to; where the galaxies are, :class:`GalaxySource` says.

    Attributes:
        checkpoint_dir: a model folder, as training makes it; or several, whose posteriors are mixed in equal parts.
        save_loc: the table to write; its suffix (.parquet, .csv, .fits, …) decides the format. Without a suffix it is a
            folder, for a table in parts, which :func:`zoobot.predictions.merging.merge` joins.
        n_samples: draws of dropout, each a sample of the posterior; 1 switches dropout off. When left out, 5 for models
            of votes, and 1 for those of classes and numbers, which have no posterior.
        tta: views of each image, each encoded and counted as samples of its own (test-time augmentation): ``none``,
            or ``dihedral``, the 8 that quarter turns and mirrors give.
        recalibrate: apply the recalibration that :func:`zoobot.predictions.calibrate.calibrate` made: ``calibration``,
            or the one that a single model has in its folder.
        calibration: the file of a recalibration, that of a mixture of models for instance; it must have been fitted to
            the same models with the same ``n_samples`` and ``tta``.
        batch_size: galaxies at a time.
        workers: processes that decode images, for each device; chosen by the machine when left out.
        device: ``cpu``, ``cuda``, ``mps``; the best there is when left out.
        runtime: what computes the encoder on a CPU: ``torch``, or as :func:`zoobot.estimators.runtimes.use_runtime`
            has it ``onnx`` or ``openvino``, which are faster.
        devices: how many GPUs to use, a process for each; or processes on the CPU, which share its cores.
        galaxies_per_part: galaxies that are written together, rounded up to whole batches: what a kill may cost.
        engine: who does the work: ``local``, this machine; or ``ray``, the workers of a Ray cluster, which need to see
            the images; models and catalog are read, and tables written, by this machine alone.
        address: of the Ray cluster, ``host:6379``; that of ``RAY_ADDRESS``, or one on this machine, which is begun if
            need be, when left out.
        cores_per_worker: cores that each worker of Ray computes with, or decodes with for its GPU; 1, or 4 with a GPU,
            when left out.
        part: which share of the parts of a folder to predict, ``i/n`` with i from 1; other processes do the others.
        log_json: a file to add a line of JSON to for each part that is done.
        keep_concentrations: write the concentrations too, from which everything else can be computed.
        keep_raw: write the concentrations from before the recalibration as well.
        intervals: which 90% credible intervals of fractions: ``equal-tailed`` or ``shortest``.
        uncertainty: write more of the posterior: which answers lead, shares of all volunteers, entropies; see
            :func:`zoobot.predictions.catalogue.make_catalogue`.
        friendly_loc: a second table, easy on the eye, with the leading answers and their fractions, blank where less
            than ``asked_threshold`` of the volunteers are expected to be asked.
        asked_threshold: for ``friendly_loc``, 0 to 1.
        overwrite: replace ``save_loc`` if it exists; without, a folder of parts is gone on with.
        schema: the decision tree, for a model that has none; checked against the model's otherwise, as are the sizes.
        initial_size: height and width that images are resized to.
        crop_size: what is cropped from that.
        final_size: what the encoder sees.

    Raises:
        SettingError: a value is outside what it may be.
    """

    checkpoint_dir: str | Path | Sequence[str | Path]
    save_loc: str | Path
    n_samples: int | None = None
    tta: str = "none"
    recalibrate: bool = True
    calibration: str | Path | None = None
    batch_size: int = 64
    workers: int | None = None
    device: str | None = None
    runtime: str = "torch"
    devices: int = 1
    galaxies_per_part: int = 8192
    engine: str = "local"
    address: str | None = None
    cores_per_worker: int | None = None
    part: str | None = None
    log_json: str | Path | None = None
    keep_concentrations: bool = True
    keep_raw: bool = False
    intervals: str = "equal-tailed"
    uncertainty: bool = False
    friendly_loc: str | Path | None = None
    asked_threshold: float = 0.5
    overwrite: bool = False
    schema: Schema | None = None
    initial_size: int | None = None
    crop_size: int | None = None
    final_size: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        n_samples = 1 if self.n_samples is None else self.n_samples
        check_drawing(n_samples=n_samples, tta=self.tta, batch_size=self.batch_size, workers=self.workers)
        if self.intervals not in INTERVALS:
            raise SettingError(f"intervals is {self.intervals!r}; it must be one of {', '.join(INTERVALS)}")
        if self.calibration is not None and not self.recalibrate:
            raise SettingError("calibration and --no-recalibrate (recalibrate=False) exclude each other; choose one")
        if not 0 <= self.asked_threshold <= 1:
            raise SettingError(f"asked_threshold is {self.asked_threshold}; it must be from 0 to 1, such as 0.5")
        if self.runtime not in RUNTIMES:
            raise SettingError(f"runtime is {self.runtime!r}; it must be one of {', '.join(RUNTIMES)}")
        list_model_folders(self.checkpoint_dir)  # not empty
        self._check_parts()
        self._check_engine()
        if self.writes_parts:
            return
        written = {"save_loc": self.save_loc, "failures": failed_path(self.save_loc), "friendly_loc": self.friendly_loc}
        check_tables_to_write(written, [self.catalog])

    def _check_parts(self) -> None:
        for name in ("devices", "galaxies_per_part"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.writes_parts and self.friendly_loc is not None:
            raise SettingError("friendly_loc goes with a table; give it to `zoobot merge`")
        if self.part is not None:
            choose_share(self.part, 1)
            if not self.writes_parts:
                raise SettingError(f"part goes with a folder, and save_loc is the table {self.save_loc}")
            if self.overwrite:
                raise SettingError("part and overwrite exclude each other, or a process would delete others' parts")

    def _check_engine(self) -> None:
        if self.engine not in ENGINES:
            raise SettingError(f"engine is {self.engine!r}; it must be one of {', '.join(ENGINES)}")
        if self.cores_per_worker is not None and self.cores_per_worker < 1:
            raise SettingError(f"cores_per_worker is {self.cores_per_worker}; it must be at least 1")
        if self.engine == "local":
            if self.address is not None or self.cores_per_worker is not None:
                raise SettingError("address and cores_per_worker are for Ray; add --engine ray, or leave them out")
            return
        if self.devices > 1:
            raise SettingError("devices is for one machine; Ray uses those that its cluster has: leave it out")
        if self.device not in (None, "cpu", "cuda"):
            raise SettingError(f"device is {self.device!r}; for Ray it must be cpu or cuda")
        if self.address is not None and is_url(self.address):
            raise SettingError(
                f"address is {self.address}, where Ray Data does not run; run this on the cluster (`ray job submit`), "
                "or give host:6379"
            )

    @property
    def writes_parts(self) -> bool:
        """Whether ``save_loc`` is a folder."""
        return not Path(self.save_loc).suffix

    @property
    def parts_path(self) -> Path:
        """Where the parts go: the folder, or a hidden one beside the table."""
        save_loc = Path(self.save_loc)
        return save_loc if self.writes_parts else save_loc.with_name(f".{save_loc.name}.parts")

    @property
    def whole_part(self) -> int:
        """The galaxies of a part, as so many whole batches."""
        return -(-self.galaxies_per_part // self.batch_size) * self.batch_size

    @property
    def checkpoint_dirs(self) -> list[Path]:
        """Every model folder."""
        return list_model_folders(self.checkpoint_dir)
