"""Fuzz a parser with atheris: ``python tests/fuzzing/fuzz.py PARSER [seconds]``, or ``make fuzz`` for all in turn.

It begins from ``tests/corpus/PARSER`` and small good files. What breaks is written to ``findings/PARSER``; once that is
mended, the smallest input goes into the corpus, which ``tests/test_hostile.py`` replays.
"""

import hashlib
import os
import resource
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

_MEMORY = 3 * 2**30  # bytes that an input may take beyond what the libraries take
_SECONDS = 20  # that an input may take
_INSTRUMENTED = [
    "harnesses",
    "zoobot",
    "tomllib",
    "csv",
    "yaml",
    "astropy.io.votable",
    "astropy.io.ascii",
    "astropy.io.fits",
]


def fuzz(parser: str, seconds: int) -> None:
    """Feed one parser for so long; findings are kept, and it goes on."""
    import atheris  # here, as it is no part of the developers' environment

    with atheris.instrument_imports(include=_INSTRUMENTED):
        import harnesses

        from zoobot.data import images

        if parser in ("catalog", "fits"):
            import astropy.io.ascii
            import astropy.io.fits
            import astropy.io.votable
            import astropy.table  # noqa: F401
    warnings.simplefilter("ignore")
    images.MAX_PIXELS = 2**20  # refusing large images by their headers is tested elsewhere; here they cost time
    folder, found = Path(tempfile.mkdtemp()), Path("findings", parser)
    found.mkdir(parents=True, exist_ok=True)
    (folder / "seeds").mkdir()
    for content in harnesses.good_files(parser):
        _save(folder / "seeds", content)
    _limit_memory()
    try_one = _collecting(harnesses.HARNESSES[parser], folder, found)
    flags = [f"-max_total_time={seconds}", f"-timeout={_SECONDS}", "-max_len=20000", f"-artifact_prefix={found}/"]
    corpora = [str(folder / "seeds"), *(str(path) for path in [harnesses.CORPUS / parser] if path.is_dir())]
    atheris.Setup(["fuzz", *flags, *corpora], try_one)
    atheris.Fuzz()


def _collecting(harness: Callable[[bytes, Path], None], folder: Path, found: Path) -> Callable[[bytes], None]:
    """The harness, which keeps one input for each place that breaks: a run is worth more than its first finding."""
    from zoobot.errors import ZoobotError

    seen: set[str] = set()

    def try_one(content: bytes) -> None:
        try:
            harness(content, folder)
        except ZoobotError:
            pass
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            place = next(frame for frame in reversed(frames) if {"zoobot", "fuzzing"} & set(Path(frame.filename).parts))
            what = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            if what not in seen:
                seen.add(what)
                print(f"FINDING {what}: {error}: {_save(found, content)}", flush=True)

    return try_one


def _save(folder: Path, content: bytes) -> Path:
    path = folder / hashlib.sha256(content).hexdigest()[:16]
    path.write_bytes(content)
    return path


def _limit_memory() -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY,) * 2)


if __name__ == "__main__":
    os.nice(19)
    fuzz(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 600)
