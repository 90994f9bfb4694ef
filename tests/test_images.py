"""Images: every mode, every fault, and what resizing must keep."""

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from PIL import Image

from zoobot.data import images
from zoobot.errors import ImageError, SettingError

Pixels = NDArray[np.uint8]


def smooth(height: int = 40, width: int = 40) -> Pixels:
    """A coloured blob: every channel differs, and JPEG keeps it well."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(3 * x + y), np.cos(2 * x - 3 * y), np.sin(5 * x * y + 1)]
    return (127.5 + 120 * np.stack(waves, axis=2)).astype(np.uint8)


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def raw_png(samples: NDArray[np.generic], colour_type: int, extra: bytes = b"") -> bytes:
    """A PNG by hand, of 8 or 16 bits, since Pillow cannot write colour in 16."""
    height, width = samples.shape[:2]
    depth = samples.dtype.itemsize * 8
    rows = b"".join(b"\0" + row.astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def decode(content: bytes, **options: Any) -> NDArray[np.int64]:
    pixels = images.decode_image(content, name="a galaxy", **options)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    return pixels.astype(np.int64)


def luma(rgb: NDArray[np.integer]) -> NDArray[np.float64]:
    return np.asarray(rgb @ np.array([0.299, 0.587, 0.114]))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_of_every_mode_is_what_pillow_sees(mode: str) -> None:
    image = Image.fromarray(smooth()).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode(encoded(image)), expected)
    assert np.abs(decode(encoded(image), channels=1)[..., 0] - luma(expected)).max() <= 0.51


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_of_every_mode_is_what_pillow_sees(mode: str, progressive: bool) -> None:
    content = encoded(Image.fromarray(smooth()).convert(mode), "JPEG", progressive=progressive)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.int64)
    assert np.abs(decode(content) - expected).max() <= 1
    assert np.abs(decode(content, channels=1)[..., 0] - luma(expected)).max() <= 1.51


@pytest.mark.parametrize(("colour_type", "shape"), [(0, (256, 256)), (2, (128, 128, 4)), (6, (128, 128, 4))])
def test_16_bits_are_divided_by_257_and_rounded(colour_type: int, shape: tuple[int, ...]) -> None:
    samples = np.arange(65536, dtype=np.uint16).reshape(shape)
    if colour_type == 2:
        samples = samples[..., :3]
    if colour_type == 6:
        samples[..., 3] = 65535
    expected = np.rint(samples / 257)
    pixels = decode(raw_png(samples, colour_type))
    assert np.array_equal(pixels, expected[..., :3] if colour_type else np.dstack([expected] * 3))


def test_16_bit_grey_with_alpha_is_within_a_level() -> None:
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = decode(raw_png(np.dstack([grey, np.full_like(grey, 65535)]), 4), channels=1)
    assert np.abs(pixels[..., 0] - grey / 257).max() <= 1


def test_transparency_is_laid_on_black() -> None:
    rgb = smooth()
    alpha = np.linspace(0, 255, 1600).reshape(40, 40, 1).astype(np.uint8)
    pixels = decode(encoded(Image.fromarray(np.concatenate([rgb, alpha], axis=2))))
    assert np.array_equal(pixels, np.rint(rgb * (alpha / 255)))


def test_a_transparent_colour_and_palette_entry_are_black() -> None:
    rgb = np.full((4, 4, 3), 200, np.uint8)
    rgb[0, 0] = 10, 20, 30
    keyed = decode(raw_png(rgb, 2, extra=chunk(b"tRNS", struct.pack(">HHH", 200, 200, 200))))
    assert keyed[0, 0].tolist() == [10, 20, 30]
    assert keyed[1:].max() == 0
    palette = Image.fromarray(rgb).quantize(2)
    entry = palette.getpixel((3, 3))
    assert np.array_equal(decode(encoded(palette, transparency=entry)), keyed)


def test_fast_and_slow_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = np.dstack([smooth(), smooth()[..., 0]])
    contents = [encoded(Image.fromarray(pixels)) for pixels in (rgba, rgba[..., :3], rgba[..., 0])]
    fast = [decode(content, size=17) for content in contents]
    monkeypatch.setattr(images, "_PNG_MODES", {})
    for content, pixels in zip(contents, fast, strict=True):
        assert np.abs(decode(content, size=17) - pixels).max() <= 1


def test_interlaced_png() -> None:
    pixels = np.array([[[7, 8, 9]]], np.uint8)  # of one pixel, Adam7 has only its first pass
    content = raw_png(pixels, 2)
    header = content[16:28] + b"\1"
    assert np.array_equal(decode(content[:8] + chunk(b"IHDR", header) + content[33:]), pixels)


@pytest.mark.parametrize("shape", [(40, 40), (40, 61), (61, 40), (1, 9)])
def test_crop_keeps_the_centre_and_pad_keeps_all(shape: tuple[int, int]) -> None:
    rgb = smooth(*shape)
    content = encoded(Image.fromarray(rgb))
    short, long = min(shape), max(shape)
    top, left = (shape[0] - short) // 2, (shape[1] - short) // 2
    assert np.array_equal(decode(content), rgb[top : top + short, left : left + short])
    padded = decode(content, fit="pad")
    assert padded.shape == (long, long, 3)
    assert padded.sum() == rgb.sum()
    top, left = (long - shape[0]) // 2, (long - shape[1]) // 2
    assert np.array_equal(padded[top : top + shape[0], left : left + shape[1]], rgb)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [1, 7, 20, 39, 40, 41, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_keeps_a_flat_image_and_the_mean(file_format: str, size: int, channels: int) -> None:
    flat = encoded(Image.new("RGB", (40, 40), (90, 90, 90)), file_format)
    assert np.array_equal(decode(flat, size=size, channels=channels), np.full((size, size, channels), 90))
    pixels = decode(encoded(Image.fromarray(smooth()), file_format, quality=95), size=size)
    assert np.abs(pixels.mean((0, 1)) - smooth().mean((0, 1))).max() < 2.5


@pytest.mark.parametrize("size", [300, 225, 128, 64])
def test_resizing_suppresses_what_the_result_cannot_hold(size: int) -> None:
    """Stripes above the new Nyquist frequency: plain interpolation leaves most of their RMS of 90."""
    x = np.arange(424)
    stripes = 127.5 + 127.5 * np.cos(2 * np.pi * 0.47 * x)
    content = encoded(Image.fromarray(np.tile(stripes.astype(np.uint8), (424, 1))))
    assert decode(content, size=size).std() < 25
    slow = 127.5 + 127.5 * np.cos(2 * np.pi * x / 106)
    content = encoded(Image.fromarray(np.tile(slow.astype(np.uint8), (424, 1))))
    assert decode(content, size=size).std() > 85


def test_resizing_does_not_shift() -> None:
    rgb = smooth(50, 50)
    for size in (13, 25, 33, 70):
        straight = decode(encoded(Image.fromarray(rgb)), size=size)
        turned = decode(encoded(Image.fromarray(rgb[::-1, ::-1])), size=size)
        assert np.abs(straight - turned[::-1, ::-1]).max() <= 1


def test_jpeg_at_reduced_scale_is_close_to_the_whole(shared_data: Path) -> None:
    for path in sorted((shared_data / "gz2_kaggle/images").iterdir())[:5]:
        whole = Image.open(path).resize((128, 128), Image.Resampling.LANCZOS)
        difference = images.read_image(path, size=128) - np.asarray(whole, np.float64)
        assert np.sqrt(np.mean(difference**2)) < 2


@pytest.mark.parametrize("channels", [1, 3])
def test_encode_then_decode(channels: int) -> None:
    pixels = smooth(30, 30)[..., :channels]
    png = images.encode_image(pixels, "png")
    assert np.array_equal(decode(png, channels=channels), pixels)
    jpeg = images.encode_image(pixels, "jpeg")
    assert jpeg == images.encode_image(pixels, "jpeg")
    assert np.abs(decode(jpeg, channels=channels) - pixels).max() < 8
    assert len(images.encode_image(pixels, "jpeg", quality=20)) < len(jpeg)


@pytest.mark.parametrize("mode", ["RGB", "P", "CMYK"])
def test_every_truncation_is_an_error(mode: str) -> None:
    file_format = "JPEG" if mode == "CMYK" else "PNG"
    content = encoded(Image.fromarray(smooth()).convert(mode), file_format)
    for end in range(0, len(content) - 8, 7):
        with pytest.raises(ImageError, match=r"cannot read image a galaxy: ."):
            decode(content[:end])


def test_a_truncated_jpeg_is_an_error_and_trailing_bytes_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    content = encoded(Image.fromarray(smooth()), "JPEG")
    for end in (2, 100, len(content) // 2, len(content) - 2):
        for size in (None, 10):
            with pytest.raises(ImageError, match=r"cannot read image a galaxy: ."):
                decode(content[:end], size=size)
    assert np.array_equal(decode(content + b"\0" * 50), decode(content))
    assert capfd.readouterr().err == ""


def test_damage_within_a_png_is_an_error() -> None:
    content = bytearray(encoded(Image.fromarray(smooth())))
    content[len(content) // 2] ^= 4
    with pytest.raises(ImageError):
        decode(bytes(content))


def test_too_many_pixels_are_refused_by_the_header() -> None:
    content = raw_png(np.zeros((1, 1), np.uint8), 0)
    bomb = content[:16] + struct.pack(">II", 100_000, 100_000) + content[24:]
    with pytest.raises(ImageError, match="more than the 67108864"):
        decode(bomb)
    with pytest.raises(ImageError, match="more than the 67108864"):
        decode(raw_png(np.zeros((1, 10_000), np.uint8), 0), fit="pad")


def test_files_that_are_no_images(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("hello")
    empty = tmp_path / "empty.png"
    empty.touch()
    for path, reason in [
        (text, "neither PNG nor JPEG, it begins with b'hello'"),
        (empty, "it is empty"),
        (tmp_path, "a folder, a pipe or a device"),
        (tmp_path / "missing.png", "No such file"),
    ]:
        with pytest.raises(ImageError, match=reason) as raised:
            images.read_image(path)
        assert str(raised.value).startswith(f"cannot read image {path}: ")


def test_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "jpeg.png"
    path.write_bytes(encoded(Image.fromarray(smooth()), "JPEG"))
    assert images.read_image(str(path), size=8).shape == (8, 8, 3)


def test_threads_read_the_same() -> None:
    contents = [encoded(Image.fromarray(smooth(50 + i, 60)), ("PNG", "JPEG")[i % 2]) for i in range(20)]
    alone = [decode(content, size=31) for content in contents]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda content: decode(content, size=31), contents * 5))
    assert all(np.array_equal(alone[i % 20], pixels) for i, pixels in enumerate(together))


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 10**6}, {"channels": 2}, {"fit": "stretch"}])
def test_settings_outside_what_they_may_be(options: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=f"{next(iter(options))}: got .*, expected"):
        decode(encoded(Image.new("L", (2, 2))), **options)


def test_encode_settings_outside_what_they_may_be() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(SettingError, match="encoding: got 'gif'"):
        images.encode_image(pixels, "gif")
    with pytest.raises(SettingError, match="quality: got 0"):
        images.encode_image(pixels, "jpeg", quality=0)
    with pytest.raises(SettingError, match="pixels: got uint8 of shape"):
        images.encode_image(pixels[..., 0], "png")


def test_find_images(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.JPEG", "c.png", "notes.txt", ".hidden.png", "deep/d.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for file_format in ("jpg", "jpeg", "JPG"):
        assert images.find_images(tmp_path, file_format) == [tmp_path / "a.JPEG", tmp_path / "b.jpg"]
    assert images.find_images(str(tmp_path), "png") == [tmp_path / "c.png"]
    assert images.find_images(tmp_path / "deep") == [tmp_path / "deep/d.PNG"]
    assert [path.name for path in images.find_images(tmp_path, "any")] == ["a.JPEG", "b.jpg", "c.png"]
    with pytest.raises(SettingError, match="has 1 png, 2 jpg: choose with file_format"):
        images.find_images(tmp_path)
    assert images.find_images(tmp_path, "png", recursive=True) == [
        tmp_path / "c.png",
        tmp_path / "deep/d.PNG",
    ]


def test_find_images_of_every_kind_of_fits(tmp_path: Path) -> None:
    for name in ("d.fits", "c.FIT", "b.fits.gz", "a.fits.fz", "e.gz", "f.fz", "table.csv", ".g.fits"):
        (tmp_path / name).touch()
    names = [path.name for path in images.find_images(tmp_path, "fits")]
    assert names == ["a.fits.fz", "b.fits.gz", "c.FIT", "d.fits"]
    (tmp_path / "deep").mkdir()
    with pytest.raises(
        ImageError, match=r"expected files with \.fits or \.fit or \.fits\.gz or \.fits\.fz, found no files"
    ):
        images.find_images(tmp_path / "deep", "fits")


def test_fits_under_another_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "really_fits.png"
    fits.writeto(path, np.arange(16, dtype=np.float32).reshape(4, 4) + 1)
    assert images.read_image(path, size=3, channels=1).shape == (3, 3, 1)
    with pytest.raises(ImageError, match="neither PNG nor JPEG, it begins with b'SIMPLE"):
        decode(path.read_bytes())


def test_find_images_says_what_is_there_instead(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.fits").touch()
    with pytest.raises(ImageError, match=r"expected files with \.png, found 1 with \.fits; it has folders"):
        images.find_images(tmp_path, "png")
    with pytest.raises(ImageError, match=r"found no files$"):
        images.find_images(tmp_path / "deep", "jpg")
    with pytest.raises(ImageError, match=r"cannot read folder .*absent: No such file"):
        images.find_images(tmp_path / "absent", "png")
    with pytest.raises(ImageError, match=r"cannot read folder .*: Not a directory"):
        images.find_images(tmp_path / "a.fits", "png")
    with pytest.raises(SettingError, match="file_format: got 'gif', expected one of auto, any, png, jpg"):
        images.find_images(tmp_path, "gif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="a pipe or a device"):
        images.read_image(tmp_path / "pipe.png")


def test_a_progressive_jpeg_with_a_thousand_scans_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "jpeg", progressive=True)
    encoded = buffer.getvalue()
    scan = encoded[encoded.rfind(b"\xff\xda") : -2]
    assert images.decode_image(encoded, name="a").shape == (64, 64, 3)
    with pytest.raises(ImageError, match="more than 100 scans"):
        images.decode_image(encoded[:-2] + 1000 * scan + encoded[-2:], name="a")


def test_every_reason_says_something() -> None:
    palette = io.BytesIO()
    Image.new("P", (4, 4)).save(palette, "png")
    for broken in (palette.getvalue().replace(b"PLTE", b"PLTX"), b"\x89PNG\r\n\x1a\n" + bytes(40)):
        with pytest.raises(ImageError, match=r"cannot read image a: [^<]+$"):
            images.decode_image(broken, name="a")
