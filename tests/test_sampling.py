import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import dcgan_jax
from dcgan_jax import models, run_dir, sampling, train_state
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import sample
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import restore
from tests.test_models import random_variables

UNCONDITIONAL = np.zeros(1, np.int32)


@pytest.fixture
def generator_and_state(config):
    networks = models.build(config, (8, 8, 3))
    state = jax.jit(lambda: train_state.create(config, networks, (8, 8, 3)))()
    return networks.generator, state


def test_standing_statistics_are_the_mean_of_batch_statistics(generator_and_state, config):
    generator, state = generator_and_state
    params, key = state.ema_params, jax.random.key(5)
    stats = sampling.standing_statistics(
        generator,
        {'params': params},
        key,
        batches=3,
        batch_size=16,
        latent_dim=4,
        conditions=UNCONDITIONAL,
    )
    # The first normalization follows one dense layer; compute its statistics in float64.
    kernel = np.asarray(params['project']['kernel'], np.float64)
    means, variances = [], []
    for index in range(3):
        z = np.asarray(jax.random.normal(jax.random.fold_in(key, index), (16, 4)), np.float64)
        x = (z @ kernel).reshape(-1, 8)  # [16 * 2 * 2, channels]
        means.append(x.mean(0))
        variances.append(x.var(0))
    np.testing.assert_allclose(stats['project_norm']['mean'], np.mean(means, 0), atol=1e-6)
    np.testing.assert_allclose(stats['project_norm']['var'], np.mean(variances, 0), rtol=1e-4)


@pytest.mark.parametrize('norm', ['none', 'batch'])
def test_samples_are_from_the_ema(config, norm):
    """The averaged parameters and statistics differ strongly from the current ones."""
    config.generator.norm, config.ema.batch_stats = norm, 'average'
    networks = models.build(config, (8, 8, 3))
    state = jax.jit(lambda: train_state.create(config, networks, (8, 8, 3)))()
    assert bool(state.ema_batch_stats) == (norm == 'batch')
    variables = random_variables(networks.generator, (1, 4))
    state = state.replace(ema_params=variables['params'], ema_batch_stats=variables['batch_stats'])
    latents = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    images = networks.generator.apply(variables, latents, train=False)
    expected = 127.5 * np.asarray(images, np.float64) + 127.5
    assert expected.std() > 20
    pixels = sampling.Sampler(networks.generator, config)(state, latents)
    assert np.abs(pixels - expected).max() < 0.51


def test_image_depends_only_on_its_latent(generator_and_state, config):
    generator, state = generator_and_state
    sampler = sampling.Sampler(generator, config)
    latents = sampler.latents(1, 20)  # 2.5 batches.
    pixels = sampler(state, latents)
    assert pixels.shape == (20, 8, 8, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(sampler(state, latents[7:9]), pixels[7:9])
    np.testing.assert_array_equal(sampler(state, latents[::-1]), pixels[::-1])


def test_latents_are_a_function_of_seed_and_index(generator_and_state, config):
    sampler = sampling.Sampler(generator_and_state[0], config)
    many = sampler.latents(2, 4000)
    np.testing.assert_array_equal(sampler.latents(2, 4000), many)
    assert not np.array_equal(sampler.latents(3, 4000), many)
    assert many.mean() == pytest.approx(0, abs=0.03)
    assert many.std() == pytest.approx(1, abs=0.03)
    assert len(np.unique(many, axis=0)) == 4000


def test_sample_writes_images_of_the_ema(finished, tmp_path):
    workdir, _ = finished
    path = sample.run(TaskOptions(workdir=workdir, out=tmp_path / 'out', num=10, seed=4)).path
    assert path == tmp_path / 'out' / 'samples.png'
    with np.load(tmp_path / 'out' / 'samples.npz', allow_pickle=False) as arrays:
        pixels, latents, step = arrays['images'], arrays['latents'], int(arrays['step'])
    assert (pixels.shape, pixels.dtype, step) == ((10, 8, 8, 3), np.uint8, 6)

    trained = restore(workdir)
    run, networks, state = trained.run, trained.networks, trained.state
    sampler = sampling.Sampler(networks.generator, run.config)
    np.testing.assert_array_equal(sampler(state, latents), pixels)
    current = sampler(state.replace(ema_params=state.generator.params), latents)
    assert not np.array_equal(current, pixels)  # The EMA differs from the current generator.


def test_smaller_sample_is_a_prefix_of_a_larger_sample(finished, tmp_path):
    for num in (5, 12):
        sample.run(TaskOptions(workdir=finished[0], out=tmp_path / str(num), num=num))
    few, many = (
        np.load(tmp_path / num / 'samples.npz', allow_pickle=False)['images'] for num in ('5', '12')
    )
    np.testing.assert_array_equal(few, many[:5])


def test_sample_without_a_run_or_checkpoint_is_rejected(config, tmp_path):
    with pytest.raises(UserError, match='contains no run'):
        sample.run(TaskOptions(workdir=tmp_path, num=1))
    run_dir.write(epath.Path(tmp_path), run_dir.Run(config, (8, 8, 3)))
    with pytest.raises(UserError, match='no checkpoint'):
        sample.run(TaskOptions(workdir=tmp_path, num=1))


def test_standing_statistics_of_bfloat16_networks_are_float32(config):
    config.dtype = 'bfloat16'
    networks = models.build(config, (8, 8, 3))
    state = jax.jit(lambda: train_state.create(config, networks, (8, 8, 3)))()
    variables = {'params': state.ema_params}
    stats = sampling.standing_statistics(
        networks.generator,
        variables,
        jax.random.key(0),
        batches=2,
        batch_size=8,
        latent_dim=4,
        conditions=UNCONDITIONAL,
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {jnp.dtype('float32')}


@pytest.mark.parametrize('conditions', [(0, 1, 2), (1, 2)])
def test_standing_statistics_depend_on_every_trained_class(config, conditions):
    """In batches of two, the shift of every trained class affects statistics of later layers."""
    conditions = np.asarray(conditions, np.int32)
    config.conditional = True
    networks = models.build(config, (8, 8, 3), 3)
    generator = networks.generator
    state = jax.jit(lambda: train_state.create(config, networks, (8, 8, 3)))()
    params = state.ema_params

    def statistics(params):
        return sampling.standing_statistics(
            generator, {'params': params}, jax.random.key(0), batches=3, batch_size=2,
            latent_dim=4, conditions=conditions,
        )['norm_0']['mean']  # fmt: skip

    before = statistics(params)
    for label in range(3):
        norm = params['project_norm']
        table = norm['shift']['embedding'].at[label].add(5.0)
        moved = {**params, 'project_norm': {**norm, 'shift': {'embedding': table}}}
        assert (np.abs(statistics(moved) - before).max() > 1e-3) == (label in conditions)


def test_ema_has_its_own_spectral_normalization(config):
    """The singular vectors of the current generator are not used for the EMA."""
    config.generator.update(spectral_norm=True, norm='none', weight_init='he_normal')
    networks = models.build(config, (8, 8, 3))
    state = jax.jit(lambda: train_state.create(config, networks, (8, 8, 3)))()
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=(4, 1)), rng.normal(size=(1, 32))
    kernel = jnp.asarray(rows @ columns + 0.1 * rng.normal(size=(4, 32)), jnp.float32)
    state_with_far_ema = state.replace(
        ema_params={**state.ema_params, 'project': {'kernel': kernel}}
    )
    sampler = sampling.Sampler(networks.generator, config)
    variables = sampler.variables(state_with_far_ema)
    norm_estimate = np.linalg.norm(kernel @ variables['spectral_stats']['project']['kernel'])
    assert norm_estimate == pytest.approx(np.linalg.svd(kernel)[1][0], rel=1e-3)


@pytest.mark.parametrize(
    ('latents', 'message'),
    [
        (np.zeros((3, 5)), r'float64 and shape \[3, 5\]: pass real numbers of shape \[N, 4\]'),
        (np.zeros(4), r'float64 and shape \[4\]'),
        (np.zeros((1, 3, 4)), r'float64 and shape \[1, 3, 4\]'),
        (np.zeros((0, 4)), r'float64 and shape \[0, 4\]'),
        (np.zeros((3, 4), complex), 'dtype complex128'),
        (np.full((3, 4), np.nan), 'contain NaN'),
        ([[1, 2, 3, 4], [1, 2]], r'must be an array \[N, 4\]'),
        (np.full((3, 4), 1e300), 'beyond float32'),
    ],
)
def test_invalid_latents_are_rejected(finished, latents, message):
    with pytest.raises(UserError, match=message):
        dcgan_jax.load(finished[0]).generate(latents)


def test_latents_may_be_lists(finished):
    trained = dcgan_jax.load(finished[0])
    latents = trained.latents(3)
    np.testing.assert_array_equal(trained.generate(latents.tolist()), trained.generate(latents))


def test_invalid_checkpoint_is_rejected(finished):
    with pytest.raises(UserError, match="checkpoint='last' must be one of"):
        dcgan_jax.load(finished[0], 'last')


@pytest.mark.parametrize(
    'arguments',
    [{'num': 0}, {'num': 2.5}, {'num': 3, 'seed': -1}, {'num': 3, 'seed': 2**32}],
)
def test_invalid_arguments_of_sample_are_rejected(finished, arguments):
    trained = dcgan_jax.load(finished[0])
    with pytest.raises(UserError, match='must be an integer from'):
        trained.sample(**arguments)
    with pytest.raises(UserError, match='must be a sequence'):
        trained.sample(3, classes='cat')
