"""Metrics compared to torch-fidelity and prdc, if installed, and to hand-computed values."""

import logging

import numpy as np
import pytest
from scipy import linalg

from dcgan_jax.metrics import statistics as statistics_lib
from dcgan_jax.metrics.frechet_distance import frechet_distance
from dcgan_jax.metrics.inception_score import inception_score
from dcgan_jax.metrics.kernel_distance import kernel_distance, squared_mmd
from dcgan_jax.metrics.precision_recall import precision_recall
from dcgan_jax.runtime.errors import UserError
from tests.peers import peer


@pytest.fixture(scope='module')
def real_and_fake():
    """Two different sets of correlated features, float32 as from an extractor."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(24, 24))
    real = np.maximum(rng.normal(size=(1500, 24)) @ mix, 0)
    fake = np.maximum(rng.normal(size=(1300, 24)) @ (mix + 0.1 * rng.normal(size=mix.shape)), 0)
    return real.astype(np.float32), (0.3 + fake).astype(np.float32)


def test_statistics_equal_numpy_also_in_batches(real_and_fake):
    features = real_and_fake[0] + 1000  # Far from 0, sums of squares would cancel.
    moments = statistics_lib.Moments()
    for start in (0, 1, 400, 1000):
        moments.add(features[start : {0: 1, 1: 400, 400: 1000, 1000: 1500}[start]])
    for result in (moments.statistics(), statistics_lib.statistics(features)):
        wide = features.astype(np.float64)
        np.testing.assert_allclose(result.mu, wide.mean(0), rtol=1e-13)
        np.testing.assert_allclose(result.sigma, np.cov(wide, rowvar=False), rtol=1e-9, atol=1e-9)
        assert result.n == 1500


def test_frechet_distance_equals_the_formula(real_and_fake):
    (mu1, sigma1, _), (mu2, sigma2, _) = map(statistics_lib.statistics, real_and_fake)
    root = linalg.sqrtm(sigma1 @ sigma2)
    expected = np.sum((mu1 - mu2) ** 2) + np.trace(sigma1 + sigma2 - 2 * root.real)
    distance = frechet_distance(mu1, sigma1, mu2, sigma2)
    assert distance == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(mu2, sigma2, mu1, sigma1) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(mu1, sigma1, mu1, sigma1) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_diagonal_gaussians():
    # Diagonal covariances: sum of (difference of means)^2 + (difference of deviations)^2.
    distance = frechet_distance([0, 1], np.diag([4, 9]), [3, 1], np.diag([1, 0]))
    assert distance == pytest.approx(9 + (2 - 1) ** 2 + (3 - 0) ** 2)


def test_frechet_distance_of_equal_statistics_is_not_negative():
    rng = np.random.default_rng(0)
    for _ in range(20):  # Without clipping, rounding makes about a third negative.
        features = rng.normal(size=(64, 16)) * 100
        mean, covariance = features.mean(0), np.cov(features, rowvar=False)
        assert 0 <= frechet_distance(mean, covariance, mean, covariance) < 1e-6


@pytest.mark.slow
def test_frechet_distance_equals_torch_fidelity(real_and_fake):
    fidelity = peer('torch_fidelity.metric_fid')
    first, second = (
        {'mu': f.astype(np.float64).mean(0), 'sigma': np.cov(f.astype(np.float64), rowvar=False)}
        for f in real_and_fake
    )
    expected = fidelity.fid_statistics_to_metric(first, second, False)
    ours = [statistics_lib.statistics(features)[:2] for features in real_and_fake]
    assert frechet_distance(*ours[0], *ours[1]) == pytest.approx(
        expected['frechet_inception_distance'], rel=1e-6
    )


def test_squared_mmd_equals_hand_computed_value(real_and_fake):
    x, y = (features[:5].astype(np.float64) for features in real_and_fake)

    def kernel(a, b):
        return (a @ b / 24 + 1) ** 3

    others = [(i, j) for i in range(5) for j in range(5) if i != j]
    expected = np.mean([kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in others])
    expected -= 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert squared_mmd(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_kernel_distance_equals_torch_fidelity(real_and_fake):
    torch, fidelity = peer('torch'), peer('torch_fidelity.metric_kid')
    expected = fidelity.kid_features_to_metric(
        *(torch.from_numpy(features).double() for features in real_and_fake),
        kid_subsets=20,
        verbose=False,
    )
    mean, spread = kernel_distance(*real_and_fake, subsets=20)
    assert mean == pytest.approx(expected['kernel_inception_distance_mean'], rel=1e-6)
    assert spread == pytest.approx(expected['kernel_inception_distance_std'], rel=1e-6)


def test_inception_score_equals_hand_computed_values():
    confident = 50 * np.eye(4)[np.arange(400) % 4]
    assert inception_score(confident, splits=1) == pytest.approx((4, 0), rel=1e-9)
    assert inception_score(np.zeros((40, 4)))[0] == pytest.approx(1)
    # Classes without samples, whose probability is 0 even in float64, have no effect.
    absent = np.concatenate([confident, np.full((400, 2), -2000.0)], 1)
    assert inception_score(absent, splits=1) == pytest.approx((4, 0), rel=1e-9)


@pytest.mark.slow
def test_inception_score_equals_torch_fidelity(real_and_fake):
    torch, fidelity = peer('torch'), peer('torch_fidelity.metric_isc')
    logits = real_and_fake[0][:1234]  # The number of samples is not divisible by 10.
    expected = fidelity.isc_features_to_metric(torch.from_numpy(logits))
    mean, spread = inception_score(logits)
    assert mean == pytest.approx(expected['inception_score_mean'], rel=1e-6)
    assert spread == pytest.approx(expected['inception_score_std'], rel=1e-6)


def test_precision_recall_equals_hand_computed_values():
    real, fake = np.array([[0.0], [1], [2], [10]]), np.array([[0.5], [2.5], [50], [51]])
    # Radii with one neighbor: real 1, 1, 1, 8; fake 2, 2, 1, 1.
    result = precision_recall(real, fake, num_neighbors=1)
    assert result.precision == pytest.approx(2 / 4)  # 0.5 and 2.5 are in balls of real samples.
    assert result.recall == pytest.approx(3 / 4)  # 0, 1 and 2 are in balls of fake samples.
    # 0.5 is in the balls of the real samples 0 and 1, and 2.5 in those of 2 and 10.
    assert result.density == pytest.approx((2 + 2) / 4)
    assert result.coverage == pytest.approx(4 / 4)


def test_precision_recall_of_equal_sets_is_one(real_and_fake):
    np.testing.assert_allclose(precision_recall(real_and_fake[0], real_and_fake[0]), 1)


@pytest.mark.slow
@pytest.mark.parametrize('shift', [0, 2, 8])
def test_precision_recall_equals_prdc(real_and_fake, shift, capsys):
    prdc = peer('prdc')
    real, fake = (features.astype(np.float64) for features in real_and_fake)
    expected = prdc.compute_prdc(real, fake + shift, nearest_k=5)
    assert precision_recall(real, fake + shift)._asdict() == pytest.approx(expected)


def test_too_few_samples_and_invalid_features_are_rejected(real_and_fake):
    real, fake = real_and_fake
    broken = fake.copy()
    broken[3, 5] = np.nan
    functions = {
        lambda f: statistics_lib.statistics(f): 1,
        lambda f: kernel_distance(real, f): 999,
        lambda f: inception_score(f): 9,
        lambda f: precision_recall(real, f): 5,
    }
    for function, too_few in functions.items():
        with pytest.raises(UserError, match='row 3'):
            function(broken)
        with pytest.raises(UserError, match=f'{too_few} .*at least {too_few + 1}'):
            function(fake[:too_few])
    with pytest.raises(UserError, match='24 and 23 dimensions'):
        kernel_distance(real, fake[:, 1:])
    with pytest.raises(UserError, match='not finite'):
        frechet_distance([np.nan], [[1]], [0], [[1]])
    with pytest.raises(UserError, match=r'means \[D\]'):
        frechet_distance([0], [[1]], [0, 0], [[1]])


def test_fewer_samples_than_dimensions_cause_a_warning(real_and_fake, caplog):
    with caplog.at_level(logging.WARNING, 'absl'):
        statistics_lib.statistics(real_and_fake[0])
        assert not caplog.messages
        statistics_lib.statistics(real_and_fake[0][:24])
    assert '24 samples for 24 feature dimensions' in caplog.messages[0]
