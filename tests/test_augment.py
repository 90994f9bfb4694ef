"""Laws of the augmentation: where pixels go, what is left unchanged, what is random."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoobot.errors import ModelError, SettingError
from zoobot.estimators.augment import Augment, AugmentConfig, warp

STILL = {"rotate": False, "flip": False, "move": 0.0}


def make_augment(input_size: int, crop_size: int, resize_size: int, **settings: object) -> Augment:
    config = AugmentConfig(input_size=input_size, crop_size=crop_size, resize_size=resize_size, **settings)  # type: ignore[arg-type]
    return Augment(config)


def random_images(side: int, count: int = 3, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, side, side, channels), generator=generator, dtype=torch.uint8)


def smooth_images(side: int, count: int = 2) -> Tensor:
    """Float (count, 1, side, side), varying over many pixels, without any symmetry."""
    steps = torch.arange(side) / side
    return torch.stack(
        [torch.sin(5 * steps[:, None] + index) + torch.cos(4 * steps) * steps for index in range(count)]
    )[:, None]


def blob(side: int, x: float, y: float, width: float) -> Tensor:
    """A float image (1, side, side, 1) of a round Gaussian; pixel centres lie at whole numbers."""
    steps = torch.arange(side)
    profile = torch.exp(-((steps - x) ** 2 + (steps[:, None] - y) ** 2) / (2 * width**2))
    return profile[None, :, :, None]


def centroid(pixels: Tensor) -> tuple[float, float]:
    """Mean position of the light of (side, side), in units of the image's side, from -1/2 to 1/2."""
    side = pixels.shape[-1]
    steps = (torch.arange(side) + 0.5) / side - 0.5
    light = pixels.double()
    return (float((light * steps).sum() / light.sum()), float((light * steps[:, None]).sum() / light.sum()))


def turn(degrees: float, count: int = 2) -> Tensor:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[cosine, -sine], [sine, cosine]]).expand(count, 2, 2)


@pytest.mark.parametrize(("side", "crop"), [(20, 20), (20, 12), (21, 13)])
def test_centre_crop_is_a_slice(side: int, crop: int) -> None:
    from torchvision.transforms.v2.functional import center_crop

    images = random_images(side)
    expected = center_crop(images.permute(0, 3, 1, 2), [crop, crop]).float() / 255
    got = make_augment(side, crop, crop).eval()(images)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-7)
    as_floats = make_augment(side, crop, crop).eval()(images / 255)
    assert torch.equal(as_floats, expected)
    no_variation = make_augment(side, crop, crop, **STILL).train()(images / 255)
    assert torch.equal(no_variation, expected)


def test_the_warp_of_a_whole_image_is_that_image() -> None:
    pixels = random_images(17).permute(0, 3, 1, 2) / 255
    identity, centre = torch.eye(2).expand(3, 2, 2), torch.zeros(3, 2)
    torch.testing.assert_close(warp(pixels, identity, centre, 17), pixels, rtol=0, atol=1e-5)


def test_a_crop_off_by_half_a_pixel_averages_neighbours() -> None:
    pixels = random_images(9).permute(0, 3, 1, 2) / 255
    got = make_augment(9, 6, 6).eval()(pixels.permute(0, 2, 3, 1))
    expected = F.avg_pool2d(pixels, 2, stride=1)[..., 1:7, 1:7]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [16, 17])
def test_flips_and_quarter_turns_are_exact(side: int) -> None:
    pixels = random_images(side).permute(0, 3, 1, 2) / 255
    centre = torch.zeros(3, 2)
    for axis, matrix in ((3, [[-1.0, 0.0], [0.0, 1.0]]), (2, [[1.0, 0.0], [0.0, -1.0]])):
        got = warp(pixels, torch.tensor(matrix).expand(3, 2, 2), centre, side)
        torch.testing.assert_close(got, pixels.flip(axis), rtol=0, atol=1e-5)
    for quarters in range(4):
        got = warp(pixels, turn(90 * quarters, 3), centre, side)
        torch.testing.assert_close(got, pixels.rot90(quarters, (2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("degrees", [13.0, 45.0, 201.5])
def test_rotation_agrees_with_torchvision(degrees: float) -> None:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import rotate

    pixels = smooth_images(41)
    got = warp(pixels, turn(degrees), torch.zeros(2, 2), 41)
    expected = rotate(pixels, degrees, interpolation=InterpolationMode.BILINEAR)
    steps = torch.arange(41) - 20
    interior = (steps**2 + steps[:, None] ** 2) < 19**2
    torch.testing.assert_close(got[..., interior], expected[..., interior], rtol=0, atol=1e-4)


def test_shift_and_scale_agree_with_torchvision() -> None:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import affine

    pixels = smooth_images(40)
    got = warp(pixels, turn(30) / 1.25, torch.zeros(2, 2), 40)
    expected = affine(
        pixels,
        angle=-30.0,
        translate=[0, 0],
        scale=1.25,
        shear=[0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    torch.testing.assert_close(got[..., 8:32, 8:32], expected[..., 8:32, 8:32], rtol=0, atol=1e-4)
    moved = warp(pixels, turn(0), torch.tensor([[6.0, -4.0]] * 2) / 40, 40)  # 3 and -2 pixels
    torch.testing.assert_close(moved[..., 2:, :37], pixels[..., :38, 3:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("resize", [24, 25, 31, 48])
def test_enlarging_agrees_with_torchvision(resize: int) -> None:
    from torchvision.transforms.v2.functional import resize as torchvision_resize

    pixels = random_images(24).permute(0, 3, 1, 2) / 255
    got = make_augment(24, 24, resize).eval()(pixels.permute(0, 2, 3, 1))
    expected = torchvision_resize(pixels, [resize, resize], antialias=False)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side", "resize"), [(24, 12), (24, 8), (30, 6)])
def test_shrinking_by_a_whole_factor_averages_areas(side: int, resize: int) -> None:
    images = random_images(side)
    expected = F.avg_pool2d(images.permute(0, 3, 1, 2) / 255, side // resize)
    got = make_augment(side, side, resize).eval()(images)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [64, 65, 67])
@pytest.mark.parametrize("resize", [64, 45, 31, 30, 21, 16])
def test_positions_are_kept_at_any_size(side: int, resize: int) -> None:
    x, y = (side - 1) / 2 + 3.25, (side - 1) / 2 - 1.5
    crop = side - 8
    got = make_augment(side, crop, resize, channels=1).eval()(blob(side, x, y, width=4.0))
    # Within a twentieth of an input pixel; a half-pixel convention gone wrong is ten times that.
    assert centroid(got[0, 0]) == pytest.approx((3.25 / crop, -1.5 / crop), abs=0.05 / crop)


def test_rotation_and_flips_leave_a_round_galaxy_alone() -> None:
    images = blob(61, 30, 30, width=6.0).expand(16, -1, -1, -1)
    augment = make_augment(61, 45, 45, channels=1, move=0.0).train()
    still = augment.eval()(images)
    varied = augment.train()(images, torch.Generator().manual_seed(1))
    torch.testing.assert_close(varied, still, rtol=0, atol=7e-3)  # 2 × (1/8) × curvature 1/6²


def test_every_angle_is_drawn() -> None:
    images = blob(41, 27, 20, width=2.0).expand(400, -1, -1, -1)  # a spot to the right of the centre
    varied = make_augment(41, 41, 41, channels=1, move=0.0)(images, torch.Generator().manual_seed(0))
    angles = np.array([math.atan2(y, x) for x, y in map(centroid, varied[:, 0])])
    counts = np.histogram(angles, bins=8, range=(-math.pi, math.pi))[0]
    assert (counts > 25).all()  # 50 expected; 25 is 3.8 standard deviations fewer
    radii = [math.hypot(*centroid(image)) for image in varied[:, 0]]
    np.testing.assert_allclose(radii, 7 / 41, atol=1e-3)


def test_every_flip_is_drawn() -> None:
    images = blob(41, 27, 24, width=2.0).expand(100, -1, -1, -1)
    flipped = make_augment(41, 41, 41, channels=1, move=0.0, rotate=False)(images, torch.Generator().manual_seed(0))
    places = {(round(41 * x), round(41 * y)) for x, y in map(centroid, flipped[:, 0])}
    assert places == {(7, 4), (-7, 4), (7, -4), (-7, -4)}


def test_crop_positions_reach_the_edges_and_no_further() -> None:
    images = blob(60, 29.5, 29.5, width=1.5).expand(300, -1, -1, -1)
    augment = make_augment(60, 40, 40, channels=1, rotate=False, flip=False)
    places = np.array([centroid(image) for image in augment(images, torch.Generator().manual_seed(0))[:, 0]])
    pixels = places * 40
    assert np.abs(pixels).max() < 10.05
    assert (pixels.max(0) > 9).all()
    assert (pixels.min(0) < -9).all()
    np.testing.assert_allclose(pixels.std(0), 20 / math.sqrt(12), rtol=0.12)


def test_zoom_magnifies_within_its_range() -> None:
    images = blob(80, 39.5, 39.5, width=4.0).expand(100, -1, -1, -1)
    light = make_augment(80, 60, 60, channels=1, zoom=(0.5, 2.0), **STILL)(
        images, torch.Generator().manual_seed(0)
    ).sum((1, 2, 3))
    zoom = (light / images[0].sum()).sqrt()
    assert 0.49 < zoom.min() < 0.6
    assert 1.7 < zoom.max() < 2.01
    assert zoom.log2().mean().abs() < 0.2  # as often in as out


def test_edges_are_reflected() -> None:
    images = torch.full((8, 20, 20, 3), 200, dtype=torch.uint8)
    varied = make_augment(20, 20, 16)(images, torch.Generator().manual_seed(0))
    torch.testing.assert_close(varied, torch.full_like(varied, 200 / 255), rtol=0, atol=1e-5)


def test_the_generator_decides() -> None:
    images = random_images(24, count=20)
    augment = make_augment(24, 18, 16, zoom=(0.9, 1.1)).train()
    first, second = (augment(images, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(images, torch.Generator().manual_seed(8)))
    torch.manual_seed(3)
    default = augment(images)
    torch.manual_seed(3)
    assert torch.equal(default, augment(images))
    assert not torch.equal(default[0], default[1])
    augment.eval()
    assert torch.equal(augment(images), augment(images, torch.Generator().manual_seed(8)))


def test_switching_one_variation_off_leaves_the_others() -> None:
    images = random_images(24, count=4)
    settings = {"rotate": False, "flip": True, "move": 0.0}
    flips = make_augment(24, 24, 24, **settings)(images, torch.Generator().manual_seed(0))
    zoomed = make_augment(24, 24, 24, zoom=(1.0, 1.0 + 1e-7), **settings)
    torch.testing.assert_close(flips, zoomed(images, torch.Generator().manual_seed(0)), rtol=0, atol=1e-4)


def test_normalisation_is_part_of_the_module() -> None:
    images = random_images(12)
    plain = make_augment(12, 12, 9).eval()(images)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalised = make_augment(12, 12, 9, mean=mean, std=std).eval()(images)
    expected = (plain - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normalised, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 19])
def test_output_is_float32_and_channels_last(count: int) -> None:
    augment = make_augment(20, 15, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = augment(random_images(20, count=count))
    assert got.dtype == torch.float32
    assert got.shape == (count, 3, 8, 8)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_autocast_and_reduced_precision_do_not_move_pixels() -> None:
    images = random_images(32, count=4)
    augment = make_augment(32, 24, 24)
    expected = augment(images, torch.Generator().manual_seed(0))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = augment(images, torch.Generator().manual_seed(0))
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(got, expected)


def test_results_do_not_depend_on_the_batch() -> None:
    images = random_images(30, count=21)
    augment = make_augment(30, 22, 16).eval()
    whole = augment(images)
    alone = torch.cat([augment(image[None]) for image in images])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-6)


def test_gradients_reach_float_pixels() -> None:
    pixels = torch.rand(2, 8, 8, 1, dtype=torch.float32, requires_grad=True)
    make_augment(8, 8, 4, channels=1).eval()(pixels).sum().backward()
    assert pixels.grad is not None
    torch.testing.assert_close(pixels.grad, torch.full_like(pixels, 0.25))


def test_wrong_images_are_refused() -> None:
    augment = make_augment(20, 15, 8)
    for images in (
        torch.zeros(2, 3, 20, 20, dtype=torch.uint8),
        torch.zeros(2, 20, 20, 1, dtype=torch.uint8),
        torch.zeros(2, 21, 21, 3, dtype=torch.uint8),
        torch.zeros(2, 20, 20, 3, dtype=torch.int64),
        torch.zeros(20, 20, 3, dtype=torch.uint8),
    ):
        with pytest.raises(ModelError, match=r"images: got .*expected uint8 .*\(batch, 20, 20, 3\)"):
            augment(images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_size": 21}, "crop_size: got 21, expected at most input_size, 20"),
        ({"resize_size": 0}, "resize_size: got 0, expected a whole number"),
        ({"input_size": True}, "input_size: got True"),
        ({"channels": 0}, "channels: got 0"),
        ({"rotate": 1}, "rotate: got 1, expected True or False"),
        ({"zoom": (1.2, 0.9)}, "zoom: got"),
        ({"zoom": (0.0, 1.0)}, "zoom: got"),
        ({"zoom": 1.2}, "zoom: got"),
        ({"mean": (0.1, 0.2)}, "mean: got"),
        ({"std": (0.0,)}, "std: got .*above 0"),
        ({"std": ()}, "std: got"),
        ({"mean": (math.nan,)}, "mean: got"),
        ({"mean": (10**400,)}, "mean: got"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    right = AugmentConfig(input_size=20, crop_size=15, resize_size=8)
    with pytest.raises(SettingError, match=message):
        dataclasses.replace(right, **settings)  # type: ignore[arg-type]


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(SettingError, match=r"resize_size.*\n.*zoom"):
        AugmentConfig(input_size=20, crop_size=15, resize_size=-1, zoom=(2.0, 1.0))
