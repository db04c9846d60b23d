"""Mode coverage of rendered images with known modes, degraded like samples of GANs."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dcgan_jax.data import shapes_builder
from dcgan_jax.metrics.mode_coverage import UNRECOGNIZED, classify, mode_coverage
from dcgan_jax.runtime.errors import UserError
from tests.conftest import slow


def rendered(split, part=slice(None)):
    pairs = itertools.islice(shapes_builder.make_split(split), part.start, part.stop, part.step)
    modes, images = zip(*pairs, strict=True)
    return np.array(modes), np.stack(images)


def noisy(images, deviation=10.0):
    noise = np.random.default_rng(0).normal(0, deviation, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def blurred(images):
    padded = np.pad(images.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), 'edge')
    moved = [padded[:, y : y + 32, x : x + 32] for y in range(3) for x in range(3)]
    return np.rint(np.mean(moved, axis=0)).astype(np.uint8)


def in_jpeg(images, quality=75):
    decoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, 'JPEG', quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return np.stack(decoded)


def of_modes(*modes):
    modes = np.array(modes)
    pose = shapes_builder.random_pose(len(modes), np.random.default_rng(0))
    return shapes_builder.draw(*shapes_builder.split_mode(modes), pose)


NOISE = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)


@pytest.mark.parametrize('change', [lambda images: images, noisy, blurred, in_jpeg])
@pytest.mark.parametrize(
    ('split', 'part'), [slow('train', slice(0, 1000, 7)), ('test', slice(0, 2000, 11))]
)
def test_degraded_images_are_classified_as_their_mode(split, part, change):
    modes, images = rendered(split, part)
    np.testing.assert_array_equal(classify(change(images)), modes)


@pytest.mark.slow
@pytest.mark.parametrize('split', list(shapes_builder.PER_MODE))
def test_all_images_are_classified_as_their_mode(split):
    modes, images = rendered(split)
    np.testing.assert_array_equal(classify(images), modes)


@pytest.mark.parametrize(
    ('shape', 'outline'),
    [
        ('circle', lambda draw, color: draw.ellipse([48, 64, 208, 224], fill=color)),
        ('square', lambda draw, color: draw.rectangle([56, 56, 200, 200], fill=color)),
        (
            'diamond',
            lambda draw, color: draw.polygon([128, 36, 196, 128, 128, 220, 60, 128], fill=color),
        ),
    ],
)
@pytest.mark.parametrize('background', ['white', 'navy'])
def test_images_of_another_renderer_are_classified(shape, outline, background):
    """Draw a shape with Pillow at eight times the size, and downsample it."""
    behind = {'white': (255, 255, 255), 'navy': (16, 24, 88)}[background]
    picture = Image.new('RGB', (256, 256), behind)
    outline(ImageDraw.Draw(picture), (255, 130, 0))
    image = np.asarray(picture.resize((32, 32), Image.Resampling.BOX))
    found = [int(part[0]) for part in shapes_builder.split_mode(classify(image[None]))]
    names = (list(shapes_builder.SHAPES), list(shapes_builder.COLORS), shapes_builder.BACKGROUNDS)
    assert [name[index] for name, index in zip(names, found, strict=True)] == [
        shape,
        'orange',
        background,
    ]


@pytest.mark.parametrize(
    'images',
    [
        NOISE,
        shapes_builder.background_images(),  # No shape.
        noisy(shapes_builder.background_images()),
        np.full((1, 32, 32, 3), 200, np.uint8),
        of_modes(123, 456, 789)[:, ::-1, :, :] // 2 + of_modes(987, 654, 321) // 2,
    ],
)
def test_images_without_a_mode_are_unrecognized(images):
    np.testing.assert_array_equal(classify(images), UNRECOGNIZED)


def test_coverage_equals_hand_computed_values():
    """Test modes 5, 5, 5 and 700, and a noise image."""
    coverage = mode_coverage(np.concatenate([of_modes(5, 700, 5, 5), NOISE[:1]]))
    assert coverage.modes == 2
    # p is 3/4 and 1/4 over the four recognized images.
    assert coverage.kl == pytest.approx(0.75 * np.log(750) + 0.25 * np.log(250))
    assert coverage.unrecognized == pytest.approx(0.2)
    assert (coverage.counts[5], coverage.counts[700], coverage.counts.sum()) == (3, 1, 4)
    assert coverage.counts.shape == (1000,)
    assert mode_coverage(of_modes(5, 700, 5, 5), min_samples=2).modes == 1


def test_coverage_of_all_modes_one_mode_and_no_mode():
    everything = mode_coverage(rendered('train', slice(1000))[1])
    assert everything.modes == 1000
    assert everything.kl == pytest.approx(0, abs=1e-12)
    collapsed = mode_coverage(of_modes(*[321] * 10))
    assert (collapsed.modes, collapsed.unrecognized) == (1, 0.0)
    assert collapsed.kl == pytest.approx(np.log(1000))
    nothing = mode_coverage(NOISE)
    assert (nothing.modes, nothing.unrecognized) == (0, 1.0)
    assert nothing.kl == pytest.approx(np.log(1000))


@pytest.mark.parametrize(
    'images',
    [
        np.zeros((3, 64, 64, 3), np.uint8),
        np.zeros((3, 32, 32, 1), np.uint8),
        np.zeros((3, 32, 32, 3), np.float32),
        np.zeros((0, 32, 32, 3), np.uint8),
    ],
)
def test_invalid_images_are_rejected(images):
    with pytest.raises(UserError, match='uint8'):
        classify(images)
