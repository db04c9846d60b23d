import numpy as np
import pytest
from PIL import Image

from dcgan_jax.data import images


def test_to_float_and_to_uint8_round_trip():
    pixels = np.arange(256, dtype=np.uint8)
    floats = np.asarray(images.to_float(pixels))
    np.testing.assert_allclose(floats, pixels / 127.5 - 1.0, atol=1e-6)
    assert floats.min() == -1.0
    assert floats.max() == 1.0
    np.testing.assert_array_equal(images.to_uint8(floats), pixels)


def test_to_uint8_clips():
    np.testing.assert_array_equal(images.to_uint8(np.float32([-7.0, 7.0])), [0, 255])


def test_grid_places_images_row_by_row_on_white():
    pictures = np.stack([np.full((2, 3, 1), value, np.uint8) for value in (10, 20, 30)])
    expected = np.full((1 + 2 * 3, 1 + 2 * 4, 1), 255, np.uint8)
    expected[1:3, 1:4], expected[1:3, 5:8], expected[4:6, 1:4] = 10, 20, 30
    np.testing.assert_array_equal(images.grid(pictures, columns=2, gap=1), expected)


def test_write_png_round_trips_color_and_gray(tmp_path):
    for channels in (1, 3):
        picture = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
        path = images.write_png(tmp_path / 'new' / f'{channels}.png', picture)
        read = np.asarray(Image.open(path)).reshape(5, 7, channels)
        np.testing.assert_array_equal(read, picture)
    assert [p.suffix for p in (tmp_path / 'new').iterdir()] == ['.png', '.png']


def lanczos_weights(size, new):
    """Return weights [new, size] of the Lanczos kernel sinc(x) sinc(x / 3), scaled by the ratio."""
    ratio = size / new
    offsets = (np.arange(size) + 0.5)[None] - ((np.arange(new) + 0.5) * ratio)[:, None]
    x = offsets / max(ratio, 1.0)
    weights = np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize(('side', 'size'), [(178, 64), (96, 32), (20, 33)])
def test_center_crop_equals_a_numpy_lanczos_filter(side, size, channels):
    rng = np.random.default_rng(0)
    image = np.repeat(np.repeat(rng.integers(0, 256, (20, 20, channels)), 9, 0), 9, 1)
    image = image[:side, :side].astype(np.uint8)
    weights = lanczos_weights(side, size)
    expected = np.einsum('iy,jx,yxc->ijc', weights, weights, image.astype(float))
    found = images.center_crop(image, size)
    assert (found.dtype, found.shape) == (np.uint8, (size, size, channels))
    # Pillow rounds and clips between its two passes.
    within = np.abs(found - np.clip(expected, 0, 255)) <= 2
    assert within.mean() > 0.97


@pytest.mark.parametrize(
    ('shape', 'rows', 'columns'),
    [
        ((5, 9, 3), slice(0, 5), slice(2, 7)),
        ((8, 5, 1), slice(1, 6), slice(0, 5)),
        ((5, 5, 4), slice(0, 5), slice(0, 5)),
    ],
)
def test_center_crop_to_the_shorter_side_does_not_resize(shape, rows, columns):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(images.center_crop(image, 5), image[rows, columns])
