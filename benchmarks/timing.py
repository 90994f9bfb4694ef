"""What the benchmarks share: measuring cases in turn, and printing their medians as a markdown table."""

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from zoobot.processes import count_cores

Key = TypeVar("Key")
Case = Callable[[], float | None]
"""Runs once; gives its own seconds where not all that it does is to be timed."""


def make_parser(description: str | None, *, repeats: int = 1) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds that are measured")
    parser.add_argument("--quick", action="store_true", help="as little as shows that it runs; no figures to quote")
    return parser


def interleave(cases: Mapping[Key, Case], repeats: int, warm_ups: int = 1) -> dict[Key, float]:
    """Median seconds of each case; the cases take turns, so that whatever else the machine does slows all of them."""
    times: dict[Key, list[float]] = {key: [] for key in cases}
    for _ in range(warm_ups + repeats):
        for key, case in cases.items():
            start = time.perf_counter()
            own = case()
            times[key].append(time.perf_counter() - start if own is None else own)
    return {key: statistics.median(values[warm_ups:]) for key, values in times.items()}


def print_rows(header: list[str], rows: list[list[str]]) -> None:
    """A markdown table."""
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")


def print_comparison(seconds: Mapping[str, float], counts: Mapping[str, int], reference: str, item: str) -> None:
    """A row for each case: time for an item, items a second, and the time beside that of ``reference``."""
    each = {name: value / counts[name] for name, value in seconds.items()}
    rows = [
        [name, f"{1000 * value:.3g}", f"{1 / value:.3g}", f"{value / each[reference]:.3g}"]
        for name, value in each.items()
    ]
    print_rows(["", f"ms per {item}", f"{_plural(item)} a second", f"time, {reference} = 1"], rows)


def _plural(item: str) -> str:
    return item[:-1] + "ies" if item.endswith("y") else item + ("es" if item.endswith("ch") else "s")


def print_machine(repeats: int) -> None:
    """How the figures above it came about."""
    rounds = f"Medians of {repeats} rounds in turn" if repeats > 1 else "One round"
    print(f"\n{rounds}, on {count_cores()} cores, torch {version('torch')}.\n")


class OtherPython:
    """A script in another environment: runs a round each time it is called, and says how long that took."""

    def __init__(self, python: Path, script: str, *arguments: object) -> None:
        command = [str(python), str(Path(__file__).with_name(script)), *map(str, arguments)]
        self._process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self) -> float:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("it was started without pipes")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"it ended with {self._process.wait()}; see its message above")
        return float(answer)

    def close(self) -> None:
        self._process.kill()  # closing its input is not enough where forked workers hold that open too
        self._process.communicate()
