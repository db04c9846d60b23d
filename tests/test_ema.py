"""The EMA of G's parameters and of its statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax.configs import quickstart
from dcgan_jax.train_step import ema_decay
from tests.reference_step import (
    assert_trees_close,
    step,
    tiny,
)


@pytest.mark.parametrize('step', [1, 10, 100, 10_000])
def test_ema_decay_equals_halflife_with_ramp_up(step):
    config = quickstart.get_config().ema
    config.halflife_images, config.rampup_ratio = 20_000.0, 0.05
    halflife = min(20_000, 0.05 * 64 * step)
    assert ema_decay(jnp.int32(step), 64, config) == pytest.approx(0.5 ** (64 / halflife))


def test_ema_equals_the_recursion():
    config, _, state, real = tiny(ema={'halflife_images': 1.0, 'rampup_ratio': 0.05})
    expected = jax.tree.map(np.asarray, state.ema_params)
    run = step(config)
    for index in range(4):
        state, _ = run(state, real, jax.random.key(index))
        decay = 0.5 ** (8 / min(1.0, 0.05 * 8 * (index + 1)))
        expected = jax.tree.map(
            lambda e, p, d=decay: d * e + (1 - d) * np.asarray(p), expected, state.generator.params
        )
    assert_trees_close(state.ema_params, expected, rtol=1e-5, atol=1e-7)

    config.ema.halflife_images = 0.0
    new, _ = step(config)(state, real, jax.random.key(0))
    assert_trees_close(new.ema_params, new.generator.params, rtol=1e-6)


def test_averaged_statistics_equal_the_recursion():
    config, _, state, real = tiny(ema={'batch_stats': 'average', 'rampup_ratio': 2.0})
    before = state.ema_batch_stats
    new, _ = step(config)(state, real, jax.random.key(0))
    decay = 0.5 ** (8 / (2.0 * 8))
    expected = jax.tree.map(
        lambda old, live: decay * old + (1 - decay) * live, before, new.generator.batch_stats
    )
    assert_trees_close(new.ema_batch_stats, expected, rtol=1e-5)
    assert jax.tree.leaves(before)
