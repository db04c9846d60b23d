import logging
import os

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from dcgan_jax.data import input_pipeline, sources
from dcgan_jax.metrics import extractors, reference_stats
from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import UserError
from tests.class_folders import write_images
from tests.extractors import DIMENSION, write_artifact
from tests.extractors import reference as extract


@pytest.fixture
def extractor(tmp_path):
    return extractors.load(write_artifact(tmp_path / 'tiny.jaxexport'), batch_size=4)


@pytest.fixture
def source(data_dir):
    return sources.open_source('tiny_images', 'train', str(data_dir))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('DCGAN_JAX_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'reference'


def without_call(extractor):
    """Return the attributes of an extractor in an object that cannot be called."""

    class NotCallable:
        name, sha256, resize = extractor.name, extractor.sha256, extractor.resize
        dimension = extractor.dimension

    return NotCallable()


@pytest.mark.parametrize('whole', [True, False])
def test_statistics_and_features_of_a_split(source, extractor, whole):
    result = reference_stats.compute_reference(
        source, extractor, num_features=7, with_statistics=whole
    )
    expected, _ = extract(input_pipeline.load_split(source).images)
    chosen = expected[[0, 5, 11, 17, 22, 28, 34]]  # floor(40 i / 7)
    np.testing.assert_allclose(result.features, chosen, atol=1e-6)
    if whole:
        assert result.statistics.n == len(expected)
        np.testing.assert_allclose(result.statistics.mu, expected.mean(0), atol=1e-6)
        np.testing.assert_allclose(result.statistics.sigma, np.cov(expected.T), atol=1e-6)
    else:
        assert result.statistics is None
    again = reference_stats.compute_reference(
        source, without_call(extractor), num_features=7, with_statistics=whole
    )
    np.testing.assert_equal(again, result)


def test_reference_is_computed_once(source, extractor, cache):
    first = reference_stats.compute_reference(source, extractor, 7)
    second = reference_stats.compute_reference(source, without_call(extractor), 7)
    np.testing.assert_equal(second, first)
    assert len(list(cache.iterdir())) == 1
    assert not list(cache.glob('*.partial'))


def test_other_arguments_are_computed_again(source, extractor, data_dir, cache):
    reference_stats.compute_reference(source, extractor, 7)
    others = [
        (source, extractor, 8, True),
        (source, extractor, 7, False),
        (sources.open_source('tiny_images', 'train[:39]', str(data_dir)), extractor, 7, True),
    ]
    other = without_call(extractor)
    other.sha256 = '0' * 64
    others.append((source, other, 7, True))

    for count, arguments in enumerate(others, start=2):
        try:
            reference_stats.compute_reference(*arguments)
        except (TypeError, AttributeError):  # The object without `__call__` was used.
            continue
        assert len(list(cache.iterdir())) == count


@pytest.mark.parametrize('limit', [2**30, 0])
def test_changed_pixel_invalidates_the_cache(extractor, cache, tmp_path, monkeypatch, limit):
    """The size and, if contents are hashed, the modification time of the file do not change."""
    monkeypatch.setattr(files, 'MAX_HASHED_BYTES', limit)
    folder = tmp_path / 'images'
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), np.uint8)
    for index, image in enumerate(pixels):
        PIL.Image.fromarray(image).save(folder / f'{index:03}.bmp')
        os.utime(folder / f'{index:03}.bmp', (1, 1))
    first = reference_stats.compute_reference(folder_source(folder), extractor, 100)
    pixels[37, 3, 5, 1] ^= 255
    PIL.Image.fromarray(pixels[37]).save(folder / '037.bmp')
    if limit:
        os.utime(folder / '037.bmp', (1, 1))
    second = reference_stats.compute_reference(folder_source(folder), extractor, 100)
    changed = np.flatnonzero((first.features != second.features).any(axis=1))
    assert changed.tolist() == [37]


def folder_source(folder, **settings):
    return sources.open_source('folder', 'train', str(folder), **settings)


def test_same_files_that_are_read_differently_are_computed_again(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for index, size in enumerate((8, 8, 32)):
        pixels = np.random.default_rng(index).integers(0, 256, (size, size, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f'{index}.png')

    def corners(images):
        return images[:, 0, 0, :].astype(jnp.float32), images[:, -1, -1, :].astype(jnp.float32)

    path = write_artifact(tmp_path / 'corners.jaxexport', function=corners, shape='b, h, w, 3')
    extractor = extractors.load(path, batch_size=4)
    seen = set()
    for image_size, max_pixels in ((8, 1024), (8, 1023), (4, 1024)):
        source = folder_source(
            folder, image_size=image_size, max_pixels=max_pixels, on_corrupt='skip'
        )
        expected = input_pipeline.load_split(source).images[:, 0, 0]
        found = reference_stats.compute_reference(source, extractor, 3).features
        np.testing.assert_array_equal(found, expected)
        seen.add(expected.tobytes())
    assert len(seen) == 3


def test_damaged_cache_is_recomputed_with_a_warning(source, extractor, cache, caplog):
    first = reference_stats.compute_reference(source, extractor, 7)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    middle = whole.index(first.features.tobytes()[:16])
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (b'', whole[:middle], flipped):
        path.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING, 'absl'):
            again = reference_stats.compute_reference(source, extractor, 7)
        assert path.name in '\n'.join(caplog.messages)
        np.testing.assert_equal(again, first)
        assert path.read_bytes() == whole


def test_unwritable_cache_causes_a_warning(source, extractor, cache, caplog):
    cache.parent.mkdir()
    cache.write_text('a file where the folder should be')
    with caplog.at_level(logging.WARNING, 'absl'):
        assert reference_stats.compute_reference(source, extractor, 7).statistics.n == 40
    assert str(cache) in '\n'.join(caplog.messages)


def statistics_file(path, **changes):
    arrays = {
        'mu': np.ones(DIMENSION),
        'sigma': np.eye(DIMENSION, dtype=np.float32),
        'n': 100,
        'extractor_sha256': 'none',
    } | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_user_supplied_statistics_are_read(tmp_path, extractor):
    path = statistics_file(tmp_path / 's.npz', extractor_sha256=extractor.sha256)
    mu, sigma, n = reference_stats.read_statistics(path, extractor)
    assert (mu.dtype, sigma.dtype, n) == (np.float64, np.float64, 100)
    np.testing.assert_array_equal(sigma, np.eye(DIMENSION))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'extractor_sha256': 'ab' * 32}, 'SHA-256 abababababababab, not tiny'),
        ({'sigma': None}, 'sigma'),
        ({'mu': np.ones(3)}, 'D must be 6'),
        ({'mu': np.full(DIMENSION, np.nan)}, 'not finite'),
        ({'mu': np.array([{}])}, 's.npz'),
        ({'sigma': np.diag([-1.0, *np.ones(DIMENSION - 1)])}, 'sigma'),
        ({'sigma': np.tri(DIMENSION)}, 'sigma'),
    ],
)
def test_invalid_user_supplied_statistics_are_rejected(tmp_path, extractor, changes, message):
    changes = {'extractor_sha256': extractor.sha256} | changes
    path = statistics_file(tmp_path / 's.npz', **changes)
    with pytest.raises(UserError, match=message):
        reference_stats.read_statistics(path, extractor)


def test_missing_or_unreadable_statistics_are_rejected(tmp_path, extractor):
    (tmp_path / 'text.npz').write_text('text')
    for name in ('none.npz', 'text.npz'):
        with pytest.raises(UserError, match=name):
            reference_stats.read_statistics(tmp_path / name, extractor)


def test_files_that_change_while_they_are_read_are_not_cached(extractor, cache, tmp_path):
    write_images(tmp_path / 'images', (255, 0, 0), num=3)
    path = next((tmp_path / 'images').iterdir())

    class Replacing(without_call(extractor).__class__):
        preferred_batch_size = 8

        def __call__(self, images):
            path.write_bytes(path.read_bytes() + b' ')
            return extractor(images)

    with pytest.raises(UserError, match='changed while they were read'):
        reference_stats.compute_reference(folder_source(tmp_path / 'images'), Replacing(), 3)
    assert not cache.exists()
