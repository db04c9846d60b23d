"""What is taken from images, and that G sees no more than that."""

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


@pytest.mark.parametrize('scale', [2, 4, 8])
def test_low_resolution_is_pillows_bicubic_both_ways(real, scale):
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


def test_gray_is_pillows_luma(real, config):
    config.input.kind = 'gray'
    given = degradations.sample_inputs(KEY, config, images.to_float(real))
    for index, picture in enumerate(np.asarray(real)):
        luma = np.asarray(PIL.Image.fromarray(picture).convert('L'), np.int32)
        got = np.int32(images.to_uint8(given[index, ..., :3]))
        assert np.abs(got - luma[..., None]).max() <= 1
    np.testing.assert_array_equal(given[..., 3], 1)


@pytest.mark.parametrize('scale', [2, 4])
def test_low_resolution_inputs_are_small_pictures_enlarged_by_pillow(real, config, scale):
    """Rounded to 256 levels while small, as a file is; all of the result may change."""
    config.input.update(kind='low_resolution', scale=scale)
    given = np.asarray(degradations.sample_inputs(KEY, config, images.to_float(real)), np.float64)
    np.testing.assert_array_equal(given[..., 3], 1)
    side = 32 // scale
    for picture, got in zip(np.asarray(real), given[..., :3], strict=True):
        small = PIL.Image.fromarray(picture).resize((side, side), PIL.Image.Resampling.BICUBIC)
        large = small.resize((32, 32), PIL.Image.Resampling.BICUBIC)
        # Pillow rounds after each pass, whose overshoot enlarges a difference of one level.
        assert np.abs((got + 1) * 127.5 - np.asarray(large, np.float64)).max() <= 3
    between = degradations.sample_inputs(KEY, config, jnp.full((1, 32, 32, 3), 100.3 / 127.5 - 1))
    np.testing.assert_allclose(between[..., :3], 100 / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize('mask', degradations.MASKS)
def test_what_is_missing_can_not_be_seen(real, config, mask):
    config.input.update(kind='masked', mask=mask)
    given = degradations.sample_inputs(KEY, config, images.to_float(real))
    holes = given[..., 3:]
    assert set(np.unique(holes)) == {0, 1}
    np.testing.assert_array_equal(given[..., :3], images.to_float(real) * (1 - holes))
    others = jnp.where(holes == 1, 255 - real, real)
    np.testing.assert_array_equal(
        degradations.sample_inputs(KEY, config, images.to_float(others)), given
    )


def test_holes_are_where_they_should_be():
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


def test_masks_by_name_are_those_of_the_run(config):
    """Shares that are missing, of 8x8 pixels: a square of 4x4, the right half, 30%, strokes."""
    config.input.update(kind='masked', mask_ratio=0.3)
    shares = {}
    for mask in ('center', 'half', 'pixels', 'free_form'):
        config.input.mask = mask
        holes = np.asarray(degradations.sample_inputs(KEY, config, jnp.ones((500, 8, 8, 3))))[
            ..., 3
        ]
        shares[mask] = holes.mean(axis=(1, 2))
        if mask == 'center':
            assert holes[:, 2:6, 2:6].all()
        elif mask == 'half':
            assert holes[:, :, 4:].all()
    assert set(shares['center']) == {0.25}
    assert set(shares['half']) == {0.5}
    # Binomial of 64 pixels: a standard deviation of 0.057.
    assert shares['pixels'].mean() == pytest.approx(0.3, abs=0.01)
    assert shares['pixels'].std() == pytest.approx(0.057, abs=0.01)
    # The last holes are those of strokes, whose pixels have others beside them.
    beside = sum(np.roll(holes, shift, axis) for shift in (1, -1) for axis in (1, 2))
    assert (beside[holes == 1] > 0).mean() > 0.9


def test_strokes_are_thick_lines_that_differ():
    holes = np.asarray(degradations.free_form_mask(KEY, (50, 32, 32, 3), 0.8))
    shares = holes.mean(axis=(1, 2, 3))
    assert 0.05 < shares.min() < shares.max() < 0.8
    assert len({hole.tobytes() for hole in holes}) == 50
    # Thick: a pixel of a hole has another beside it.
    neighbors = sum(np.roll(holes, shift, axis) for shift in (1, -1) for axis in (1, 2))
    assert (neighbors[holes == 1] > 0).mean() > 0.95


@pytest.mark.parametrize('kind', degradations.KINDS[1:])
def test_the_known_part_of_the_image_itself_is_what_was_given(real, config, kind):
    config.input.kind = kind
    images_ = images.to_float(real)
    given = degradations.sample_inputs(KEY, config, images_)
    known = degradations.degrade(config, images_, given)
    np.testing.assert_allclose(known, given[..., :-1], atol=2 / 255)
    gradient = jax.grad(lambda x: jnp.sum(degradations.degrade(config, x, given) ** 2))(images_)
    assert float(jnp.abs(gradient).max()) > 0, 'rounding would stop gradients'


def test_latents_are_normal_and_one_for_each_image(config):
    config.latent_dim = 5
    given = np.asarray(
        degradations.sample_inputs(KEY, config, jnp.zeros((4000, 2, 2, 3))), np.float64
    )
    assert given.shape == (4000, 5)
    # The first four moments of N(0, 1), and coordinates that are independent.
    for power, moment in enumerate([0, 1, 0, 3], start=1):
        assert np.mean(given**power) == pytest.approx(moment, abs=0.25 if power == 4 else 0.1)
    np.testing.assert_allclose(np.cov(given, rowvar=False), np.eye(5), atol=0.1)
