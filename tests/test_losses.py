import numpy as np
import pytest

from dcgan_jax.losses import LOSSES

REAL = np.array([[-40.0], [-1.5], [0.0], [0.3], [60.0]])
FAKE = np.array([[-30.0], [-0.2], [0.0], [2.5], [35.0]])


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)  # float64


def test_non_saturating_is_the_formula_of_the_paper():
    loss = LOSSES['non_saturating']
    expected_d = -np.mean(log_sigmoid(REAL)) - np.mean(log_sigmoid(-FAKE))
    expected_g = -np.mean(log_sigmoid(FAKE))
    actual_d = loss.discriminator(REAL.astype(np.float32), FAKE.astype(np.float32))
    assert actual_d == pytest.approx(expected_d, rel=1e-6)
    assert loss.generator(None, FAKE.astype(np.float32)) == pytest.approx(expected_g, rel=1e-6)


def test_non_saturating_at_a_blind_discriminator_is_two_and_one_times_log_2():
    zeros = np.zeros((4, 1), np.float32)
    loss = LOSSES['non_saturating']
    assert loss.discriminator(zeros, zeros) == pytest.approx(2 * np.log(2))
    assert loss.generator(None, zeros) == pytest.approx(np.log(2))
