"""The update against a reference written by hand with NumPy arithmetic on JAX gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import quickstart
from dcgan_jax import models, train_state
from dcgan_jax.train_step import Stream, ema_decay, sample_latents, train_step

IMAGE_SHAPE = (8, 8, 3)
BATCH = 8


def tiny(**changes):
    config = quickstart.get_config()
    config.lowering = 'xla'  # compiles sooner
    config.latent_dim = 6
    config.generator.update(base_size=2, base_features=8, features=(6,), strides=(2, 2), width=1.0)
    config.discriminator.update(features=(5, 7), strides=(2, 2), width=1.0)
    config.update(changes)
    networks = models.build(config, IMAGE_SHAPE)
    state = jax.jit(lambda: train_state.create(config, networks, IMAGE_SHAPE))()
    real = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (BATCH, *IMAGE_SHAPE)), jnp.float32)
    return config, networks, state, real


def step(config):
    return jax.jit(lambda state, real, key: train_step(state, real, None, key, config))


def adam_first_step(params, grads, config):
    """Kingma & Ba 2015, algorithm 1, at t = 1, in float64."""

    def update(p, g):
        p, g = np.asarray(p, np.float64), np.asarray(g, np.float64)
        m, v = (1 - config.b1) * g, (1 - config.b2) * g**2
        m_hat, v_hat = m / (1 - config.b1), v / (1 - config.b2)
        return p - config.learning_rate * m_hat / (np.sqrt(v_hat) + config.eps)

    return jax.tree.map(update, params, grads)


def assert_trees_close(actual, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), actual, expected)


def apply(module, params, batch_stats, x, key=None):
    rngs = {} if key is None else {'dropout': key}
    out, new = module.apply(
        {'params': params, 'batch_stats': batch_stats},
        x,
        train=True,
        mutable=['batch_stats'],
        rngs=rngs,
    )
    return out, new.get('batch_stats', {})


def reference(config, networks, state, real, key):
    """One step as the textbook has it: whole losses, whole gradients, nothing shared."""
    g, d = networks
    gp, gs = state.generator.params, state.generator.batch_stats
    dp, ds = state.discriminator.params, state.discriminator.batch_stats
    keys = [jax.random.fold_in(key, stream) for stream in Stream]
    z = jax.random.normal(keys[0], (BATCH, config.latent_dim))
    fake, fake_stats = apply(g, gp, gs, z)

    def d_loss(params):
        real_logits, stats = apply(d, params, ds, real, keys[2])
        fake_logits, stats = apply(d, params, stats, jnp.asarray(np.asarray(fake)), keys[3])
        loss = -jnp.log(jax.nn.sigmoid(real_logits)).mean()
        loss -= jnp.log(1 - jax.nn.sigmoid(fake_logits)).mean()
        return loss, stats

    (d_value, new_ds), d_grads = jax.jit(jax.value_and_grad(d_loss, has_aux=True))(dp)
    new_dp = adam_first_step(dp, d_grads, config.optimizer.discriminator)

    alternating = config.update == 'alternating'
    judge = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), new_dp if alternating else dp)
    judge_stats = new_ds if alternating else ds
    if config.fresh_latents:
        z = jax.random.normal(keys[1], (BATCH, config.latent_dim))
        gs = fake_stats

    def g_loss(params):
        images, stats = apply(g, params, gs, z)
        logits, _ = apply(d, judge, judge_stats, images, keys[4] if alternating else keys[3])
        return -jnp.log(jax.nn.sigmoid(logits)).mean(), stats

    (g_value, new_gs), g_grads = jax.jit(jax.value_and_grad(g_loss, has_aux=True))(gp)
    new_gp = adam_first_step(gp, g_grads, config.optimizer.generator)
    return new_gp, new_gs, new_dp, new_ds, g_value, d_value


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'update': 'simultaneous'},
        {'fresh_latents': True},
        {'update': 'simultaneous', 'discriminator': {'dropout_rate': 0.3}},
        {'discriminator': {'dropout_rate': 0.3, 'norm': 'none'}},
        {'optimizer': {'generator': {'eps': 1e-2}, 'discriminator': {'eps': 1e-2}}},
    ],
    ids=str,
)
def test_one_step_equals_the_reference(changes):
    config, networks, state, real = tiny(**changes)
    key = jax.random.key(3)
    new, metrics = step(config)(state, real, key)
    gp, gs, dp, ds, g_value, d_value = reference(config, networks, state, real, key)
    # Adam's first step is lr * sign(g) wherever |g| >> eps, so parameters say little about small
    # gradients; the losses, the statistics and the direction say the rest.
    assert_trees_close(new.discriminator.params, dp, rtol=2e-5, atol=2e-6)
    assert_trees_close(new.generator.params, gp, rtol=2e-5, atol=2e-6)
    assert_trees_close(new.discriminator.batch_stats, ds, rtol=1e-5, atol=1e-7)
    assert_trees_close(new.generator.batch_stats, gs, rtol=1e-5, atol=1e-7)
    assert metrics['generator/loss'] == pytest.approx(float(g_value), rel=1e-5)
    assert metrics['discriminator/loss'] == pytest.approx(float(d_value), rel=1e-5)
    assert int(new.step) == 1


def test_the_update_of_each_network_leaves_the_other_alone():
    config, _, state, real = tiny()
    key = jax.random.key(0)
    for still in ('generator', 'discriminator'):
        frozen = getattr(state, still).replace(tx=optax.set_to_zero(), opt_state=optax.EmptyState())
        new, _ = step(config)(state.replace(**{still: frozen}), real, key)
        moved = 'discriminator' if still == 'generator' else 'generator'
        before, after = getattr(state, still).params, getattr(new, still).params
        assert_trees_close(after, before, rtol=0, atol=0)
        changed = jax.tree.map(
            lambda a, b: float(jnp.abs(a - b).max()),
            getattr(new, moved).params,
            getattr(state, moved).params,
        )
        assert min(jax.tree.leaves(changed)) > 0


def test_the_generators_gradient_is_that_of_its_own_loss_alone():
    """The shared forward pass must not let D's loss, softplus(+logit), into G."""
    config, networks, state, real = tiny(update='simultaneous')
    key = jax.random.key(0)
    new, _ = step(config)(state, real, key)
    z = sample_latents(jax.random.fold_in(key, Stream.LATENTS), BATCH, config.latent_dim)
    d = state.discriminator

    def own_loss(params):
        images, _ = apply(networks.generator, params, state.generator.batch_stats, z)
        logits, _ = apply(networks.discriminator, d.params, d.batch_stats, images)
        return jnp.mean(jax.nn.softplus(-logits))

    grads = jax.jit(jax.grad(own_loss))(state.generator.params)
    # Adam's first moment after one step is (1 - b1) times the gradient.
    share = 1 - config.optimizer.generator.b1
    expected = jax.tree.map(lambda g: share * g, grads)
    assert_trees_close(new.generator.opt_state[0].mu, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('step', [1, 10, 100, 10_000])
def test_ema_decay_is_the_halflife_with_ramp_up(step):
    config = quickstart.get_config().ema
    seen, batch = step * 64, 64
    halflife = min(config.halflife_images, config.rampup_ratio * seen)
    assert ema_decay(jnp.int32(step), batch, config) == pytest.approx(0.5 ** (batch / halflife))


def test_gradient_and_parameter_norms_are_those_of_their_networks():
    config, _, state, real = tiny()
    new, metrics = step(config)(state, real, jax.random.key(0))
    for name in ('generator', 'discriminator'):
        network, b1, b2 = getattr(new, name), *(config.optimizer[name][b] for b in ('b1', 'b2'))
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


def test_ema_follows_the_recursion_and_halflife_0_is_the_live_generator():
    config, _, state, real = tiny()
    expected = jax.tree.map(np.asarray, state.ema_params)
    run = step(config)
    for index in range(4):
        state, _ = run(state, real, jax.random.key(index))
        decay = float(ema_decay(jnp.int32(index + 1), BATCH, config.ema))
        expected = jax.tree.map(
            lambda e, p, d=decay: d * e + (1 - d) * np.asarray(p), expected, state.generator.params
        )
    assert_trees_close(state.ema_params, expected, rtol=1e-5, atol=1e-7)

    config.ema.halflife_images = 0.0
    new, _ = step(config)(state, real, jax.random.key(0))
    assert_trees_close(new.ema_params, new.generator.params, rtol=1e-6)


def test_metrics_are_what_they_are_called():
    config, networks, state, real = tiny(update='simultaneous')
    key = jax.random.key(1)
    _, metrics = step(config)(state, real, key)
    z = sample_latents(jax.random.fold_in(key, Stream.LATENTS), BATCH, config.latent_dim)
    fake, _ = apply(networks.generator, state.generator.params, state.generator.batch_stats, z)
    d = state.discriminator
    for name, images in (('real', real), ('fake', fake)):
        logits, _ = apply(networks.discriminator, d.params, d.batch_stats, images)
        probability = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
        assert metrics[f'discriminator/{name}'] == pytest.approx(probability.mean(), rel=1e-5)
