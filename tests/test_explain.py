"""Network visualization and the linear probe."""

import functools
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from dcgan_jax import models, training
from dcgan_jax.data import images, sources
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import explain, linear_probe
from dcgan_jax.tasks.discriminator_features import DiscriminatorFeatures
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import restore
from tests.conftest import tiny_config


@pytest.fixture(scope='module')
def workdir(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    training.train_and_evaluate(tiny_config(data_dir), folder)
    return folder


def test_explain_writes_pictures_and_accuracy(workdir, tmp_path, monkeypatch):
    # The data set has no test split.
    monkeypatch.setattr(sources, 'open_test_split', lambda config: config)
    monkeypatch.setattr(explain, 'classify', lambda *_: {
        'accuracy': 0.5, 'num_test': 40, 'num_features': 3, 'num_train': 40,
    })  # fmt: skip
    out, line = explain.run(TaskOptions(workdir=workdir, out=tmp_path))
    for name in ('filters', 'ablated_channels'):
        with Image.open(out / f'{name}.png') as picture:
            assert picture.width == 8 * 10 + 2
    assert '50.00%' in line
    assert json.loads((out / 'explain.json').read_text())['step'] == 6


def test_explain_without_a_test_split_writes_pictures_only(workdir, tmp_path):
    out, line = explain.run(TaskOptions(workdir=workdir, out=tmp_path / 'out'))
    assert line == ''
    assert {path.name for path in out.iterdir()} == {
        'filters.png', 'ablated_channels.png', 'explain.json',
    }  # fmt: skip
    with pytest.raises(UserError, match='--num=1'):
        explain.run(TaskOptions(workdir=workdir, out=tmp_path / 'one', num=1))
    assert not (tmp_path / 'one').exists()


@pytest.mark.parametrize('classes', [(0,), (0, 2)])
def test_linear_probe_needs_several_classes(
    workdir, config, tmp_path, monkeypatch, caplog, classes
):
    config.data.classes = classes
    source = sources.open_split(config, 'train')
    monkeypatch.setattr(explain, 'open_split', lambda *_: source)
    monkeypatch.setattr(sources, 'open_test_split', lambda config: source)
    with caplog.at_level(logging.INFO, 'absl'):
        out, line = explain.run(TaskOptions(workdir=workdir, out=tmp_path))
    content = json.loads((out / 'explain.json').read_text())
    has_several = len(classes) > 1
    assert ('linear_probe' in content, 'accuracy' in line) == (has_several, has_several)
    assert ('fewer than two classes' in caplog.text) != has_several


def test_features_are_max_pooled_feature_maps(workdir, data_dir):
    trained = restore(workdir)
    networks, state = trained.networks, trained.state
    pixels = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    _, seen = networks.discriminator.apply(
        {'params': state.discriminator.params, **state.discriminator.statistics},
        images.to_float(jnp.asarray(pixels)), train=False, mutable=['intermediates'],
    )  # fmt: skip
    maps = [np.asarray(x) for (x,) in seen['intermediates'].values()]
    assert maps[0].shape[1] == 4
    expected = []
    for x in maps:
        side = min(2, x.shape[1])
        size = x.shape[1] // side
        pooled = [
            [x[:, i * size : (i + 1) * size, j * size : (j + 1) * size].max(axis=(1, 2))
             for j in range(side)] for i in range(side)
        ]  # fmt: skip
        expected.append(np.moveaxis(np.asarray(pooled), 2, 0).reshape(7, -1))
    got = DiscriminatorFeatures(networks, state, 2)(pixels)
    np.testing.assert_allclose(got, np.concatenate(expected, axis=1), rtol=1e-5, atol=1e-6)


def test_guided_gradients_pass_where_gradient_and_activation_are_positive():
    x = jnp.asarray([-1.0, -1.0, 2.0, 2.0])
    gradient = jnp.asarray([3.0, -3.0, 4.0, -4.0])
    leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.2)
    value, back = jax.vjp(functools.partial(explain.guided, leaky_relu), x)
    np.testing.assert_allclose(value, [-0.2, -0.2, 2, 2])
    np.testing.assert_array_equal(back(gradient)[0], [0, 0, 4, 0])


@pytest.mark.parametrize(
    'changes',
    [{}, {'branches': (1, 3)}, {'block': 'residual'}, {'block': 'residual', 'branches': (1, 3)}],
    ids=str,
)
def test_ablating_a_channel_equals_zeroing_it_in_the_first_feature_map(config, changes):
    config.generator.update(norm='none', weight_init='he_normal', **changes)
    generator = models.build(config, (8, 8, 3)).generator
    latents = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    params = generator.init(jax.random.key(0), latents, train=False)['params']
    assert sorted(explain.strongest_channels(params)) == list(range(8))
    stem = params['project']['kernel'].reshape(4, -1, 8).at[..., 5].set(0.0)
    expected, actual, original = (
        generator.apply({'params': changed}, latents, train=False)
        for changed in (
            {**params, 'project': {'kernel': stem.reshape(4, -1)}},
            explain.ablate_channels(params, np.asarray([5])),
            params,
        )
    )
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert np.abs(actual - original).max() > 0.01


def test_svm_classifies_separable_classes():
    rng = np.random.default_rng(0)
    centers = 4 * rng.normal(size=(3, 5))
    labels = rng.integers(0, 3, 600)
    features = (centers[labels] + rng.normal(size=(600, 5))).astype(np.float32) * [1, 9, 1, 1, 0.1]
    svm, penalty = linear_probe.fit(features[:500], labels[:500], 3)
    assert np.mean(svm(features[500:]) == labels[500:]) > 0.95
    assert penalty in linear_probe._PENALTIES
    shuffled = rng.permutation(labels)
    chance, _ = linear_probe.fit(features[:500], shuffled[:500], 3)
    assert np.mean(chance(features[500:]) == shuffled[500:]) < 0.5


def test_svm_minimizes_its_objective():
    """For two points in one dimension the solution is known."""
    features = np.asarray([[-1.0], [1.0]], np.float32)
    svm = linear_probe.LinearSVM(features, np.asarray([0, 1]), 2, penalty=1.0)
    # Class 1: the mean of (1 - w)^2 over both points, plus w^2, is minimal at w = 1/2.
    np.testing.assert_allclose(svm._weights[:, 1], [0.5, 0.0], atol=1e-4)
    np.testing.assert_allclose(svm._weights[:, 0], [-0.5, 0.0], atol=1e-4)


def test_svm_with_more_features_than_images_equals_ridge_regression():
    """With a large penalty no margin is reached, and the squared hinge loss is quadratic."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(8, 30)).astype(np.float32), np.arange(8) % 2
    svm = linear_probe.LinearSVM(features, labels, 2, penalty=10.0)
    again = linear_probe.LinearSVM(features, labels, 2, penalty=10.0, initial=svm)
    x = (features - features.mean(0, np.float64)) / features.std(0, dtype=np.float64)
    targets = np.where(labels == 1, 1.0, -1.0)
    weights = np.linalg.solve(x.T @ x / 8 + 10.0 * np.eye(30), x.T @ targets / 8)
    assert (targets * (x @ weights + targets.mean()) < 1).all()
    for result in (svm, again):
        np.testing.assert_allclose(result._weights[:-1, 1], weights, atol=1e-4)
        np.testing.assert_allclose(result._weights[-1, 1], targets.mean(), atol=1e-4)
