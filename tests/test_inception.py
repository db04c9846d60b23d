"""Inception compared to its ports to PyTorch, with random weights."""

import hashlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax.metrics import extractors, inception
from dcgan_jax.runtime.errors import UserError
from tests.peers import peer


@pytest.fixture(scope='module')
def state_dict():
    """Random weights with PyTorch's names; activations neither vanish nor explode."""
    torch = peer('torch')
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(
        lambda: inception.Inception().init(jax.random.key(0), jnp.zeros((1, 299, 299, 3)))
    )
    tensors = {'fc.bias': torch.from_numpy(rng.normal(size=1008).astype(np.float32))}

    def add(keys, leaf):
        *parents, kind = [key.key for key in keys[1:]]
        name = '.'.join([*parents, inception._TORCH_NAMES[kind]])
        if kind == 'kernel':
            shape = (leaf.shape[-1], leaf.shape[-2], *leaf.shape[:-2])
            values = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif kind in ('scale', 'var'):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            values = 0.1 * rng.normal(size=leaf.shape)
        tensors[name] = torch.from_numpy(values.astype(np.float32))

    jax.tree_util.tree_map_with_path(add, shapes)
    return tensors


@pytest.fixture(scope='module')
def weights(state_dict, tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'random.pth'
    peer('torch').save(state_dict, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(autouse=True)
def _accept_random_weights(request, monkeypatch):
    """Accept the SHA-256 of the random weights."""
    if 'weights' in request.fixturenames:
        content = request.getfixturevalue('weights').read_bytes()
        monkeypatch.setattr(inception, 'SHA256', hashlib.sha256(content).hexdigest())


def images(height, width, count=2):
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), np.uint8)


def assert_close(actual, expected):
    expected = np.asarray(expected)
    assert np.abs(actual - expected).max() < 1e-4 * np.abs(expected).max()


def channels_first(pixels):
    return peer('torch').from_numpy(pixels.transpose(0, 3, 1, 2).copy())


@pytest.mark.slow
def test_inception_equals_torch_fidelity(weights):
    module = peer('torch_fidelity.feature_extractor_inceptionv3')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        theirs = module.FeatureExtractorInceptionV3(
            'inception-v3-compat', ['2048', 'logits_unbiased'], str(weights)
        )
        pixels = images(40, 28)
        expected = theirs(channels_first(pixels))
    actual = extractors.load('inception', str(weights), batch_size=2)(pixels)
    assert actual[0].std() > 1e-2  # The features are not constant.
    for ours, other in zip(actual, expected, strict=True):
        assert_close(ours, other)


@pytest.mark.slow
def test_inception_equals_pytorch_fid(weights, state_dict, monkeypatch):
    module = peer('pytorch_fid.inception')
    monkeypatch.setattr(module, 'load_state_dict_from_url', lambda *_, **__: state_dict)
    pixels = images(32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        theirs = module.InceptionV3().eval()
        (expected,) = theirs(channels_first(pixels) / 255)
    extractor = extractors.load('inception_pytorch_fid', str(weights), batch_size=2)
    assert_close(extractor(pixels)[0], expected[:, :, 0, 0])
    assert extractor.labels == ('FID (pytorch-fid)', 'KID (pytorch-fid)', 'IS (pytorch-fid)')


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(32, 32), (31, 64), (299, 299), (400, 310), (1, 2)])
def test_resize_equals_torch_fidelity_and_pytorch(shape):
    module = peer('torch_fidelity.interpolate_compat_tensorflow')
    functional = peer('torch').nn.functional
    pixels = images(*shape).astype(np.float32)
    expected = {
        'inception': module.interpolate_bilinear_2d_like_tensorflow1x(
            channels_first(pixels), size=(299, 299), align_corners=False, method='slow'
        ),
        'inception_pytorch_fid': functional.interpolate(
            channels_first(pixels), size=(299, 299), mode='bilinear', align_corners=False
        ),
    }
    for name, tensor in expected.items():
        ours = inception.resize(jnp.asarray(pixels), name)
        np.testing.assert_allclose(ours, tensor.numpy().transpose(0, 2, 3, 1), atol=2e-3)


def test_other_weights_are_rejected_before_parsing(tmp_path):
    (tmp_path / 'other.pth').write_bytes(b'no pickle')
    for name in ('other.pth', 'missing.pth'):
        with pytest.raises(UserError, match=name):
            extractors.load('inception', str(tmp_path / name))


def test_published_weights_are_downloaded_once(tmp_path, monkeypatch):
    (tmp_path / 'web').mkdir()
    published = tmp_path / 'web' / 'weights.pth'
    published.write_bytes(b'weights')
    monkeypatch.setenv('DCGAN_JAX_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(inception, 'URL', published.as_uri())
    with pytest.raises(UserError, match=r'returned 7 bytes .*config.evaluation'):
        inception.published_weights()
    assert list((tmp_path / 'cache').iterdir()) == []
    monkeypatch.setattr(inception, 'SHA256', hashlib.sha256(b'weights').hexdigest())
    path = inception.published_weights()
    assert path.read_bytes() == b'weights'
    published.unlink()
    assert inception.published_weights() == path
