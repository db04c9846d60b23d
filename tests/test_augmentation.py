"""Augmentations of single images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import augmentation
from dcgan_jax.configs import cifar10

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.uniform(-1, 1, (64, 16, 16, 3)), jnp.float32)
KEY = jax.random.key(0)


def test_color_changes_brightness_saturation_and_contrast_per_image():
    """The change is affine in the pixels: x' = a x + b gray(x) + c, with factors per image."""
    changed = np.asarray(augmentation.color(KEY, IMAGES), np.float64)
    x = np.asarray(IMAGES, np.float64)
    contrasts, saturations, brightnesses = [], [], []
    for before, after in zip(x, changed, strict=True):
        gray = np.repeat(before.mean(axis=2, keepdims=True), 3, axis=2)
        columns = np.stack([(before - gray).ravel(), gray.ravel(), np.ones(gray.size)], axis=1)
        (a, b, _), residual, *_ = np.linalg.lstsq(columns, after.ravel(), rcond=None)
        assert residual < 1e-8
        contrasts.append(b)
        saturations.append(a / b)
        brightnesses.append(after.mean() - before.mean())
    for values, low, high in [
        (contrasts, 0.5, 1.5), (saturations, 0, 2), (brightnesses, -0.5, 0.5),
    ]:  # fmt: skip
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high >= max(values) > high - 0.1 * (high - low)


def test_translation_shifts_by_up_to_an_eighth_and_pads_with_zeros():
    translated, shifts = np.asarray(augmentation.translation(KEY, IMAGES)), set()
    for before, after in zip(np.asarray(IMAGES), translated, strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        matches = [
            (y - 2, x - 2)
            for y in range(5)
            for x in range(5)
            if np.array_equal(padded[y : y + 16, x : x + 16], after)
        ]
        assert len(matches) == 1
        shifts.add(matches[0])
    assert len(shifts) > 20  # There are 25 translations.


@pytest.mark.parametrize(('side', 'max_shift'), [(4, 1), (12, 2), (20, 3), (32, 4), (36, 5)])
def test_largest_shift_is_an_eighth_of_the_side_rounded_half_up(side, max_shift):
    middle = side // 2
    dot = jnp.zeros((512, side, side, 1)).at[:, middle, middle].set(1.0)
    _, rows, columns, _ = np.nonzero(np.asarray(augmentation.translation(KEY, dot)))
    expected = set(range(middle - max_shift, middle + max_shift + 1))
    assert set(rows) == expected
    assert set(columns) == expected


def test_cutout_zeroes_one_square_of_half_the_side():
    cut = np.asarray(augmentation.cutout(KEY, IMAGES)) == 0
    sizes = []
    for zero in cut:
        rows, columns = zero.all(axis=2).any(axis=1), zero.all(axis=2).any(axis=0)
        np.testing.assert_array_equal(zero, np.outer(rows, columns)[..., None].repeat(3, 2))
        for line in (rows, columns):
            sizes.append(line.sum())
            assert np.ptp(np.flatnonzero(line)) == line.sum() - 1  # The square has no gaps.
    assert max(sizes) == 8
    assert min(sizes) >= 4  # The center of a square may be on the border.


def test_cutout_of_odd_sides_equals_diffaugment():
    """For side 5, squares of side 3 have centers 0 to 4, so 2 or 3 rows are cut, never 1."""
    images = jnp.ones((200, 5, 5, 1))
    rows = (np.asarray(augmentation.cutout(KEY, images)) == 0).any(axis=(2, 3))
    assert {tuple(np.flatnonzero(row)) for row in rows} == {
        (0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4)
    }  # fmt: skip


def test_gradients_pass_through_translation_and_cutout():
    gradients = jax.grad(
        lambda x: jnp.sum(augmentation.augment(KEY, x, ('translation', 'cutout'), 1.0))
    )(IMAGES)
    assert set(np.unique(gradients)) == {0.0, 1.0}
    assert 0.5 < np.mean(gradients) < 0.9


@pytest.mark.parametrize('name', sorted(augmentation.POLICIES))
def test_each_image_is_augmented_with_the_given_probability(name):
    def fraction(probability):
        many = jnp.tile(IMAGES, (16, 1, 1, 1))
        changed = augmentation.augment(KEY, many, (name,), probability)
        return np.mean(np.any(np.asarray(changed != many), axis=(1, 2, 3)))

    assert fraction(0.0) == 0
    # One of 25 translations is zero.
    assert fraction(0.4) == pytest.approx(0.4, abs=0.06)
    assert fraction(jnp.float32(1.0)) > 0.9


def test_about_half_of_the_images_are_flipped_horizontally():
    actual = np.asarray(augmentation.flip(KEY, IMAGES))
    unchanged = np.all(actual == np.asarray(IMAGES), axis=(1, 2, 3))
    flipped = np.all(actual == np.asarray(IMAGES)[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(unchanged ^ flipped)
    assert 16 < unchanged.sum() < 48


def test_rotate_equals_numpy_and_samples_all_four_rotations():
    images = jax.random.normal(jax.random.key(0), (200, 5, 5, 2))
    rotated, num_rot90 = jax.jit(augmentation.rotate)(jax.random.key(1), images)
    assert num_rot90.dtype == jnp.int32
    assert np.bincount(num_rot90, minlength=4).min() > 30  # 50 are expected.
    for image, count, found in zip(images, num_rot90, rotated, strict=True):
        np.testing.assert_array_equal(found, np.rot90(image, count))


def test_instance_noise_decays_to_zero():
    config = cifar10.get_config().augment
    config.update(instance_noise=0.4, instance_noise_steps=100)
    for step, expected in [(0, 0.4), (25, 0.3), (100, 0.0), (150, 0.0)]:
        augmented = augmentation.augment_inputs(KEY, IMAGES, jnp.int32(step), 1.0, config)
        noise = np.asarray(augmented) - np.asarray(IMAGES)
        assert noise.std() == pytest.approx(expected, rel=0.02, abs=1e-7)
    config.instance_noise_steps = 0
    augmented = augmentation.augment_inputs(KEY, IMAGES, jnp.int32(10**6), 1.0, config)
    assert np.std(np.asarray(augmented) - np.asarray(IMAGES)) == pytest.approx(0.4, rel=0.02)


def test_default_augmentation_is_the_identity():
    assert (
        augmentation.augment_inputs(KEY, IMAGES, jnp.int32(0), 1.0, cifar10.get_config().augment)
        is IMAGES
    )


@pytest.mark.parametrize(
    ('signs', 'before', 'after'),
    [
        ([1, 1, 1, 1], 0.5, 0.54),  # r_t = 1
        ([1, 1, 1, -1], 0.5, 0.46),  # r_t = 0.5, below 0.6
        ([-1, -1, -1, -1], 0.01, 0.0),
        ([1, 1, 1, 1], 0.99, 1.0),
    ],
)
def test_ada_rule_equals_hand_computed_values(signs, before, after):
    config = cifar10.get_config().augment
    config.update(ada_target=0.6, ada_images=100)
    logits = 3.0 * jnp.asarray(signs, jnp.float32)[:, None]
    assert augmentation.adapt(jnp.float32(before), logits, 4, config) == pytest.approx(
        after, abs=1e-6
    )
