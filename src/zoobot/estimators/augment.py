"""Augmentation of a batch on its device: rotation, flips, crop, zoom and resize in one resampling."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoobot.errors import ModelError, SettingError

__all__ = [
    "PREPROCESSES",
    "VIEWS",
    "Augment",
    "AugmentConfig",
    "check_images",
    "make_views",
    "register_preprocess",
    "warp",
]

VIEWS = {"none": 1, "dihedral": 8}
"""How many views of each image the kinds of test-time augmentation take."""

_LARGEST = 8_192  # no size or count of a model is larger; a damaged file's may be
_CPU_CHUNK = 8  # images at a time on a CPU: their floats stay in its cache, which halves the time at 300 pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to an image before the encoder sees it; sizes are sides of squares in pixels.

    Raises:
        SettingError: all the faults at once, a line each.

    >>> AugmentConfig(input_size=300, crop_size=225, resize_size=224).rotate
    True
    """

    input_size: int
    """Side of the images that come in."""
    crop_size: int
    """Side of the part of them that is kept."""
    resize_size: int
    """Side of what the encoder gets: the crop, resized."""
    channels: int = 3
    """1 for greyscale, 3 for colour."""
    rotate: bool = True
    """Train with rotation by any angle."""
    flip: bool = True
    """Train with flips."""
    move: float = 1.0
    """Train with crops off the centre, by up to this share of the room there is; 0 keeps them there."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Train with a magnification between these, drawn evenly in its logarithm."""
    mean: tuple[float, ...] = (0.0,)
    """Taken from the pixels (on the scale 0 to 1), for all channels or for each; 0: pixels stay 0 to 1."""
    std: tuple[float, ...] = (1.0,)
    """Divides the pixels after ``mean`` is taken, for all channels or for each."""

    def __post_init__(self) -> None:
        """Check every setting."""
        faults = list(self._faults())
        if faults:
            raise SettingError("\n".join(faults))

    def _faults(self) -> Iterator[str]:
        counts = ("input_size", "crop_size", "resize_size", "channels")
        faulty = [name for name in counts if not _is_count(getattr(self, name))]
        for name in faulty:
            yield f"{name}: got {getattr(self, name)!r}, expected a whole number from 1 to {_LARGEST}"
        if not faulty and self.crop_size > self.input_size:
            yield f"crop_size: got {self.crop_size}, expected at most input_size, {self.input_size}"
        for name in ("rotate", "flip"):
            if not isinstance(getattr(self, name), bool):
                yield f"{name}: got {getattr(self, name)!r}, expected True or False"
        if not (_are_numbers((self.move,)) and 0 <= self.move <= 1):
            yield f"move: got {self.move!r}, expected a number from 0 to 1"
        if not (_are_numbers(self.zoom) and len(self.zoom) == 2 and 0 < self.zoom[0] <= self.zoom[1]):
            yield f"zoom: got {self.zoom!r}, expected (lowest, highest) magnification, such as (0.9, 1.2)"
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not (values and _are_numbers(values) and len(values) in (1, self.channels)):
                yield f"{name}: got {values!r}, expected a tuple of one number, or of one per channel"
            elif name == "std" and min(values) <= 0:
                yield f"std: got {values!r}, expected numbers above 0"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST


def _are_numbers(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, (int, float)) and -1e6 < value < 1e6 for value in values)


def check_images(images: Tensor, config: AugmentConfig) -> None:
    """Check the shape and the type of a batch.

    Raises:
        ModelError: ``images`` is not (batch, input_size, input_size, channels), uint8 or float.
    """
    expected = (config.input_size, config.input_size, config.channels)
    if tuple(images.shape[1:]) == expected and (images.dtype == torch.uint8 or images.is_floating_point()):
        return
    raise ModelError(
        f"images: got {images.dtype} of shape {tuple(images.shape)}, expected uint8 (or float from 0 to 1) "
        f"of shape (batch, {', '.join(map(str, expected))}): resize them, or use a model made for their size"
    )


def warp(pixels: Tensor, matrix: Tensor, shift: Tensor, size: int, pool: int = 1) -> Tensor:
    """Resample square images bilinearly: the output at ``p`` is the input at ``matrix @ p + shift``.

    Coordinates are (x, y) from the image's left or upper edge, -1, to its other edge, 1, for input and output
    alike, so that pixel i of n lies at (2 i + 1) / n - 1. Beyond its edges the image is reflected.
    ``pool`` averages squares of so many input pixels first, against aliasing where the output is coarser;
    where they do not divide the image it is reflected up to the next multiple, and coordinates stay those of
    the image.

    Args:
        pixels: Float (batch, channels, side, side).
        matrix: (batch, 2, 2).
        shift: (batch, 2).
        size: Side of the output.
        pool: Side of the squares.

    Returns:
        (batch, channels, size, size), differentiable in ``pixels``; NaN pixels spread to their neighbours.

    >>> image = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    >>> mirror = torch.tensor([[[-1.0, 0.0], [0.0, 1.0]]])
    >>> warp(image, mirror, torch.zeros(1, 2), size=2).tolist()
    [[[[1.0, 0.0], [3.0, 2.0]]]]
    """
    side = pixels.shape[-1]
    extra = -side % pool
    if extra:
        before, after = extra // 2, extra - extra // 2
        pixels = F.pad(pixels, (before, after, before, after), mode="reflect")
        padded = side + extra
        matrix = matrix * (side / padded)
        shift = shift * (side / padded) - (after - before) / padded
    if pool > 1:
        pixels = F.avg_pool2d(pixels, pool)
    # F.affine_grid would do, but multiplies matrices: with reduced-precision products allowed, as is common
    # in training, its coordinates are wrong by up to a tenth of a pixel.
    steps = (2 * torch.arange(size, device=pixels.device, dtype=matrix.dtype) + 1) / size - 1
    across, down = steps[None, None, :, None], steps[None, :, None, None]
    columns = matrix[:, None, None]  # (batch, 1, 1, 2, 2)
    grid = columns[..., 0] * across + (columns[..., 1] * down + shift[:, None, None])
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


class Augment(nn.Module):
    """Turn a batch of images into what an encoder takes: cropped, resized, normalised; in training, varied.

    Training draws for each image a rotation, flips, the crop's position (its centre evenly within
    (input_size − crop_size) / 2 of the image's) and a magnification, as the config allows. Evaluation takes
    the centre. Either is a single bilinear resampling (:func:`warp`), which samples past the crop's edge and
    not past the image's, where it reflects. Where the crop is at least twice the output, pixels are first
    averaged by the whole part of that ratio (whatever the zoom). A crop that needs no resampling is a slice.

    >>> augment = Augment(AugmentConfig(input_size=8, crop_size=6, resize_size=4))
    >>> augment(torch.zeros(2, 8, 8, 3, dtype=torch.uint8)).shape
    torch.Size([2, 3, 4, 4])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: AugmentConfig) -> None:
        """Hold the config; it has all there is to save, so that no buffer is part of the weights."""
        super().__init__()
        self.config = config
        self._pool = max(1, config.crop_size // config.resize_size)
        shape = (1, config.channels, 1, 1)
        for name, values in (("mean", config.mean), ("std", config.std)):
            constants = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, constants.expand(shape).clone(), persistent=False)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment a batch.

        Args:
            images: uint8, or float from 0 to 1, of shape (batch, input_size, input_size, channels).
            generator: Where the random numbers of training come from; torch's default for the device if None.

        Returns:
            float32 (batch, channels, resize_size, resize_size), channels last in memory, also under autocast.

        Raises:
            ModelError: ``images`` has another shape or type.
        """
        config = self.config
        check_images(images, config)
        output = torch.empty(
            (len(images), config.channels, config.resize_size, config.resize_size),
            device=images.device,
            memory_format=torch.channels_last,
        )
        scale = 1 / (self.std * (255 if images.dtype == torch.uint8 else 1))
        offset = -self.mean / self.std
        with torch.autocast(images.device.type, enabled=False):
            matrix, shift = self._placement(images, generator)
            chunk = _CPU_CHUNK if images.device.type == "cpu" else max(1, len(images))
            for start in range(0, len(images), chunk):
                part = slice(start, start + chunk)
                pixels = self._resample(images[part].permute(0, 3, 1, 2), matrix[part], shift[part])
                output[part] = torch.addcmul(offset, pixels, scale)
        return output

    def _varies(self) -> bool:
        config = self.config
        return self.training and (config.rotate or config.flip or config.move > 0 or config.zoom != (1.0, 1.0))

    def _resample(self, pixels: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
        """Crop and resize uint8 or float (batch, channels, side, side) to float32."""
        config = self.config
        margin = config.input_size - config.crop_size
        if not self._varies() and config.crop_size == config.resize_size and margin % 2 == 0:
            kept = slice(margin // 2, margin // 2 + config.crop_size)
            return pixels[..., kept, kept].float()
        return warp(pixels.float(), matrix, shift, config.resize_size, self._pool)

    def _placement(self, images: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Where each output lies in its image: matrix (batch, 2, 2) and shift (batch, 2) of :func:`warp`."""
        config, count, device = self.config, len(images), images.device
        extent = config.crop_size / config.input_size
        if not self._varies():
            centre = torch.zeros(count, 2, device=device)
            return extent * torch.eye(2, device=device).expand(count, 2, 2), centre
        source = device if generator is None else generator.device
        # Always as many numbers, so that switching one variation off leaves the others as they were.
        draws = torch.rand(count, 6, generator=generator, device=source).to(device)
        angle = 2 * math.pi * config.rotate * draws[:, 0]
        flips = torch.where((draws[:, 1:3] < 0.5) & config.flip, -1.0, 1.0)
        lowest, highest = (math.log(edge) for edge in config.zoom)
        size = extent * torch.exp(-(lowest + (highest - lowest) * draws[:, 3]))
        shift = config.move * (1 - extent) * (2 * draws[:, 4:6] - 1)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        rotation = torch.stack((cosine, -sine, sine, cosine), dim=1).view(count, 2, 2)
        return rotation * (size[:, None] * flips)[:, None], shift


PREPROCESSES: dict[str, Callable[[AugmentConfig], nn.Module]] = {"augment": Augment}
"""What can stand before the encoder, by name: called with the config, gives a module like Augment."""


def register_preprocess(name: str, factory: Callable[[AugmentConfig], nn.Module]) -> None:
    """Make a preprocessing of your own available to ``get_model(preprocess=name)``.

    Its module is called as ``module(images, generator=None)`` and follows ``training``, as Augment does.

    >>> register_preprocess("still", Augment)
    >>> "still" in PREPROCESSES
    True
    >>> _ = PREPROCESSES.pop("still")
    """
    PREPROCESSES[name] = factory


def make_views(images: Tensor, tta: str) -> Iterator[Tensor]:
    """Give images (batch, height, width, channels) as they are and, if ``dihedral``, in all quarter turns and mirrors.

    >>> len(list(make_views(torch.zeros(2, 4, 4, 3), "dihedral")))
    8
    """
    if tta == "none":
        yield images
        return
    for mirrored in (images, images.flip(2)):
        for turns in range(4):
            yield torch.rot90(mirrored, turns, (1, 2))
