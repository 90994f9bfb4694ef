"""Files of tensors: read whole, with nothing but tensors ever unpickled."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from zoobot.errors import ModelError

__all__ = ["LONGEST", "TENSOR_SUFFIXES", "hash_content", "parse_tensors", "read_content", "shorten"]

TENSOR_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
LONGEST = 300
"""Letters of a tensor's name, and of others' messages."""

_LARGEST_FILE = 2**34  # bytes


def read_content(path: Path) -> bytes:
    """Read a file of weights, or of settings beside it.

    Raises:
        ModelError: it is no file, too large, or cannot be read.
    """
    if not path.is_file():  # reading a pipe may never end
        raise ModelError(f"weights: {path} is no file: save or fetch it again")
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ModelError(f"weights: {path} has over {_LARGEST_FILE:,} bytes: give the weights alone")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"weights: {path} cannot be read ({error.strerror}): save or fetch it again") from error


def hash_content(content: bytes) -> str:
    """Give its sha256."""
    return hashlib.sha256(content).hexdigest()


def parse_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """Take all tensors out of a file's content, by name, with dots between the names of nested dictionaries.

    Args:
        path: where it comes from, whose suffix says what it is: one of ``TENSOR_SUFFIXES``.
        content: of the file.

    Raises:
        ModelError: it is none of these, or cannot be read as tensors.
    """
    if path.suffix not in TENSOR_SUFFIXES:
        raise ModelError(f"weights: got file {path}, expected one of {', '.join(TENSOR_SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        _check_archive(content)
        return _flatten(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises whatever its parts do
        raise ModelError(
            f"weights: {path} cannot be read as tensors ({shorten(error)}): nothing else is ever unpickled; "
            "where you trust it, save its state_dict as safetensors"
        ) from error


def _check_archive(content: bytes) -> None:
    """Torch packs nothing, so that what is packed would be small only until it is read."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(member.file_size > member.compress_size for member in archive.infolist()):
                raise ValueError("it is compressed")


def _flatten(content: Any) -> dict[str, Tensor]:
    """Collect all the tensors of nested dictionaries, with dots between the names."""
    if not isinstance(content, Mapping):
        raise TypeError("it is no dictionary")
    found: dict[str, Tensor] = {}
    seen, waiting = set(), [("", content)]
    while waiting:
        prefix, mapping = waiting.pop()
        if id(mapping) in seen:  # a dictionary may hold itself
            continue
        seen.add(id(mapping))
        for key, value in mapping.items():
            name = f"{prefix}{key}"
            if len(name) > LONGEST:
                continue
            if isinstance(value, Mapping):
                waiting.append((f"{name}.", value))
            elif isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
                found[name] = value.detach()
    return found


def shorten(error: Exception) -> str:
    """Give the first line of a message, which may quote what a stranger wrote."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:LONGEST]
