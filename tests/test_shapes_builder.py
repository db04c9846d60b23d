import numpy as np
import pytest
import tensorflow_datasets as tfds

from dcgan_jax.data import shapes_builder, sources

CENTERED = shapes_builder.Pose(np.array([[16.0, 16.0]]), np.array([10.0]), np.array([0.0]))


@pytest.fixture(scope='module')
def records(tmp_path_factory):
    """Source of the prepared test split, and its records with labels."""
    root = tmp_path_factory.mktemp('shapes')
    # Writing the complete train split would take seconds.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(shapes_builder.PER_MODE, 'train', 2)
        source = sources.open_source('shapes', 'test', str(root))
    return source, list(tfds.data_source('shapes', split='test', data_dir=root))


def test_modes_are_equally_frequent():
    assert shapes_builder.NUM_MODES == 1000
    modes = [mode for mode, _ in shapes_builder.make_split('test')]
    np.testing.assert_array_equal(np.bincount(modes, minlength=1000), np.full(1000, 2))
    assert shapes_builder.PER_MODE['train'] == 20


def test_split_mode_enumerates_all_combinations():
    combinations = set(
        zip(*map(np.ndarray.tolist, shapes_builder.split_mode(np.arange(1000))), strict=True)
    )
    assert combinations == {(s, f, b) for s in range(10) for f in range(10) for b in range(10)}


def test_images_depend_on_seed_and_split():
    first, again, other = (
        np.stack([image for _, image in shapes_builder.make_split('test', seed)])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[:1000] != first[1000:]).any(axis=(1, 2, 3)).all()  # All images differ.
    head_of_train = [
        image for (_, image), _ in zip(shapes_builder.make_split('train'), range(9), strict=False)
    ]
    assert (np.stack(head_of_train) != first[:9]).any(axis=(1, 2, 3)).all()


def test_prepared_records_equal_make_split(records):
    source, records = records
    assert source.image_shape == (32, 32, 3)
    assert len(source) == len(records) == 2000
    labels = np.array([record['label'] for record in records])
    np.testing.assert_array_equal(np.bincount(labels), np.full(1000, 2))
    # In a shuffled split, about half of all neighbors are in order.
    assert 0.4 < np.mean(np.diff(labels) > 0) < 0.6
    drawn = {
        f'test_{i:05d}'.encode(): pair for i, pair in enumerate(shapes_builder.make_split('test'))
    }
    for record in records:
        mode, image = drawn[record['id']]
        assert record['label'] == mode
        assert mode == 100 * record['shape'] + 10 * record['foreground'] + record['background']
        np.testing.assert_array_equal(record['image'], image)
    images, read = source.read(np.arange(50), labels=True)
    np.testing.assert_array_equal(images, [record['image'] for record in records[:50]])
    np.testing.assert_array_equal(read, labels[:50])
    assert source.num_classes == 1000


def test_labels_match_the_images(records):
    """Infer the color from the most frequent palette color, the background from the border."""
    palette = np.array(list(shapes_builder.COLORS.values()))
    backgrounds = shapes_builder.background_images().astype(int)
    frame = np.zeros((32, 32), bool)
    frame[:2] = frame[-2:] = frame[:, :2] = frame[:, -2:] = True
    for record in records[1]:
        image = record['image'].astype(int)
        exact = (image[..., None, :] == palette).all(-1).sum((0, 1))
        assert exact.argmax() == record['foreground']
        errors = np.abs(image - backgrounds).sum(-1)[:, frame]
        assert errors.mean(1).argmin() == record['background']
        assert np.median(errors[record['background']]) == 0


def test_backgrounds_and_colors_are_far_apart():
    colors = np.array(list(shapes_builder.COLORS.values()), float)
    between = np.linalg.norm(colors[:, None] - colors, axis=-1)
    assert between[~np.eye(10, dtype=bool)].min() > 100
    pixels = shapes_builder.background_images().reshape(-1, 3)
    assert np.linalg.norm(colors[:, None] - pixels, axis=-1).min() > 80
    flat = shapes_builder.background_images().reshape(10, -1).astype(float)
    apart = np.sqrt(((flat[:, None] - flat) ** 2).mean(-1))
    assert apart[~np.eye(10, dtype=bool)].min() > 25


def monte_carlo(inside):
    """Return the covered fraction of each pixel, [32, 32], estimated with 40 x 40 points each."""
    points = (np.arange(32 * 40) + 0.5) / 40
    y, x = np.meshgrid(points, points, indexing='ij')
    return inside(x - 16, y - 16).reshape(32, 40, 32, 40).mean((1, 3))


@pytest.mark.parametrize(
    ('name', 'inside'),
    [
        ('circle', lambda x, y: x**2 + y**2 < 9.6**2),
        ('square', lambda x, y: np.maximum(abs(x), abs(y)) < 8.4),
        ('diamond', lambda x, y: abs(x) / 8 + abs(y) / 11 < 1),
        ('ring', lambda x, y: abs(np.hypot(x, y) - 7.2) < 2.4),
        (
            'plus',
            lambda x, y: (np.minimum(abs(x), abs(y)) < 3.4) & (np.maximum(abs(x), abs(y)) < 10),
        ),
        ('hourglass', lambda x, y: (abs(y) < 10) & (abs(x) < 2.2 + 6.6 * abs(y) / 10)),
        ('triangle', lambda x, y: (y < 8.6) & (abs(x) < (y + 10) * 10.6 / 18.6)),
        ('crescent', lambda x, y: (np.hypot(x, y) < 10) & (np.hypot(x - 5, y + 2) > 8.2)),
    ],
)
def test_coverage_equals_counted_points(name, inside):
    index = list(shapes_builder.SHAPES).index(name)
    alpha = shapes_builder.coverage(np.array([index]), CENTERED)[0]
    expected = monte_carlo(inside)
    assert np.abs(alpha - expected).max() < 0.35  # The approximation is inexact at corners.
    assert np.abs(alpha - expected).mean() < 0.006
    assert ((alpha > 0.05) & (alpha < 0.95)).sum() > 8  # Edges are anti-aliased.


def test_shapes_are_large_and_distinct():
    """Nearly all shapes in random poses are closest to the mean of their own shape."""
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(10), 200)
    alpha = shapes_builder.coverage(kind, shapes_builder.random_pose(len(kind), rng)).reshape(
        10, 200, -1
    )
    extent = alpha.reshape(10, 200, 32, 32).max(2) > 0.5
    assert extent.sum(-1).mean() > 0.5 * 32
    assert (alpha.sum(-1) > 100).all()
    mean = alpha.mean(1)
    nearest = ((alpha[:, :, None] - mean) ** 2).sum(-1).argmin(-1)
    assert (nearest == np.arange(10)[:, None]).mean() > 0.97


def test_positive_angles_rotate_clockwise():
    triangle = np.array([list(shapes_builder.SHAPES).index('triangle')])
    rotated = shapes_builder.coverage(triangle, CENTERED._replace(angle=np.array([np.pi / 2])))[0]
    upright = shapes_builder.coverage(triangle, CENTERED)[0]
    np.testing.assert_allclose(rotated, np.rot90(upright, -1), atol=1e-9)
