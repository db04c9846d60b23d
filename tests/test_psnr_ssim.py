"""PSNR and SSIM compared to scikit-image and hand-computed values."""

import numpy as np
import pytest

from dcgan_jax.metrics.psnr_ssim import psnr, ssim
from tests.peers import peer


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (4, 32, 28, 3), np.uint8)
    noise = rng.integers(-40, 41, real.shape)
    return (real + noise).clip(0, 255).astype(np.uint8), real


@pytest.mark.slow
def test_psnr_and_ssim_equal_scikit_image(pairs):
    skimage = peer('skimage.metrics')
    for images in (pairs, tuple(array[..., :1] for array in pairs)):
        expected = [
            skimage.structural_similarity(
                made, real, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False,
            )
            for made, real in zip(*images, strict=True)
        ]  # fmt: skip
        np.testing.assert_allclose(ssim(*images), expected, rtol=1e-9)
        expected = [
            skimage.peak_signal_noise_ratio(real, made, data_range=255)
            for made, real in zip(*images, strict=True)
        ]
        np.testing.assert_allclose(psnr(*images), expected, rtol=1e-12)


def test_psnr_and_ssim_of_equal_images(pairs):
    _, real = pairs
    np.testing.assert_allclose(psnr(real, real), 10 * np.log10(255**2 * 12))
    np.testing.assert_allclose(ssim(real, real), 1.0)


def test_only_pixels_in_holes_are_compared():
    real = np.zeros((1, 16, 16, 1), np.uint8)
    made, holes = real.copy(), np.zeros((1, 16, 16, 1))
    holes[0, 7:9, 7:9] = 1
    made[0, 7, 7], made[0, 0, 0] = 10, 255
    assert psnr(made, real, holes)[0] == pytest.approx(10 * np.log10(255**2 / (100 / 4)))
    made[0, 7, 7] = 0
    assert psnr(made, real, holes)[0] == pytest.approx(10 * np.log10(255**2 * 12))
    assert ssim(made, real, holes)[0] == pytest.approx(1.0)
    assert ssim(made, real)[0] < 1.0
    holes[:] = 0
    assert np.isnan(psnr(made, real, holes)).all()
    assert np.isnan(ssim(made, real, holes)).all()


def test_ssim_of_images_smaller_than_the_window_is_nan():
    assert np.isnan(ssim(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.uint8))).all()
