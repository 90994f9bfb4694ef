"""A whole survey with known truth: images, the votes and clicks of volunteers, and what made them."""

import csv
import functools
import io
import json
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zoobot import __version__
from zoobot.data import images
from zoobot.data.contact_sheet import draw_contact_sheet
from zoobot.errors import SettingError
from zoobot.files import claim_folder, replace_atomically
from zoobot.processes import map_in_processes
from zoobot.progress import progress_bar
from zoobot.schemas import Schema
from zoobot.simulate.galaxies import KINDS, Galaxy, draw_galaxy
from zoobot.simulate.impressions import appeals, check_is_known, form_impression
from zoobot.simulate.rendering import BANDS, Observation, observe, to_rgb
from zoobot.simulate.volunteers import Classifications, Volunteers, draw_volunteers

__all__ = ["FILE_FORMATS", "SurveyConfig", "simulate_survey"]

FILE_FORMATS = ("png", "jpeg", "fits")

_PARTS_NAME = "parts"
_PIXELS_A_PART = 1_000_000  # a second or two of work, done again where it is interrupted
_SHEET_GALAXIES, _SHEET_PIXELS = 60, 256
_FIELD = {"elliptical": 9.0, "merger": 9.5}  # width of the image in half-light radii
_USUAL_FIELD = 7.0
_SKY = ((150.0, 210.0), (0.0, 30.0))  # ra and dec, degrees
_PURPOSES = ("crowd", "galaxy", "place", "votes", "clicks")
_START = np.datetime64("2026-01-01T00:00:00.000")
_WORKFLOW = (1, "Simulated galaxies", "1.1")
_CLICK_COLUMNS = (
    "classification_id,user_name,user_id,user_ip,workflow_id,workflow_name,workflow_version,created_at,"
    "gold_standard,expert,metadata,annotations,subject_data,subject_ids"
)


@dataclass(frozen=True)
class SurveyConfig:
    """How large the survey is, and where its chance comes from.

    Raises:
        SettingError: a setting is outside what it may be.
    """

    galaxies: int = 3000
    """How many to make."""
    img_size: int = 96
    """Height and width of the images, in pixels."""
    votes: int = 40
    """How many volunteers look at each galaxy."""
    seed: int = 0
    """What decides everything that is random."""
    file_format: str = "png"
    """png, jpeg, or fits: g, r and z in nanomaggies, with a WCS."""
    volunteers: int | None = None
    """How many people there are to look; 500, or three times the votes where that is more, when left out."""
    clicks: bool = True
    """Write every classification as a row of clicks.csv."""
    observation: Observation = field(default_factory=Observation)
    """Air, sky and camera."""

    def __post_init__(self) -> None:
        """Check it."""
        limits = {"galaxies": (1, 10**9), "img_size": (8, 4096), "votes": (1, 10**6), "seed": (0, 2**63 - 1)}
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise SettingError(f"{name}: got {getattr(self, name)}, expected {least} to {most}")
        if self.file_format not in FILE_FORMATS:
            raise SettingError(f"file_format: got {self.file_format!r}, expected {', '.join(FILE_FORMATS)}")
        if self.volunteers is not None and self.volunteers < self.votes:
            raise SettingError(
                f"volunteers: got {self.volunteers}, expected at least {self.votes}, the votes for each galaxy, "
                "since nobody looks at one twice"
            )

    @property
    def part(self) -> int:
        """How many galaxies are made at a time."""
        return min(max(_PIXELS_A_PART // self.img_size**2, 1), 100)

    @property
    def crowd(self) -> int:
        """How many volunteers there are."""
        return self.volunteers or max(500, 3 * self.votes)


def simulate_survey(
    save_dir: str | Path, schema: Schema, config: SurveyConfig | None = None, *, workers: int | None = None
) -> Path:
    """Make galaxies, let volunteers answer the decision tree, and write both with the truth about them.

    The same schema and config give the same bytes, whatever the number of workers, and a galaxy is the same however
    many there are. Interrupted, it goes on where it stopped. The folder then holds:

    - ``images/``: a picture of each galaxy;
    - ``catalog.csv``: ``id_str``, ``file_loc``, ``ra``, ``dec`` and the votes for each answer;
    - ``truth.parquet``: for each galaxy the parameters of `Galaxy`, its ``pixel_scale`` (arcsec), what else
      is in the field, and the exact ``<answer>_probability`` (among those asked) and ``<question>_proportion_asked``;
    - ``volunteers.parquet``: each person's name, skill, carelessness, activity and biases, by answer;
    - ``clicks.csv``: a row for each classification, in the columns of a Zooniverse export;
    - ``contact_sheet.jpg``: some of them, labelled by type; ``survey.json``: the settings.

    Args:
        save_dir: folder to make.
        schema: the decision tree.
        config: the settings.
        workers: processes, one a core when left out.

    Returns:
        The path of the catalog.

    Raises:
        SchemaError: the volunteers do not know some of the questions.
        SettingError: the folder holds something else.
    """
    config = config or SurveyConfig()
    check_is_known(schema)
    save_dir = Path(save_dir)
    claim_folder(save_dir, "survey.json", {"zoobot": __version__, "schema": schema.to_dict(), **asdict(config)})
    catalog_path = save_dir / "catalog.csv"
    if catalog_path.exists():  # the last to be written
        shutil.rmtree(save_dir / _PARTS_NAME, ignore_errors=True)  # of a run killed at the last moment
        return catalog_path
    parts = [
        _Part(save_dir, first, min(first + config.part, config.galaxies), schema, config)
        for first in range(0, config.galaxies, config.part)
    ]
    undone = [part for part in parts if not part.tables.exists()]
    done = config.galaxies - sum(len(part) for part in undone)
    with progress_bar("Simulating galaxies", config.galaxies, done=done) as advance:
        for part, _ in map_in_processes(_make_part, undone, workers):
            advance(len(part))
    _join(parts, save_dir, schema, config)
    shutil.rmtree(save_dir / _PARTS_NAME)
    return catalog_path


# one part, in a process of its own


@dataclass(frozen=True)
class _Part:
    """Some galaxies of a survey."""

    save_dir: Path
    first: int
    after: int
    schema: Schema
    config: SurveyConfig

    def __len__(self) -> int:
        return self.after - self.first

    @property
    def tables(self) -> Path:
        return self.save_dir / _PARTS_NAME / f"{self.first:09d}.parquet"

    @property
    def clicks(self) -> Path:
        return self.tables.with_suffix(".csv")


def _make_part(part: _Part) -> None:
    config = part.config
    crowd = _draw_crowd(part.schema, config)
    clicks = io.StringIO()
    rows = []
    (part.save_dir / "images").mkdir(exist_ok=True)
    for number in range(part.first, part.after):
        id_str = f"SIM{config.seed}-{number:07d}"  # surveys of different seeds can be joined
        file_loc = f"images/{id_str}.{config.file_format}"
        galaxy = draw_galaxy(_generator(config, "galaxy", number))
        pixel_scale = galaxy.effective_radius * _FIELD.get(galaxy.type, _USUAL_FIELD) / config.img_size
        ra, dec = _draw_place(_generator(config, "place", number))
        image, around = observe(galaxy, config.img_size, pixel_scale, config.observation)
        _write_image(part.save_dir / file_loc, image, pixel_scale, (ra, dec))
        impression = form_impression(galaxy, config.img_size, pixel_scale, config.observation)
        probabilities = crowd.answer_probabilities(appeals(impression, part.schema))
        truth = crowd.truth(probabilities)
        said = crowd.classify(probabilities, config.votes, _generator(config, "votes", number))
        if config.clicks:
            _write_clicks(clicks, number, id_str, said, part.schema, config)
        rows.append(
            {
                "id_str": id_str,
                "file_loc": file_loc,
                "ra": ra,
                "dec": dec,
                **dict(zip(part.schema.label_cols, said.votes.tolist(), strict=True)),
                "pixel_scale": pixel_scale,
                **asdict(galaxy),
                **around,
                **{f"{name}_probability": p for name, p in zip(part.schema.label_cols, truth.probability, strict=True)},
                **{
                    f"{name}_proportion_asked": p
                    for name, p in zip(part.schema.question_names, truth.proportion_asked, strict=True)
                },
            }
        )
    if config.clicks:
        with replace_atomically(part.clicks) as path:
            path.write_text(clicks.getvalue(), encoding="utf-8")
    with replace_atomically(part.tables) as path:  # the last: where it is, all of the part is
        pd.DataFrame(rows).to_parquet(path, index=False)


def _generator(config: SurveyConfig, purpose: str, number: int = 0) -> np.random.Generator:
    """A stream of its own for each purpose and galaxy."""
    return np.random.default_rng([config.seed, _PURPOSES.index(purpose), number])


@functools.lru_cache(maxsize=1)
def _draw_crowd(schema: Schema, config: SurveyConfig) -> Volunteers:
    return draw_volunteers(schema, config.crowd, config.votes, _generator(config, "crowd"))


def _draw_place(generator: np.random.Generator) -> tuple[float, float]:
    """Somewhere on a stretch of sky, as many a square degree everywhere: ra and dec in degrees."""
    (west, east), (south, north) = _SKY
    sine = generator.uniform(np.sin(np.radians(south)), np.sin(np.radians(north)))
    return float(generator.uniform(west, east)), float(np.degrees(np.arcsin(sine)))


def _write_image(path: Path, image: NDArray[np.float32], pixel_scale: float, place: tuple[float, float]) -> None:
    if path.suffix == ".fits":
        from astropy.io import fits
        from astropy.wcs import WCS

        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = place
        wcs.wcs.crpix = [(image.shape[-1] + 1) / 2, (image.shape[-2] + 1) / 2]
        wcs.wcs.cdelt = [-pixel_scale / 3600, pixel_scale / 3600]
        header = wcs.to_header()
        header["BANDS"] = "".join(BANDS)
        header["BUNIT"] = "nanomaggy"
        header["MAGZERO"] = 22.5
        fits.writeto(path, image, header, overwrite=True)
    else:
        path.write_bytes(images.encode_image(to_rgb(image, pixel_scale), path.suffix[1:]))


def _write_clicks(
    file: io.StringIO, number: int, id_str: str, said: Classifications, schema: Schema, config: SurveyConfig
) -> None:
    """One row a classification, as Zooniverse exports them; task T0 is the first question, and so on.

    The JSON is put together from ready pieces, as a survey has a million of them.
    """
    writer = csv.writer(file, lineterminator="\n")
    generator = _generator(config, "clicks", number)
    subject = number + 1
    subject_data = json.dumps({subject: {"retired": None, "id_str": id_str}})
    tasks = _describe_answers(schema)
    places = number * config.votes + np.arange(config.votes)
    finished = _START + (7000 * places + generator.integers(0, 7000, config.votes)).astype("timedelta64[ms]")
    started = finished - (1000 * generator.gamma(3, 8, config.votes)).astype("timedelta64[ms]")
    moments = zip(np.datetime_as_string(started), np.datetime_as_string(finished), strict=True)
    for place, person, answers, (begin, end) in zip(places, said.volunteer, said.answers, moments, strict=True):
        annotations = ", ".join([tasks[index] for index in np.flatnonzero(answers)])
        writer.writerow(
            (
                place + 1,
                _name_volunteer(person),
                person + 1,
                "",
                *_WORKFLOW,
                f"{end[:10]} {end[11:19]} UTC",
                "",
                "",
                f'{{"started_at": "{begin}Z", "finished_at": "{end}Z"}}',
                f"[{annotations}]",
                subject_data,
                subject,
            )
        )


@functools.lru_cache(maxsize=1)
def _describe_answers(schema: Schema) -> list[str]:
    """The entry of each answer in a classification's annotations."""
    places = {name: place for place, name in enumerate(schema.question_names)}
    return [
        json.dumps({"task": f"T{places[answer.question]}", "task_label": answer.question, "value": answer.text})
        for answer in schema.answers
    ]


# the whole


def _join(parts: list[_Part], save_dir: Path, schema: Schema, config: SurveyConfig) -> None:
    """Write the parts' tables as those of the survey; the catalog comes last."""
    table = pd.concat([pd.read_parquet(part.tables) for part in parts], ignore_index=True)
    if config.clicks:
        with replace_atomically(save_dir / "clicks.csv") as path, open(path, "wb") as file:
            file.write(f"{_CLICK_COLUMNS}\n".encode())
            for part in parts:
                with open(part.clicks, "rb") as rows:
                    shutil.copyfileobj(rows, file)
    with replace_atomically(save_dir / "volunteers.parquet") as path:
        _describe_crowd(_draw_crowd(schema, config)).to_parquet(path, index=False)
    with replace_atomically(save_dir / "truth.parquet") as path:
        table.drop(columns=["file_loc", *schema.label_cols]).to_parquet(path, index=False)
    _draw_sheet(table, save_dir, config)
    with replace_atomically(save_dir / "catalog.csv") as path:
        table[["id_str", "file_loc", "ra", "dec", *schema.label_cols]].to_csv(path, index=False)


def _describe_crowd(crowd: Volunteers) -> pd.DataFrame:
    names = [_name_volunteer(person) for person in range(len(crowd))]
    people = {"skill": crowd.skill, "carelessness": crowd.carelessness, "activity": crowd.activity}
    biases = {f"{name}_bias": crowd.bias[:, place] for place, name in enumerate(crowd.schema.label_cols)}
    return pd.DataFrame({"user_name": names, "user_id": np.arange(len(crowd)) + 1, **people, **biases})


def _name_volunteer(person: int) -> str:
    return f"volunteer-{person + 1:05d}"


def _draw_sheet(table: pd.DataFrame, save_dir: Path, config: SurveyConfig) -> None:
    """Some galaxies of every kind, the kinds in turn taking a place until the sheet is full."""
    names = [parameter.name for parameter in fields(Galaxy)]
    head = table.iloc[: 20 * _SHEET_GALAXIES]
    kinds = pd.Series(
        [Galaxy(**dict(zip(names, row, strict=True))).kind for row in head[names].itertuples(index=False)]
    )
    turns = kinds.groupby(kinds).cumcount()
    first = turns.sort_values(kind="stable").index[:_SHEET_GALAXIES]
    chosen = sorted(first, key=lambda place: (KINDS.index(kinds[place]), place))
    pictures = [
        _read_picture(save_dir / head["file_loc"].iloc[place], float(head["pixel_scale"].iloc[place]))
        for place in chosen
    ]
    with replace_atomically(save_dir / "contact_sheet.jpg") as path:
        figure = draw_contact_sheet(pictures, [kinds[place] for place in chosen])
        figure.savefig(path, dpi=150)


def _read_picture(path: Path, pixel_scale: float) -> NDArray[np.uint8]:
    """One of the survey's images in colour, no larger than the sheet shows it."""
    if path.suffix == ".fits":
        from astropy.io import fits

        pixels = to_rgb(np.asarray(fits.getdata(path), np.float32), pixel_scale)
    else:
        pixels = images.read_image(path, size=None, channels=3)
    size = min(len(pixels), _SHEET_PIXELS)
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
