import hashlib
import logging
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax.metrics import extractors
from dcgan_jax.runtime.errors import UserError
from tests.extractors import CLASSES, DIMENSION, reference, write_artifact

SHARED = pathlib.Path(__file__).resolve().parents[2] / 'shared'
LITE = SHARED / 'features' / 'efficientnet_lite0.jaxexport'


@pytest.fixture(scope='module')
def artifact(tmp_path_factory):
    return write_artifact(tmp_path_factory.mktemp('artifact') / 'tiny.jaxexport')


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), np.uint8)


def test_features_do_not_depend_on_the_batch_size(artifact, images):
    extractor = extractors.load(artifact, batch_size=4)
    for count in (23, 3, 8):
        features, logits = extractor(images[:count])
        assert features.dtype == logits.dtype == np.float32
        for actual, expected in zip((features, logits), reference(images[:count]), strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert [array.shape for array in extractor(images[:0])] == [(0, DIMENSION), (0, CLASSES)]


def test_extractor_attributes(artifact):
    extractor = extractors.load(str(artifact))
    assert extractor.name == 'tiny'
    assert extractor.sha256 == hashlib.sha256(artifact.read_bytes()).hexdigest()
    assert extractor.dimension == DIMENSION
    assert extractor.labels == ('FD (tiny)', 'KD (tiny)', 'IS (tiny)')


def test_serialized_extractor_named_inception_is_not_labeled_fid(tmp_path):
    extractor = extractors.load(write_artifact(tmp_path / 'inception.jaxexport'))
    assert extractor.labels == ('FD (inception)', 'KD (inception)', 'IS (inception)')


def test_grayscale_images_are_converted_to_rgb_and_logged_once(artifact, images, caplog):
    extractor = extractors.load(artifact, batch_size=8)
    gray = images[..., :1]
    with caplog.at_level(logging.INFO, 'absl'):
        features, _ = extractor(gray)
        extractor(gray)
    np.testing.assert_allclose(features, reference(np.repeat(gray, 3, -1))[0], atol=1e-6)
    assert len([message for message in caplog.messages if 'grayscale' in message]) == 1


def test_other_sizes_and_channels_are_rejected(artifact, images):
    extractor = extractors.load(artifact)
    with pytest.raises(UserError, match=r'8x8.*16x16'):
        extractor.check((16, 16, 3))
    with pytest.raises(UserError, match='not 4'):
        extractor(np.zeros((2, 8, 8, 4), np.uint8))
    with pytest.raises(ValueError, match='uint8'):
        extractor(images.astype(np.float32))


def test_extractor_may_accept_any_image_size(tmp_path):
    def means(images):
        mean = images.astype(jnp.float32).mean((1, 2))
        return mean, mean

    path = write_artifact(tmp_path / 'free.jaxexport', function=means, shape='b, h, w, 3')
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), np.uint8)
    features, _ = extractors.load(path, batch_size=2)(images)
    np.testing.assert_allclose(features, images.mean((1, 2)), rtol=1e-6)


def test_invalid_extractors_are_rejected(tmp_path, artifact):
    def two(x):
        flat = x.astype(jnp.float32).reshape(x.shape[0], -1)
        return flat, flat

    wrong = {
        'one output': {'function': lambda x: two(x)[0]},
        'float images': {'dtype': jnp.float32},
        'gray': {'shape': 'b, 8, 8, 1', 'function': two},
        'fixed batch': {'shape': '4, 8, 8, 3'},
        'integer features': {'function': lambda x: (two(x)[0].astype(jnp.int32), two(x)[1])},
        'maps': {'function': lambda x: (x.astype(jnp.float32), two(x)[1])},
        'dictionary': {'function': lambda x: {'a': two(x)[0], 'b': two(x)[1]}},
    }
    for name, arguments in wrong.items():
        path = write_artifact(tmp_path / f'{name}.jaxexport', **arguments)
        with pytest.raises(UserError, match=f'{name}.* maps .*uint8'):
            extractors.load(path)
    for name, content in {
        'empty': b'',
        'text': b'no artifact at all',
        'half': artifact.read_bytes()[: artifact.stat().st_size // 2],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f'{name} is damaged'):
            extractors.load(tmp_path / name)

    def divided(x):
        features, logits = two(x)
        return features / jnp.sum(features), logits

    path = write_artifact(tmp_path / 'broken.jaxexport', function=divided)
    with pytest.raises(UserError, match=r'broken.* not finite'):
        extractors.load(path)
    os.mkfifo(tmp_path / 'pipe')
    for name in ('resnet', str(tmp_path / 'pipe')):
        with pytest.raises(UserError, match=r'neither one of inception, .* nor a file'):
            extractors.load(name)


@pytest.mark.skipif(not LITE.is_file(), reason=f'no extractor at {LITE}')
def test_efficientnet_lite0_has_the_expected_hash_and_shapes():
    extractor = extractors.load(LITE, batch_size=2)
    assert extractor.name == 'efficientnet_lite0'
    assert extractor.sha256 == 'e5cdf1e9374833367e41e833147fb750ce7e4f9322922705970c81ac1c70b6a0'
    features, logits = extractor(np.zeros((3, 32, 32, 3), np.uint8))
    assert features.shape == (3, 1280)
    assert logits.shape == (3, 1000)
