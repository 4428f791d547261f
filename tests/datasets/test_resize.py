from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.resize import decode, encode, resize_image, view_image, view_jpeg
from lehrling.datasets.view_spec import Crop, Field, ViewSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def spec(image_px: int, **changes: object) -> ViewSpec:
    values = {"rate_hz": 10.0, "image_px": image_px, "cameras": ("front",), "action": (Field(stream="a"),)}
    return ViewSpec.model_validate(values | changes)


def slow_area(image: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """Repeat every pixel `size` times, then average blocks: the covered area, exactly."""
    side = image.shape[0]
    big = image.repeat(size, axis=0).repeat(size, axis=1).astype(np.float64)
    return np.asarray(big.reshape(size, side, size, side, 3).mean(axis=(1, 3)))


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 40), st.integers(4, 40), st.integers(0, 9))
def test_shrinking_averages_the_area_that_a_pixel_covers(side: int, size: int, seed: int) -> None:
    size = min(size, side)
    image = noise(side, side, seed)
    assert np.abs(resize_image(image, size) - slow_area(image, size)).max() <= 1.01


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 30), st.integers(4, 70), st.integers(0, 255))
def test_an_even_image_stays_even(side: int, size: int, grey: int) -> None:
    image = np.full((side, side, 3), grey, np.uint8)
    assert np.unique(resize_image(image, size)).tolist() == [grey]


def test_enlarging_interpolates_linearly() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1] = 100
    assert resize_image(image, 4, "stretch")[0, :, 0].tolist() == [0, 25, 75, 100]


def test_an_image_of_the_right_size_is_unchanged() -> None:
    image = noise(32, 32)
    assert (resize_image(image, 32) == image).all()


def test_crop_takes_the_centre_and_pad_keeps_everything() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 5:15] = 200
    assert np.unique(resize_image(image, 10)).tolist() == [200]
    padded = resize_image(image, 10, "pad")
    assert padded[:2].max() == 0
    assert padded[3:6, 3:7].min() == 200
    assert padded[8:].max() == 0


def test_a_rectangle_is_cut_first() -> None:
    image = noise(40, 60)
    cut = Crop(top=3, left=7, height=16, width=16)
    assert (resize_image(image, 16, crop=cut) == image[3:19, 7:23]).all()


def test_a_rectangle_beyond_the_image_is_refused() -> None:
    with pytest.raises(InputError, match="within the image of 10 x 10, got one down to row 12 and column 5"):
        resize_image(noise(10, 10), 8, crop=Crop(top=8, left=1, height=4, width=4))


def test_what_is_no_colour_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(h, w, 3\) and uint8, got \(4, 4\) uint8"):
        resize_image(np.zeros((4, 4), np.uint8), 2)


def test_a_jpeg_of_the_right_size_keeps_its_bytes() -> None:
    jpeg = encode(noise(32, 32), 70)
    assert view_jpeg(jpeg, spec(32), "front") == jpeg


def test_a_jpeg_of_another_size_is_resized_like_an_image() -> None:
    jpeg = encode(noise(64, 48), 90)
    stored = view_jpeg(jpeg, spec(32), "front")
    assert stored == view_image(decode(jpeg), spec(32), "front")
    assert decode(stored).shape == (32, 32, 3)


def test_a_jpeg_of_the_right_size_is_still_cut_when_a_rectangle_is_asked_for() -> None:
    jpeg = encode(noise(32, 32), 90)
    crops = {"front": Crop(top=0, left=0, height=16, width=16)}
    stored = view_jpeg(jpeg, spec(32, crops=crops), "front")
    assert stored != jpeg
    assert decode(stored).shape == (32, 32, 3)


def test_bytes_that_are_no_jpeg_are_named_damage() -> None:
    with pytest.raises(DamageError, match="JPEG of camera 'front'"):
        view_jpeg(b"not a jpeg", spec(32), "front")


def test_pixels_are_the_same_on_every_machine() -> None:
    image = (np.arange(37 * 53 * 3) * 7919 % 251).astype(np.uint8).reshape(37, 53, 3)
    digest = hashlib.sha256(resize_image(image, 16).tobytes()).hexdigest()
    assert digest == "ec9b3667f905c68f6bd07e2bf51618a08df8ec15c052763dc2e8d5dec5c61707"
