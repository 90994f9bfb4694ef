"""Simulating galaxies: whole surveys on all cores, and what each part costs on one.

Run ``python benchmarks/simulating.py``. The whole run counts the start of the processes, images, votes, clicks, the
truth and the contact sheet. The parts are those of one galaxy in turn, with the population's own mix of types.
"""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import timing

from zoobot import schemas
from zoobot.data import images
from zoobot.processes import count_cores
from zoobot.simulate.galaxies import draw_galaxy
from zoobot.simulate.impressions import appeals, form_impression
from zoobot.simulate.rendering import observe, render, to_rgb
from zoobot.simulate.survey import SurveyConfig, simulate_survey
from zoobot.simulate.volunteers import draw_volunteers

SCHEMA = schemas.load("gz_decals")


def draw_images(numbers: range) -> None:
    """Pictures from parameters to the bytes of a PNG, 96 px."""
    for number in numbers:
        galaxy = draw_galaxy(np.random.default_rng(number))
        scale = 7 * galaxy.half_light_radius / 96
        images.encode_image(to_rgb(observe(galaxy, 96, scale)[0], scale), "png")


def main() -> None:
    parser = timing.make_parser(__doc__, repeats=3)
    parser.add_argument("--galaxies", type=int, default=3000, help="of the survey")
    parser.add_argument("--img-size", type=int, default=96, help="height and width of the images")
    args = parser.parse_args()
    count, repeats = (40, 1) if args.quick else (args.galaxies, args.repeats)

    def whole(clicks: bool) -> None:
        config = SurveyConfig(galaxies=count, img_size=args.img_size, clicks=clicks)
        with tempfile.TemporaryDirectory() as folder:
            simulate_survey(Path(folder) / "survey", SCHEMA, config)

    cores = count_cores()
    pool = ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"))
    list(pool.map(draw_images, [range(20)] * 4 * cores))  # every process is ready

    def images_alone() -> None:
        list(pool.map(draw_images, [range(start, start + 50) for start in range(0, count, 50)]))

    surveys: dict[str, timing.Case] = {
        "images alone, in ready processes": images_alone,
        "survey": lambda: whole(True),
        "survey without clicks": lambda: whole(False),
    }
    seconds = timing.interleave(surveys, repeats, warm_ups=0)
    print(f"\n{count} galaxies of {args.img_size} px on {cores} cores:\n")
    timing.print_comparison(seconds, dict.fromkeys(surveys, count), "survey", "galaxy")

    few = [draw_galaxy(np.random.default_rng(number)) for number in range(min(count, 200))]
    scales = [7 * galaxy.half_light_radius / args.img_size for galaxy in few]
    observed = [observe(galaxy, args.img_size, scale)[0] for galaxy, scale in zip(few, scales, strict=True)]
    pictures = [to_rgb(image, scale) for image, scale in zip(observed, scales, strict=True)]
    crowd = draw_volunteers(SCHEMA, 500, 40, np.random.default_rng(0))

    def vote() -> None:
        for number, (galaxy, scale) in enumerate(zip(few, scales, strict=True)):
            probabilities = crowd.answer_probabilities(appeals(form_impression(galaxy, args.img_size, scale), SCHEMA))
            crowd.truth(probabilities)
            crowd.classify(probabilities, 40, np.random.default_rng(number))

    parts: dict[str, timing.Case] = {
        "galaxy and seeing": lambda: repeat(render),
        "the same with field and noise": lambda: repeat(observe),
        "colours": lambda: consume(to_rgb(*each) for each in zip(observed, scales, strict=True)),
        "PNG": lambda: consume(images.encode_image(picture, "png") for picture in pictures),
        "500 volunteers' probabilities, 40 votes": vote,
    }

    def repeat(draw: object) -> None:
        for galaxy, scale in zip(few, scales, strict=True):
            draw(galaxy, args.img_size, scale)  # type: ignore[operator]

    def consume(results: object) -> None:
        for _ in results:  # type: ignore[attr-defined]
            pass

    print("\nParts, in one process:\n")
    timing.print_comparison(
        timing.interleave(parts, repeats), dict.fromkeys(parts, len(few)), "galaxy and seeing", "galaxy"
    )
    timing.print_machine(repeats)


if __name__ == "__main__":
    main()
