import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import optimizers
from dcgan_jax.configs import cifar10

GRADIENT = np.array([3.0, -4.0])  # Its norm is 5.


def settings(**changes):
    config = cifar10.get_config().optimizer.generator
    config.update(changes)
    return config


def updates(config, count, updates_per_step=1):
    """Return the parameter updates of `count` consecutive steps with the same gradient."""
    optimizer = optimizers.create(config, updates_per_step)
    params = jnp.zeros(2)
    state, moves = optimizer.init(params), []
    for _ in range(count):
        move, state = optimizer.update(jnp.asarray(GRADIENT, jnp.float32), state, params)
        moves.append(np.asarray(move, np.float64))
    return moves


@pytest.fixture(autouse=True)
def _standard_promotion(monkeypatch):
    """Use standard promotion, because Adam computes b1**count of a float and an int32."""
    import jax

    with jax.numpy_dtype_promotion('standard'):
        yield


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        (0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (20, 1.0), (60, 0.6), (100, 0.2), (500, 0.2),
    ],
)  # fmt: skip
def test_linear_schedule_equals_hand_computed_values(step, expected):
    config = settings(
        learning_rate=1.0, warmup_steps=10, schedule='linear', decay_start=20, decay_end=100,
        final_lr_ratio=0.2,
    )  # fmt: skip
    assert optimizers.learning_rate(jnp.int32(step), config) == pytest.approx(expected)


def test_cosine_schedule_equals_the_formula():
    config = settings(learning_rate=2.0, schedule='cosine', decay_start=0, decay_end=100)
    for step in (0, 25, 50, 75, 100):
        expected = 1 + np.cos(np.pi * step / 100)
        actual = optimizers.learning_rate(jnp.int32(step), config)
        assert actual == pytest.approx(expected, abs=1e-6)


def test_schedules_count_steps_and_not_updates():
    config = settings(name='sgd', learning_rate=1.0, warmup_steps=4)
    moves = updates(config, 6, updates_per_step=2)
    rates = [-move[0] / GRADIENT[0] for move in moves]
    np.testing.assert_allclose(rates, [0.25, 0.25, 0.5, 0.5, 0.75, 0.75], rtol=1e-6)


def test_clipping_bounds_the_norm_of_the_gradient():
    (free,) = updates(settings(name='sgd', learning_rate=1.0, clip_norm=6.0), 1)
    (clipped,) = updates(settings(name='sgd', learning_rate=1.0, clip_norm=1.0), 1)
    np.testing.assert_allclose(free, -GRADIENT, rtol=1e-6)
    np.testing.assert_allclose(clipped, -GRADIENT / 5, rtol=1e-6)


def test_options_are_passed_to_the_optimizer():
    moves = updates(settings(name='sgd', learning_rate=0.1, momentum=0.5), 3)
    for move, velocity in zip(moves, [1, 1.5, 1.75], strict=True):
        np.testing.assert_allclose(move, -0.1 * velocity * GRADIENT, rtol=1e-6)
    moves = updates(settings(name='rmsprop', learning_rate=0.1, decay=0.75, eps=1e-12), 2)
    # The second moment is 1 - 0.75^t times the square.
    for move, fraction in zip(moves, [0.25, 0.4375], strict=True):
        np.testing.assert_allclose(move, -0.1 * np.sign(GRADIENT) / np.sqrt(fraction), rtol=1e-5)


@pytest.mark.parametrize(('name', 'weight_decay'), [('adam', 0.0), ('adamw', 0.3)])
def test_adam_equals_the_published_algorithm(name, weight_decay):
    """Kingma & Ba 2015, and the decoupled decay of Loshchilov & Hutter 2019, in float64."""
    config = settings(name=name, learning_rate=0.1, b1=0.5, b2=0.75, eps=0.25)
    config.weight_decay = weight_decay
    optimizer = optimizers.create(config)
    params = np.asarray([2.0, -1.0])
    state = optimizer.init(jnp.asarray(params, jnp.float32))
    m, v = np.zeros(2), np.zeros(2)
    # Bias-corrected moments of constant gradients would not depend on b1 and b2.
    for t, gradient in enumerate(np.asarray([[3.0, -4.0], [-1.0, 0.5], [0.0, 2.0]]), start=1):
        move, state = optimizer.update(
            jnp.asarray(gradient, jnp.float32), state, jnp.asarray(params, jnp.float32)
        )
        m, v = 0.5 * m + 0.5 * gradient, 0.75 * v + 0.25 * gradient**2
        expected = -0.1 * m / (1 - 0.5**t) / (np.sqrt(v / (1 - 0.75**t)) + 0.25)
        expected -= 0.1 * weight_decay * params
        np.testing.assert_allclose(move, expected, rtol=1e-5)
        params = params + expected


@pytest.mark.parametrize('name', optimizers.NAMES)
def test_every_optimizer_descends(name):
    (move, *_) = updates(settings(name=name), 1)
    assert move @ GRADIENT < 0
