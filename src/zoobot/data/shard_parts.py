"""A part of the shards of a folder: one machine's share, named i/n."""

import re
from pathlib import Path
from typing import NamedTuple

from zoobot.data.manifest import MANIFEST_NAME, PARTS_NAME, Manifest
from zoobot.data.shard_planning import describe_difference
from zoobot.errors import SettingError, ShardError

__all__ = ["Part", "claim_part", "part_folder"]


class Part(NamedTuple):
    """One machine's share of the work: ``number`` from 1 to ``of``."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read ``"2/4"``.

        Raises:
            SettingError: it is no such thing, or not among the parts.

        >>> Part.parse("2/4")
        Part(number=2, of=4)
        """
        found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
        part = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= part.number <= part.of:
            raise SettingError(f"part: got {text!r}, expected i/n with i from 1 to n, such as 2/4")
        return part

    def __str__(self) -> str:
        """As it is given."""
        return f"{self.number}/{self.of}"


def part_folder(shard_dir: Path, part: Part) -> Path:
    """Where the manifest of a part lies, and its list of bad images."""
    return shard_dir / PARTS_NAME / f"{part.number:05d}-of-{part.of:05d}"


def claim_part(shard_dir: Path, part: Part, planned: Manifest) -> None:
    """Say what this part is doing; other parts may begin at the same time, so nothing of theirs is touched.

    Raises:
        ShardError: the folder holds something else, another number of parts, or a part that is made in another way.
    """
    parts = shard_dir / PARTS_NAME
    if shard_dir.exists() and not parts.is_dir() and (not shard_dir.is_dir() or any(shard_dir.iterdir())):
        raise ShardError(f"{shard_dir} holds something that was not written in parts; choose another --shard-dir")
    for folder in sorted(parts.glob("*-of-*")):
        if not folder.name.endswith(f"-of-{part.of:05d}"):
            raise ShardError(
                f"{shard_dir} holds another division, {folder.name}; this is part {part}: use one n for all"
            )
        if (folder / MANIFEST_NAME).exists():
            difference = describe_difference(Manifest.load(folder), planned)
            if difference:
                raise ShardError(
                    f"{shard_dir} holds part {folder.name} with another {difference} than this part, {part}; "
                    "all must be made alike: mend the command, or choose another --shard-dir"
                )
    planned.save(part_folder(shard_dir, part))
