import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import losses
from dcgan_jax.configs import cifar10
from dcgan_jax.losses import LOSSES

REAL = np.array([[-40.0], [-1.5], [0.0], [0.3], [60.0]])
FAKE = np.array([[-30.0], [-0.2], [0.0], [2.5], [35.0]])


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)  # float64


# The papers' formulas in float64: (D's loss, G's loss).
EXPECTED = {
    'non_saturating': (
        -np.mean(log_sigmoid(REAL)) - np.mean(log_sigmoid(-FAKE)),
        -np.mean(log_sigmoid(FAKE)),
    ),
    'least_squares': (
        0.5 * np.mean((REAL - 1) ** 2) + 0.5 * np.mean(FAKE**2),
        0.5 * np.mean((FAKE - 1) ** 2),
    ),
    'wasserstein': (np.mean(FAKE) - np.mean(REAL), -np.mean(FAKE)),
    'hinge': (
        np.mean(np.maximum(0, 1 - REAL)) + np.mean(np.maximum(0, 1 + FAKE)),
        -np.mean(FAKE),
    ),
    'relativistic': (-np.mean(log_sigmoid(REAL - FAKE)), -np.mean(log_sigmoid(FAKE - REAL))),
}


@pytest.mark.parametrize('name', sorted(LOSSES))
def test_loss_equals_the_published_formula(name):
    real, fake = (jnp.asarray(x, jnp.float32) for x in (REAL, FAKE))
    loss = LOSSES[name]
    assert loss.discriminator(real, fake) == pytest.approx(EXPECTED[name][0], rel=1e-6)
    assert loss.generator(real, fake) == pytest.approx(EXPECTED[name][1], rel=1e-6)


def test_non_saturating_losses_of_zero_logits():
    zeros = np.zeros((4, 1), np.float32)
    loss = LOSSES['non_saturating']
    assert loss.discriminator(zeros, zeros) == pytest.approx(2 * np.log(2))
    assert loss.generator(None, zeros) == pytest.approx(np.log(2))


@pytest.mark.parametrize(('name', 'best'), [('non_saturating', np.log(9)), ('least_squares', 0.9)])
def test_label_smoothing_changes_the_optimal_real_logit_only(name, best):
    """sigmoid(log 9) = 0.9; the gradient for fakes does not change."""
    config = cifar10.get_config().loss
    config.name, config.label_smoothing = name, 0.1
    loss = losses.create(config).discriminator
    fake = jnp.zeros((1, 1))
    gradient = jax.grad(lambda logit: loss(logit, fake))
    assert gradient(jnp.full((1, 1), best))[0, 0] == pytest.approx(0, abs=1e-6)
    assert gradient(jnp.full((1, 1), best - 0.1))[0, 0] < 0
    assert gradient(jnp.full((1, 1), best + 0.1))[0, 0] > 0
    plain = LOSSES[name].discriminator
    fake_gradients = [jax.grad(f, argnums=1)(fake, fake + 2.0) for f in (loss, plain)]
    assert fake_gradients[0] == fake_gradients[1]


def test_content_losses_are_means_over_all_pixels():
    rng = np.random.default_rng(0)
    fake, real = rng.uniform(-1, 1, (2, 3, 4, 5, 2))
    single = (jnp.asarray(fake, jnp.float32), jnp.asarray(real, jnp.float32))
    assert losses.content(*single, 'l1') == pytest.approx(np.abs(fake - real).sum() / 120)
    assert losses.content(*single, 'l2') == pytest.approx(((fake - real) ** 2).sum() / 120)


def test_feature_matching_weights_all_stages_equally():
    """Wang et al. 2018, eq. 4, with a mean over stages instead of the sum."""
    rng = np.random.default_rng(0)
    sizes = [(2, 4, 4, 3), (2, 2, 2, 6)]
    real, fake = ([rng.normal(size=size) for size in sizes] for _ in range(2))
    stages = [np.abs(a - b).mean() for a, b in zip(real, fake, strict=True)]
    pairs = [tuple(jnp.float32(x) for x in maps) for maps in zip(real, fake, strict=True)]
    assert losses.feature_matching(pairs) == pytest.approx((stages[0] + stages[1]) / 2)


def test_flip_labels_swaps_the_expected_fraction():
    real, fake = jnp.arange(4000.0).reshape(-1, 1), -1.0 - jnp.arange(4000.0).reshape(-1, 1)
    swapped_real, swapped_fake = losses.flip_labels(jax.random.key(0), real, fake, 0.3)
    flipped = np.asarray(swapped_real < 0)
    assert flipped.mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(swapped_real, np.where(flipped, fake, real))
    np.testing.assert_array_equal(swapped_fake, np.where(flipped, real, fake))
    assert losses.flip_labels(jax.random.key(0), real, fake, 0.0)[0] is real
