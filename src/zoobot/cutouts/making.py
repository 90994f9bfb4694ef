"""Cutouts: a picture of each galaxy of a catalog, out of FITS mosaics that are never read whole."""

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits

from zoobot import __version__
from zoobot.cutouts.mosaics import find_mosaics, open_mosaic
from zoobot.cutouts.pixels import Cutout, Source, cut
from zoobot.cutouts.places import ALIGNMENTS, CutoutConfig, check_sources, place_sources
from zoobot.data.catalog import catalog_fingerprint, read_catalog
from zoobot.data.tables import read_table
from zoobot.errors import CatalogError, ImageError, SettingError
from zoobot.files import claim_folder, replace_atomically
from zoobot.processes import map_in_processes
from zoobot.progress import progress_bar

__all__ = ["ALIGNMENTS", "CutoutConfig", "Cutouts", "cutout_locations", "make_cutouts"]

_MARKER, _CATALOG, _FAILED, _PARTS, _IMAGES = "cutouts.json", "catalog.csv", "cutouts.failed.csv", "parts", "images"
_PIXELS_A_PART = 4_000_000  # a second or so of work, done again where it is interrupted


@dataclass(frozen=True)
class Cutouts:
    """What :func:`make_cutouts` made.

    Attributes:
        catalog: path of the table of galaxies with a cutout.
        galaxies: its rows.
        failed: how many galaxies have none.
        failed_loc: the table of these, if there are any.
    """

    catalog: Path
    galaxies: int
    failed: int
    failed_loc: Path | None


def make_cutouts(
    mosaics: str | Path | Sequence[str | Path],
    catalog: str | Path,
    save_dir: str | Path,
    config: CutoutConfig,
    *,
    workers: int | None = None,
    overwrite: bool = False,
) -> Cutouts:
    """Cut a picture of each galaxy out of mosaics; interrupted, it goes on where it stopped.

    The folder then holds:

    - ``images/``: a FITS file for each galaxy, float32, (height, width) or (planes, height, width), with its WCS and
      what else the mosaic's header says of the pixels; NaN beyond the mosaic's edges and where it has bad pixels;
    - ``catalog.csv``: the rows of the catalog with ``file_loc`` and ``share_covered``, the share of the cutout that
      lies on the mosaic;
    - ``cutouts.failed.csv``, if need be: ``id_str`` and the reason why there is no cutout.

    Where tiles overlap, the one that covers most of a cutout is taken, by their headers: blank borders count as
    covered. Resampled pixels keep the sum of the fluxes, or their mean where ``BUNIT`` says that they are by area.

    Args:
        mosaics: FITS files, folders of them, or patterns; none may be gzipped, since it could only be read whole.
        catalog: table with ``id_str``, ``ra`` and ``dec`` (degrees, ICRS).
        save_dir: folder to make.
        config: the settings.
        workers: processes, one a core when left out.
        overwrite: delete the cutouts that are in the folder already.

    Raises:
        CatalogError: the table cannot be read, has faults, or not one of its galaxies is on a mosaic.
        ImageError: a mosaic cannot be read, or has no WCS of the sky.
        SettingError: the folder holds something else.
    """
    paths = find_mosaics(mosaics)
    frame = _read_sources(catalog, config)
    save_dir = Path(save_dir)
    if overwrite:
        _delete_cutouts(save_dir)
    fingerprint = catalog_fingerprint(frame, list(frame.columns))
    settings = {"zoobot": __version__, "catalog": fingerprint, "mosaics": list(map(str, paths)), **asdict(config)}
    claim_folder(save_dir, _MARKER, settings)
    if (save_dir / _CATALOG).exists():  # the last to be written
        shutil.rmtree(save_dir / _PARTS, ignore_errors=True)  # of a run killed at the last moment
        failed = len(read_table(save_dir / _FAILED)) if (save_dir / _FAILED).exists() else 0
        return _report(save_dir, len(frame) - failed, failed)
    places = place_sources(paths, frame, config)
    if config.files:
        _write_cutouts(paths, frame, places, save_dir, config, workers)
        places["file_loc"] = [f"{_IMAGES}/{name}.fits" for name in _name_files(frame["id_str"].tolist())]
    else:
        places["file_loc"] = _locations(paths, places)
    return _write_tables(frame, places, save_dir)


def cutout_locations(
    mosaics: str | Path | Sequence[str | Path], catalog: pd.DataFrame, config: CutoutConfig
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Say where in mosaics the galaxies are, as names of files that Zoobot reads without any cutout being written.

    Args:
        mosaics: as for :func:`make_cutouts`.
        catalog: with ``id_str``, ``ra`` and ``dec`` (degrees, ICRS).
        config: the settings; ``align`` must be "pixels".

    Returns:
        The rows of the galaxies that are on a mosaic, with ``file_loc``, as ``/folder/mosaic.fits[11:60,-4:45]``
        (CFITSIO's sections: columns, then rows, from 1 and inclusive; they may reach beyond the edges), and
        ``share_covered``; and a table of the others, with ``id_str`` and ``reason``.

    Raises:
        CatalogError: columns are missing or hold what is no position.
        ImageError: a mosaic cannot be read, or has no WCS of the sky.
        SettingError: ``align`` is not "pixels".
    """
    if config.align != "pixels":
        raise SettingError(f"align: got {config.align!r}, expected pixels, as nothing is resampled")
    check_sources(catalog, config, "catalog")
    paths = find_mosaics(mosaics)
    places = place_sources(paths, catalog, config)
    return _split_failed(catalog, places.assign(file_loc=_locations(paths, places)))


# what is asked for


def _read_sources(path: str | Path, config: CutoutConfig) -> pd.DataFrame:
    frame = read_catalog(path, need_files=False)
    check_sources(frame, config, str(path))
    return frame


def _name_files(ids: Sequence[str]) -> list[str]:
    """Names that any disk can hold, no two alike even where case does not count."""
    plain = [re.sub(r"^\.|[^\w.+-]", "_", id_str, flags=re.ASCII)[:100] for id_str in ids]
    alike = Counter(name.casefold() for name in plain)
    return [
        # a "~" is in no plain name
        name if name == id_str and alike[name.casefold()] == 1 else f"{name}~{_hash(id_str)}"
        for name, id_str in zip(plain, ids, strict=True)
    ]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


# one mosaic


def _locations(paths: Sequence[Path], places: pd.DataFrame) -> list[str]:
    return [
        f"{paths[mosaic]}[{left + 1}:{left + side},{bottom + 1}:{bottom + side}]"
        for mosaic, left, bottom, side in places[["mosaic", "left", "bottom", "side"]].itertuples(index=False)
    ]


# the cutouts of one part, in a process of their own


@dataclass(frozen=True)
class _Part:
    """Some galaxies of one mosaic."""

    save_dir: Path
    number: int
    mosaic: Path
    sources: list[Source]
    config: CutoutConfig

    @property
    def table(self) -> Path:
        return self.save_dir / _PARTS / f"{self.number:09d}.parquet"


def _write_cutouts(
    paths: Sequence[Path],
    frame: pd.DataFrame,
    places: pd.DataFrame,
    save_dir: Path,
    config: CutoutConfig,
    workers: int | None,
) -> None:
    """Write the files, and into ``places`` what came of each."""
    parts = list(_plan(paths, frame, places, save_dir, config))
    undone = [part for part in parts if not part.table.exists()]
    total = sum(len(part.sources) for part in parts)
    done = total - sum(len(part.sources) for part in undone)
    with progress_bar("Cutting out", total, done=done) as advance:
        for part, _ in map_in_processes(_cut_part, undone, workers):
            advance(len(part.sources))
    if parts:
        results = pd.concat([pd.read_parquet(part.table) for part in parts], ignore_index=True)
        for name in ("share_covered", "reason"):
            places.loc[results["row"], name] = results[name].to_numpy()


def _plan(
    paths: Sequence[Path], frame: pd.DataFrame, places: pd.DataFrame, save_dir: Path, config: CutoutConfig
) -> Iterator[_Part]:
    """Galaxies of one mosaic, from the bottom up as the pixels lie on the disk."""
    table = places.assign(row=np.arange(len(places)), name=_name_files(frame["id_str"].tolist()))
    table[["ra", "dec"]] = frame[["ra", "dec"]].to_numpy(np.float64)
    good = table[table["reason"] == ""].sort_values(["mosaic", "bottom"], kind="stable")
    if good.empty:
        return
    length = int(np.clip(_PIXELS_A_PART // good["side"].max() ** 2, 1, 200))
    number = 0
    for mosaic in good["mosaic"].unique():
        group = good[good["mosaic"] == mosaic]
        sources = [Source(*values) for values in group[list(Source._fields)].itertuples(index=False)]
        for first in range(0, len(sources), length):
            yield _Part(save_dir, number, paths[mosaic], sources[first : first + length], config)
            number += 1


def _cut_part(part: _Part) -> None:
    results = []
    config = part.config
    with open_mosaic(part.mosaic, config.hdu) as mosaic:
        for source in part.sources:
            try:
                cutout = cut(mosaic, source, align=config.align, zeros_are_bad=config.zeros_are_bad)
            except ImageError as error:
                results.append((source.row, 0.0, str(error)))
                continue
            _write_fits(part.save_dir / _IMAGES / f"{source.name}.fits", cutout)
            results.append((source.row, cutout.share_covered, ""))
    with replace_atomically(part.table) as path:  # the last: where it is, all of the part is
        pd.DataFrame(results, columns=["row", "share_covered", "reason"]).to_parquet(path, index=False)


def _write_fits(path: Path, cutout: Cutout) -> None:
    pixels = cutout.pixels
    hdu = fits.PrimaryHDU(pixels[0] if len(pixels) == 1 else pixels, cutout.header)
    with replace_atomically(path) as temporary:
        hdu.writeto(temporary, overwrite=True, output_verify="silentfix+ignore")


# the whole


def _split_failed(frame: pd.DataFrame, places: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    good = (places["reason"] == "").to_numpy()
    columns = {name: places[name].to_numpy() for name in ("file_loc", "share_covered")}
    failed = pd.DataFrame({"id_str": frame["id_str"].to_numpy(), "reason": places["reason"].to_numpy()})
    return frame.assign(**columns)[good].reset_index(drop=True), failed[~good].reset_index(drop=True)


def _write_tables(frame: pd.DataFrame, places: pd.DataFrame, save_dir: Path) -> Cutouts:
    """Write the tables; the catalog comes last."""
    catalog, failed = _split_failed(frame, places)
    if len(failed):
        with replace_atomically(save_dir / _FAILED) as path:
            failed.to_csv(path, index=False)
    if catalog.empty:
        raise CatalogError(
            f"not one of {len(failed)} galaxies has a cutout ({save_dir / _FAILED} lists why); the first: "
            f"{failed['id_str'].iloc[0]}: {failed['reason'].iloc[0]}"
        )
    with replace_atomically(save_dir / _CATALOG) as path:
        catalog.to_csv(path, index=False)
    shutil.rmtree(save_dir / _PARTS, ignore_errors=True)
    return _report(save_dir, len(catalog), len(failed))


def _report(save_dir: Path, galaxies: int, failed: int) -> Cutouts:
    return Cutouts(save_dir / _CATALOG, galaxies, failed, save_dir / _FAILED if failed else None)


def _delete_cutouts(save_dir: Path) -> None:
    """Delete what an earlier run made, and nothing of others."""
    if not (save_dir / _MARKER).exists():
        return
    for name in (_CATALOG, _FAILED):
        (save_dir / name).unlink(missing_ok=True)
    for name in (_PARTS, _IMAGES):
        shutil.rmtree(save_dir / name, ignore_errors=True)
    (save_dir / _MARKER).unlink()
