"""Degradations of images, and the inputs of generators that restore them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from dcgan_jax.data import degradations, images

KEY = jax.random.key(0)


@pytest.fixture
def real():
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.integers(-20, 21, (3, 32, 32, 3)), axis=1) + 128
    return jnp.asarray(smooth.clip(0, 255).astype(np.uint8))


def test_upsample_of_long_sides_equals_pillows_bicubic():
    """Long sides are upsampled in chunks. Pixels are in [64, 192), so that Pillow does not clip."""
    small = np.random.default_rng(0).integers(64, 192, (1, 2050, 6, 3)).astype(np.uint8)
    for pixels in (small, small.transpose(0, 2, 1, 3)):
        large = images.to_uint8(degradations.upsample(images.to_float(pixels), 2))
        size = 2 * pixels.shape[2], 2 * pixels.shape[1]
        expected = PIL.Image.fromarray(pixels[0]).resize(size, PIL.Image.Resampling.BICUBIC)
        assert np.abs(np.int32(large[0]) - np.int32(expected)).max() <= 1


def test_upsample_of_very_long_sides_uses_little_memory():
    """A dense matrix for this side would take 28.8 GB."""
    image = jax.ShapeDtypeStruct((1, 8, 60_000, 1), 'float32')
    compiled = jax.jit(functools.partial(degradations.upsample, scale=2)).lower(image).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**30


@pytest.mark.parametrize('scale', [2, 4, 8])
def test_downsample_and_upsample_equal_pillows_bicubic(real, scale):
    small = images.to_uint8(degradations.downsample(images.to_float(real), scale))
    large = images.to_uint8(degradations.upsample(images.to_float(small), scale))
    for index, picture in enumerate(np.asarray(real)):
        side = 32 // scale
        expected = PIL.Image.fromarray(picture).resize((side, side), PIL.Image.Resampling.BICUBIC)
        assert np.abs(np.int32(small[index]) - np.int32(expected)).max() <= 1
        back = PIL.Image.fromarray(np.asarray(small[index])).resize(
            (32, 32), PIL.Image.Resampling.BICUBIC
        )
        assert np.abs(np.int32(large[index]) - np.int32(back)).max() <= 1


def test_gray_equals_pillows_luma(real, config):
    config.input.kind = 'gray'
    given = degradations.sample_inputs(KEY, config, images.to_float(real))
    for index, picture in enumerate(np.asarray(real)):
        luma = np.asarray(PIL.Image.fromarray(picture).convert('L'), np.int32)
        got = np.int32(images.to_uint8(given[index, ..., :3]))
        assert np.abs(got - luma[..., None]).max() <= 1
    np.testing.assert_array_equal(given[..., 3], 1)


@pytest.mark.parametrize('scale', [2, 4])
def test_low_resolution_inputs_equal_images_resized_by_pillow(real, config, scale):
    """The small image is rounded to 256 levels, like a file; no pixel is known."""
    config.input.update(kind='low_resolution', scale=scale)
    given = np.asarray(degradations.sample_inputs(KEY, config, images.to_float(real)), np.float64)
    np.testing.assert_array_equal(given[..., 3], 1)
    side = 32 // scale
    for picture, got in zip(np.asarray(real), given[..., :3], strict=True):
        small = PIL.Image.fromarray(picture).resize((side, side), PIL.Image.Resampling.BICUBIC)
        large = small.resize((32, 32), PIL.Image.Resampling.BICUBIC)
        # Pillow rounds after each pass, and overshoot amplifies differences of one level.
        assert np.abs((got + 1) * 127.5 - np.asarray(large, np.float64)).max() <= 3
    fractional = degradations.sample_inputs(
        KEY, config, jnp.full((1, 32, 32, 3), 100.3 / 127.5 - 1)
    )
    np.testing.assert_allclose(fractional[..., :3], 100 / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize('mask', degradations.MASKS)
def test_missing_pixels_do_not_affect_the_input(real, config, mask):
    config.input.update(kind='masked', mask=mask)
    given = degradations.sample_inputs(KEY, config, images.to_float(real))
    holes = given[..., 3:]
    assert set(np.unique(holes)) == {0, 1}
    np.testing.assert_array_equal(given[..., :3], images.to_float(real) * (1 - holes))
    others = jnp.where(holes == 1, 255 - real, real)
    np.testing.assert_array_equal(
        degradations.sample_inputs(KEY, config, images.to_float(others)), given
    )


def test_masks_have_the_expected_positions():
    shape = (2000, 8, 8, 3)
    center = degradations.center_mask(KEY, shape, 0.8)[0, ..., 0]
    np.testing.assert_array_equal(
        np.argwhere(center), [(i, j) for i in range(2, 6) for j in range(2, 6)]
    )
    half = degradations.half_mask(KEY, shape, 0.8)[0, ..., 0]
    np.testing.assert_array_equal(half, np.tile([0, 0, 0, 0, 1, 1, 1, 1], (8, 1)))
    pixels = np.asarray(degradations.pixel_mask(KEY, shape, 0.8))
    assert pixels.mean() == pytest.approx(0.8, abs=0.005)
    assert not np.array_equal(pixels[0], pixels[1])


def test_config_selects_the_mask(config):
    """Missing pixels of 8x8: a square of 4x4, the right half, 30%, strokes."""
    config.input.update(kind='masked', mask_ratio=0.3)
    fractions = {}
    for mask in ('center', 'half', 'pixels', 'free_form'):
        config.input.mask = mask
        holes = np.asarray(degradations.sample_inputs(KEY, config, jnp.ones((500, 8, 8, 3))))[
            ..., 3
        ]
        fractions[mask] = holes.mean(axis=(1, 2))
        if mask == 'center':
            assert holes[:, 2:6, 2:6].all()
        elif mask == 'half':
            assert holes[:, :, 4:].all()
    assert set(fractions['center']) == {0.25}
    assert set(fractions['half']) == {0.5}
    # The standard deviation of the mean of 64 Bernoulli pixels is 0.057.
    assert fractions['pixels'].mean() == pytest.approx(0.3, abs=0.01)
    assert fractions['pixels'].std() == pytest.approx(0.057, abs=0.01)
    # The last masks are strokes, in which most pixels have a neighbor in the hole.
    neighbors = sum(np.roll(holes, shift, axis) for shift in (1, -1) for axis in (1, 2))
    assert (neighbors[holes == 1] > 0).mean() > 0.9


def test_free_form_masks_are_distinct_thick_strokes():
    holes = np.asarray(degradations.free_form_mask(KEY, (50, 32, 32, 3), 0.8))
    fractions = holes.mean(axis=(1, 2, 3))
    assert 0.05 < fractions.min() < fractions.max() < 0.8
    assert len({hole.tobytes() for hole in holes}) == 50
    # Most pixels of a thick stroke have a neighbor in the hole.
    neighbors = sum(np.roll(holes, shift, axis) for shift in (1, -1) for axis in (1, 2))
    assert (neighbors[holes == 1] > 0).mean() > 0.95


@pytest.mark.parametrize('kind', degradations.KINDS[1:])
def test_degraded_image_equals_the_known_input(real, config, kind):
    config.input.kind = kind
    images_ = images.to_float(real)
    given = degradations.sample_inputs(KEY, config, images_)
    known = degradations.degrade(config, images_, given)
    np.testing.assert_allclose(known, given[..., :-1], atol=2 / 255)
    gradient = jax.grad(lambda x: jnp.sum(degradations.degrade(config, x, given) ** 2))(images_)
    assert float(jnp.abs(gradient).max()) > 0, 'rounding would stop gradients'


def test_latents_are_standard_normal(config):
    config.latent_dim = 5
    given = np.asarray(
        degradations.sample_inputs(KEY, config, jnp.zeros((4000, 2, 2, 3))), np.float64
    )
    assert given.shape == (4000, 5)
    # Test the first four moments of N(0, 1), and that coordinates are uncorrelated.
    for power, moment in enumerate([0, 1, 0, 3], start=1):
        assert np.mean(given**power) == pytest.approx(moment, abs=0.25 if power == 4 else 0.1)
    np.testing.assert_allclose(np.cov(given, rowvar=False), np.eye(5), atol=0.1)
