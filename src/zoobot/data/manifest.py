"""The manifest of a folder of shards: what it holds and how it was made."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoobot.data.fits_images import FitsConfig
from zoobot.data.remote_files import is_url, read_remote
from zoobot.errors import SettingError, ShardError, ZoobotError
from zoobot.files import replace_atomically
from zoobot.schemas import Schema

__all__ = ["MANIFEST_NAME", "PARTS_NAME", "SPLITS", "Manifest"]

MANIFEST_NAME = "manifest.json"
PARTS_NAME = "parts"
SPLITS = ("train", "test", "unlabelled")


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds and how it was made.

    Attributes:
        schema: the decision tree whose votes the labelled galaxies carry.
        image_size: height and width of every image, in pixels.
        channels: 1 or 3.
        encoding: ``raw``, ``jpeg`` or ``png``.
        counts: galaxies in each split.
        left_out: galaxies whose image could not be read, in each split.
        settings: what else the shards were made with.
        files: TFRecord files of each split, of the whole folder; empty in older manifests.
        complete: false while they are still being written.
    """

    schema: Schema
    image_size: int
    channels: int
    encoding: str
    counts: dict[str, int]
    left_out: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    complete: bool = True

    @classmethod
    def load(cls, shard_dir: str | Path) -> "Manifest":
        """Read the manifest of a folder of shards, or of a URL.

        Raises:
            ShardError: there is none, it cannot be reached, or it is not one.
        """
        path = f"{str(shard_dir).rstrip('/')}/{MANIFEST_NAME}" if is_url(shard_dir) else Path(shard_dir) / MANIFEST_NAME
        text = read_remote(path) if isinstance(path, str) else _read(path)
        try:
            content = json.loads(text.decode("utf-8"))
            manifest = cls(**{**content, "schema": Schema.from_dict(content["schema"])})
        except (ValueError, KeyError, TypeError, RecursionError, ZoobotError) as error:
            raise ShardError(f"{path} is not a manifest of shards: {error}") from error
        manifest._check(path)
        return manifest

    def save(self, shard_dir: str | Path) -> None:
        """Write it into the folder."""
        content = {**asdict(self), "schema": self.schema.to_dict()}
        with replace_atomically(Path(shard_dir) / MANIFEST_NAME) as path:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _check(self, path: str | Path) -> None:
        good = (
            isinstance(self.image_size, int)
            and self.image_size > 0
            and self.channels in (1, 3)
            and all(isinstance(facts, dict) for facts in (self.counts, self.left_out, self.settings, self.files))
            and {*self.counts, *self.files} <= set(SPLITS)
            and all(isinstance(count, int) and count >= 0 for count in (*self.counts.values(), *self.files.values()))
        )
        if not good:
            raise ShardError(f"{path} is not a manifest of shards: its sizes, channels or counts make no sense")
        try:
            if self.settings.get("fits") is not None:
                FitsConfig.from_dict(self.settings["fits"])
        except SettingError as error:
            raise ShardError(f"{path} is not a manifest of shards: {error}") from error


def _read(path: Path) -> bytes:
    if path.is_file():
        return path.read_bytes()
    if (path.parent / PARTS_NAME).is_dir():
        raise ShardError(
            f"{path.parent} holds parts; when all are written run `zoobot merge-shards --shard-dir {path.parent}`"
        )
    raise ShardError(f"{path.parent} holds no {MANIFEST_NAME}; make shards there with `zoobot create-shards`")
