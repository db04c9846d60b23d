"""The training step compared to a reference with separate losses and NumPy optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dcgan_jax import augmentation
from dcgan_jax.step_context import RngStream
from dcgan_jax.train_step import train_step
from tests.conftest import slow
from tests.reference_step import (
    BATCH,
    Plain,
    apply,
    assert_trees_close,
    gradient_norms,
    reference,
    step,
    tiny,
)


@pytest.mark.parametrize(
    'plain',
    [
        Plain(),
        slow(Plain(update_order='simultaneous')),
        Plain(resample_latents=True, loss='hinge', norm='none'),
        Plain(update_order='simultaneous', dropout_rate=0.3, loss='least_squares'),
        slow(Plain(resample_latents=True)),
        slow(Plain(update_order='simultaneous', dropout_rate=0.3)),
        slow(Plain(dropout_rate=0.3, norm='none')),
        slow(Plain(eps=1e-2)),
        slow(Plain(loss='least_squares')),
        slow(Plain(loss='wasserstein')),
        slow(Plain(loss='hinge', norm='none')),
        Plain(loss='relativistic', r1=0.5, r2=2.0, norm='none'),
        slow(Plain(update_order='simultaneous', loss='relativistic', r1=0.5, r2=2.0, norm='none')),
        Plain(rotation=0.7, rotation_generator=0.2),
        slow(Plain(rotation=1.0, dropout_rate=0.3)),
        slow(Plain(rotation=0.7, rotation_generator=0.2, policy=('cutout', 'color'))),
    ],
    ids=str,
)
def test_train_step_equals_the_reference(plain):
    config, networks, state, real = tiny(**plain.changes())
    key = jax.random.key(3)
    new, metrics = step(config)(state, real, key)
    gp, gs, dp, ds, g_value, d_value = reference(plain, networks, state, real, key)
    # Adam's first step is lr * sign(g) if |g| >> eps, so parameters hardly depend on the size of
    # gradients. Therefore losses and statistics are compared too.
    assert_trees_close(new.discriminator.params, dp, rtol=2e-5, atol=2e-6)
    assert_trees_close(new.generator.params, gp, rtol=2e-5, atol=2e-6)
    assert_trees_close(new.discriminator.batch_stats, ds, rtol=1e-5, atol=1e-7)
    assert_trees_close(new.generator.batch_stats, gs, rtol=1e-5, atol=1e-7)
    assert metrics['generator/loss'] == pytest.approx(float(g_value), rel=1e-5)
    assert metrics['discriminator/loss'] == pytest.approx(float(d_value), rel=1e-5)
    assert int(new.step) == 1


def test_each_update_changes_only_its_network():
    config, _, state, real = tiny()
    key = jax.random.key(0)
    for fixed_name in ('generator', 'discriminator'):
        frozen = getattr(state, fixed_name).replace(
            tx=optax.set_to_zero(), opt_state=optax.EmptyState()
        )
        new, _ = step(config)(state.replace(**{fixed_name: frozen}), real, key)
        moved = 'discriminator' if fixed_name == 'generator' else 'generator'
        before, after = getattr(state, fixed_name).params, getattr(new, fixed_name).params
        assert_trees_close(after, before, rtol=0, atol=0)
        changed = jax.tree.map(
            lambda a, b: float(jnp.abs(a - b).max()),
            getattr(new, moved).params,
            getattr(state, moved).params,
        )
        assert min(jax.tree.leaves(changed)) > 0


def test_generator_gradient_is_that_of_its_loss():
    """With a shared forward pass, D's loss must not contribute to G's gradient."""
    config, networks, state, real = tiny(update_order='simultaneous')
    key = jax.random.key(0)
    new, _ = step(config)(state, real, key)
    z = jax.random.normal(jax.random.fold_in(key, RngStream.LATENTS), (BATCH, 6))
    d = state.discriminator

    def own_loss(params):
        images, _ = apply(networks.generator, params, state.generator.batch_stats, z)
        logits, _ = apply(networks.discriminator, d.params, d.batch_stats, images)
        return jnp.mean(jax.nn.softplus(-logits))

    grads = jax.jit(jax.grad(own_loss))(state.generator.params)
    # Adam's first moment after one step is (1 - b1) times the gradient, b1 = 0.5.
    expected = jax.tree.map(lambda g: 0.5 * g, grads)
    assert_trees_close(new.generator.opt_state[0].mu, expected, rtol=1e-4, atol=1e-7)


def test_logged_norms_equal_numpy():
    config, _, state, real = tiny()
    new, metrics = step(config)(state, real, jax.random.key(0))
    for name in ('generator', 'discriminator'):
        network, b1, b2 = getattr(new, name), 0.5, 0.999
        moments = [np.asarray(m, np.float64) for m in jax.tree.leaves(network.opt_state[0].mu)]
        norm = np.sqrt(sum(np.sum((m / (1 - b1)) ** 2) for m in moments))
        assert metrics[f'{name}/gradient_norm'] == pytest.approx(norm, rel=1e-5)
        squares = jax.tree.leaves(network.opt_state[0].nu)
        for m, square in zip(moments, squares, strict=True):
            np.testing.assert_allclose(
                square, (1 - b2) * (m / (1 - b1)) ** 2, rtol=1e-4, atol=1e-12
            )
        parameters = [np.asarray(p, np.float64) for p in jax.tree.leaves(network.params)]
        norm = np.sqrt(sum(np.sum(p**2) for p in parameters))
        assert metrics[f'{name}/parameter_norm'] == pytest.approx(norm, rel=1e-5)
        statistics = [np.asarray(s, np.float64) for s in jax.tree.leaves(network.batch_stats)]
        norm = np.sqrt(sum(np.sum(s**2) for s in statistics))
        assert metrics[f'{name}/batch_stats_norm'] == pytest.approx(norm, rel=1e-5)


def test_logged_probabilities_equal_the_discriminator_outputs():
    config, networks, state, real = tiny(update_order='simultaneous')
    key = jax.random.key(1)
    _, metrics = step(config)(state, real, key)
    z = jax.random.normal(jax.random.fold_in(key, RngStream.LATENTS), (BATCH, 6))
    fake, _ = apply(networks.generator, state.generator.params, state.generator.batch_stats, z)
    d = state.discriminator
    for name, images in (('real', real), ('fake', fake)):
        logits, _ = apply(networks.discriminator, d.params, d.batch_stats, images)
        probability = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
        assert metrics[f'discriminator/{name}'] == pytest.approx(probability.mean(), rel=1e-5)


def test_each_update_of_d_has_its_own_batch():
    """Two updates of D equal two steps, of which the first does not update G."""
    config, _, state, real = tiny(discriminator_steps=2)
    key = jax.random.key(2)
    new, _ = step(config)(state, real, key)
    assert (int(new.discriminator.step), int(new.generator.step)) == (2, 1)

    config.discriminator_steps = 1
    once = step(config)
    frozen_generator = state.generator.replace(tx=optax.set_to_zero(), opt_state=optax.EmptyState())
    first, _ = once(state.replace(generator=frozen_generator), real[::2], key)
    second_key = jax.random.fold_in(key, RngStream.FURTHER_UPDATES + 1)
    generator = state.generator.replace(**first.generator.statistics)
    second, _ = once(first.replace(generator=generator), real[1::2], second_key)
    # In both cases G's update uses the key of the second update.
    assert_trees_close(new.discriminator.params, second.discriminator.params, rtol=1e-6)
    assert_trees_close(new.generator.params, second.generator.params, rtol=1e-6)


@pytest.mark.slow
def test_lazy_penalty_is_applied_every_interval_with_its_weight():
    changes = {'penalty': {'r1': 0.7}, 'discriminator': {'norm': 'none'}}
    config, _, state, real = tiny(**changes)
    key = jax.random.key(0)
    every, metrics = step(config)(state, real, key)
    config.penalty.interval = 3
    lazy = step(config)
    for index, times in [(0, 3), (1, 0), (2, 0), (3, 3)]:
        new, seen = lazy(state.replace(step=jnp.int32(index)), real, key)
        expected = times * metrics['discriminator/penalty']
        assert seen['discriminator/penalty'] == pytest.approx(float(expected), rel=1e-6)
        del new
    config.penalty.update(r1=2.1, interval=1)
    strong, _ = step(config)(state, real, key)
    new, _ = lazy(state, real, key)
    mu = lambda s: s.discriminator.opt_state[0].mu  # noqa: E731
    assert_trees_close(mu(new), mu(strong), rtol=1e-5, atol=1e-9)
    config.penalty.r1 = 0.0
    free, _ = step(config)(state, real, key)
    new, _ = lazy(state.replace(step=jnp.int32(1)), real, key)
    assert_trees_close(mu(new), mu(free), rtol=1e-5, atol=1e-9)
    del every


def test_singular_vectors_are_updated():
    config, _, state, real = tiny(
        discriminator={'spectral_norm': True, 'norm': 'none'}, generator={'spectral_norm': True}
    )
    run = step(config)
    for index in range(8):
        state, _ = run(state, real, jax.random.key(index))
    for network in (state.generator, state.discriminator):
        for name, stats in network.spectral_stats.items():
            kernel = np.asarray(network.params[name]['kernel'], np.float64)
            matrix = kernel.reshape(-1, kernel.shape[-1])
            norm_estimate = np.linalg.norm(matrix @ np.asarray(stats['kernel'], np.float64))
            largest = np.linalg.svd(matrix)[1][0]
            assert 0.8 * largest < norm_estimate < 1.0001 * largest, name


@pytest.mark.slow
def test_ada_probability_is_updated_and_used():
    changes = {
        'policy': ('color',), 'ada_target': 0.9, 'ada_images': 80,
    }  # fmt: skip
    config, _, state, real = tiny(augment=changes)
    assert state.augment_probability == 0
    state = state.replace(augment_probability=jnp.float32(0.25))
    new, metrics = step(config)(state, real, jax.random.key(0))
    assert metrics['augment/probability'] == 0.25
    # r_t is below its target unless all signs agree, so 8 of 80 images lower p by 0.1.
    assert new.augment_probability == pytest.approx(0.15, abs=1e-6)

    twice, *_ = tiny(augment=changes, discriminator_steps=2)
    faster, _ = step(twice)(state, jnp.concatenate([real, real]), jax.random.key(0))
    assert faster.augment_probability == pytest.approx(0.05, abs=1e-6)

    fixed, *_ = tiny(augment={'policy': ('color',), 'probability': 0.25})
    same, _ = step(fixed)(state.replace(augment_probability={}), real, jax.random.key(0))
    assert_trees_close(same.discriminator.params, new.discriminator.params, rtol=1e-6)


def test_real_and_fake_are_augmented_for_d_and_fakes_for_g():
    config, _, state, real = tiny(augment={'policy': ('cutout',)}, update_order='simultaneous')
    _, metrics = step(config)(state, real, jax.random.key(0))
    _, plain = step(tiny(update_order='simultaneous')[0])(state, real, jax.random.key(0))
    for name in ('discriminator/real', 'discriminator/fake', 'generator/loss'):
        assert metrics[name] != plain[name], name
    # If all pixels are removed, D's logits do not depend on G.
    config.augment.policy = ('blank',)
    with pytest.MonkeyPatch.context() as patch:
        blank = lambda key, images: 0.0 * images  # noqa: E731
        patch.setitem(augmentation.POLICIES, 'blank', blank)
        _, metrics = step(config)(state, real, jax.random.key(0))
    assert metrics['generator/gradient_norm'] == 0


def test_only_real_images_are_flipped():
    config, _, state, real = tiny(augment={'horizontal_flip': True}, update_order='simultaneous')
    symmetric = jnp.concatenate([real[:, :, :4], real[:, :, 3::-1]], axis=2)
    key = jax.random.key(0)
    flipped, _ = step(config)(state, symmetric, key)
    config.augment.horizontal_flip = False
    plain, _ = step(config)(state, symmetric, key)
    assert_trees_close(flipped.discriminator.params, plain.discriminator.params, rtol=0, atol=0)
    other, _ = step(config)(state, real, key)
    config.augment.horizontal_flip = True
    mirrored, _ = step(config)(state, real, key)
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()),
        mirrored.discriminator.opt_state[0].mu,
        other.discriminator.opt_state[0].mu,
    )
    assert min(jax.tree.leaves(moved)) > 0


@pytest.mark.parametrize(
    ('loss', 'output'), [('non_saturating', jax.nn.sigmoid), ('hinge', jnp.asarray)]
)
def test_logged_outputs_are_conditioned_on_the_labels(loss, output):
    config, networks, state, real = tiny(conditional=True, update_order='simultaneous')
    config.loss.name = loss
    labels = jnp.asarray([0, 1, 2, 0, 1, 2, 1, 1])
    key = jax.random.key(0)
    run = jax.jit(lambda state, labels: train_step(state, real, labels, key, config))
    _, metrics = run(state, labels)
    z = jax.random.normal(jax.random.fold_in(key, RngStream.LATENTS), (BATCH, 6))
    g, d = state.generator, state.discriminator
    variables = {'params': g.params, 'batch_stats': g.batch_stats}
    fake, _ = networks.generator.apply(variables, z, labels, train=True, mutable=['batch_stats'])
    variables = {'params': d.params, 'batch_stats': d.batch_stats}
    for name, images in (('real', real), ('fake', fake)):
        logits, _ = networks.discriminator.apply(
            variables, images, labels, train=True, mutable=['batch_stats']
        )
        expected = float(output(logits).mean())
        assert metrics[f'discriminator/{name}'] == pytest.approx(expected, rel=1e-5)
    _, others = run(state, labels[::-1])
    assert others['discriminator/real'] != metrics['discriminator/real']


def test_flipped_labels_reach_the_loss():
    config, _, state, real = tiny(loss={'label_flip_prob': 1.0}, update_order='simultaneous')
    key = jax.random.key(0)
    _, flipped = step(config)(state, real, key)
    config.loss.label_flip_prob = 0.0
    _, plain = step(config)(state, real, key)
    # If all labels are flipped, the loss differs and the logged outputs do not.
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    assert flipped['discriminator/loss'] != plain['discriminator/loss']
    assert logit(flipped['discriminator/real']) == pytest.approx(
        logit(plain['discriminator/real']), abs=1e-5
    )


@pytest.mark.slow
def test_lazy_penalties_count_updates_of_d_and_log_their_mean():
    """Compare with R1 of each update's batch; D's learning rate is 0, so D does not change."""
    r1, interval = 0.7, 3
    config, networks, state, real = tiny(
        discriminator_steps=3,
        penalty={'r1': r1, 'interval': interval},
        discriminator={'norm': 'none'},
        optimizer={'discriminator': {'learning_rate': 0.0}},
    )
    real = jnp.concatenate([real, -real, 0.5 * real])

    def discriminate(images):
        return apply(networks.discriminator, state.discriminator.params, {}, images)[0]

    means = [float(gradient_norms(discriminate, real[first::3]).mean()) for first in range(3)]
    penalties = [interval * r1 / 2 * mean for mean in means]
    run = step(config)
    # Of updates 0, 1 and 2, only the first is due.
    _, metrics = run(state, real, jax.random.key(0))
    assert metrics['discriminator/penalty'] == pytest.approx(penalties[0], rel=1e-5)

    config.penalty.interval = 2
    penalties = [value * 2 / interval for value in penalties]
    run = step(config)
    for index, due in [(0, (0, 2)), (1, (1,)), (2, (0, 2))]:
        _, metrics = run(state.replace(step=jnp.int32(index)), real, jax.random.key(0))
        expected = np.mean([penalties[update] for update in due])
        assert metrics['discriminator/penalty'] == pytest.approx(expected, rel=1e-5)

    config.penalty.interval = 8  # None of the updates 3, 4 and 5 is due.
    _, metrics = step(config)(state.replace(step=jnp.int32(1)), real, jax.random.key(0))
    assert metrics['discriminator/penalty'] == 0


def test_penalties_are_gradients_with_respect_to_unaugmented_images():
    """The gradient with respect to removed pixels is 0."""
    changes = {'penalty': {'r1': 1.0}, 'discriminator': {'norm': 'none'}}
    config, _, state, real = tiny(augment={'policy': ('cutout',)}, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(augmentation.POLICIES, 'cutout', lambda key, images: 0.0 * images)
        _, metrics = step(config)(state, real, jax.random.key(0))
    assert metrics['discriminator/penalty'] == 0


def test_schedules_of_d_count_steps():
    optimizer = {'name': 'sgd', 'learning_rate': 1.0, 'warmup_steps': 4}
    _, _, state, _ = tiny(discriminator_steps=2, optimizer={'discriminator': optimizer})
    update, params = state.discriminator.tx.update, {'w': jnp.zeros(1)}
    opt_state = state.discriminator.tx.init(params)
    for rate in (0.25, 0.25, 0.5, 0.5):
        move, opt_state = update({'w': jnp.ones(1)}, opt_state, params)
        assert move['w'][0] == pytest.approx(-rate)
