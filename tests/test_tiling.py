"""Restoration in tiles, compared to restoration of the whole image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import models, sampling
from dcgan_jax.configs import inpainting_cifar10, super_resolution_cifar10
from dcgan_jax.data import images
from dcgan_jax.tasks import tiling
from tests.conftest import slow


def create(recipe, **changes):
    """Return `config.generator`, and a network with random weights that returns uint8 images."""
    config = recipe.get_config()
    config.conv_impl, fields = 'xla', config.generator
    fields.update(changes)
    module = models.build(config, (32, 32, 3)).generator
    variables = module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 4)), train=False)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [
        leaf + 0.05 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)
    ]
    variables = jax.tree.unflatten(tree, leaves)
    apply = jax.jit(lambda x: images.to_uint8(module.apply(variables, x, train=False)))
    return fields, lambda x: np.asarray(apply(x))


def inputs(*shape):
    return np.random.default_rng(0).uniform(-1, 1, (*shape, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ('recipe', 'changes'),
    [
        (super_resolution_cifar10, {'width': 0.125}),
        (super_resolution_cifar10, {'width': 0.125, 'branches': (9,)}),
        slow(inpainting_cifar10, {'width': 0.125}),
    ],
)
def test_tiles_join_without_seams(monkeypatch, recipe, changes):
    fields, function = create(recipe, **changes)
    monkeypatch.setattr(tiling, 'MAX_PIXELS', 1)  # The smallest tiles that the overlap allows.
    side = tiling.tile_side(fields)
    x = inputs(2, 3 * side, side // 2)
    whole, tiled = function(x), tiling.restore(function, x, fields)
    assert len(np.unique(whole)) > 100
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    # Without overlap there are seams.
    monkeypatch.setattr(tiling, 'overlap', lambda generator: 0)
    monkeypatch.setattr(tiling, 'tile_side', lambda generator: side)
    assert np.abs(whole.astype(int) - tiling.restore(function, x, fields)).max() > 1


def test_small_images_and_images_with_per_image_norms_are_not_divided(monkeypatch):
    fields, function = create(super_resolution_cifar10, width=0.125)
    monkeypatch.setattr(tiling, 'MAX_PIXELS', 1)
    seen = []
    record = lambda x: seen.append(x.shape) or function(x)  # noqa: E731
    tiling.restore(record, inputs(3, 32, 32), fields)
    fields.norm = 'instance'
    tiling.restore(record, inputs(1, 256, 64), fields)
    assert seen == [(3, 32, 32, 4), (1, 256, 64, 4)]


@pytest.mark.parametrize(
    ('shape', 'expected'),
    [
        ((5, 128, 128, 4), 4),
        ((1, 256, 256, 4), 1),
        ((3, 512, 512, 4), 1),
        ((2, 8, 8, 4), 2),
        ((9, 100), 32),
    ],
)
def test_batches_of_images_are_bounded_by_pixels(monkeypatch, shape, expected):
    monkeypatch.setattr(sampling, 'MAX_PIXELS', 2**16)
    config = super_resolution_cifar10.get_config()
    sampler = object.__new__(sampling.Sampler)
    sampler._config, sampler._num_devices = config, 1
    assert sampler._batch_size(np.zeros(shape)) == expected
