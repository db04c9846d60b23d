"""PSNR and SSIM."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

_RADIUS, _SIGMA = 5, 1.5  # Radius and standard deviation of SSIM's Gaussian window, in pixels.
_LEVELS = 255.0


def psnr(images: np.ndarray, real: np.ndarray, holes: np.ndarray | None = None) -> np.ndarray:
    """Compute the peak signal-to-noise ratio in dB, 10 log10(255^2 / max(MSE, 1/12)).

    The MSE is bounded below by that of rounding, 1/12, so that the PSNR of identical images is
    finite.

    Args:
        images: Images, uint8 `[N, H, W, C]`.
        real: Original images, of the same shape.
        holes: Mask, `[N, H, W, 1]`; if given, only pixels where it is 1 are compared.

    Returns:
        PSNR, float64 `[N]`, at most 58.9; NaN if no pixel is compared.
    """
    squares = np.square(images.astype(np.float64) - real.astype(np.float64)).mean(axis=3)
    weights = np.ones_like(squares) if holes is None else np.asarray(holes[..., 0], np.float64)
    with np.errstate(invalid='ignore'):
        error = (squares * weights).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
    return 10.0 * np.log10(_LEVELS**2 / np.maximum(error, 1 / 12))


def ssim(images: np.ndarray, real: np.ndarray, holes: np.ndarray | None = None) -> np.ndarray:
    """Compute the structural similarity, averaged over channels and window positions.

    The parameters are those of Wang et al. 2004: a Gaussian window of 11 pixels with a standard
    deviation of 1.5, within the image; K1 = 0.01, K2 = 0.03, and 255 levels.

    Args:
        images: Images, uint8 `[N, H, W, C]`.
        real: Original images, of the same shape.
        holes: Mask, `[N, H, W, 1]`; if given, only windows centered where it is 1 are used.

    Returns:
        SSIM, float64 `[N]`, at most 1; NaN if no window is used or the image is smaller than one.
    """
    x, y = images.astype(np.float64), real.astype(np.float64)
    if min(x.shape[1:3]) <= 2 * _RADIUS:
        return np.full(len(x), np.nan)
    mean_x, mean_y = _window(x), _window(y)
    variance_x, variance_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * _LEVELS) ** 2, (0.03 * _LEVELS) ** 2
    similarity = (2.0 * mean_x * mean_y + c1) * (2.0 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    similarity = similarity.mean(axis=3)
    inner = slice(_RADIUS, -_RADIUS)
    weights = np.ones_like(similarity)
    if holes is not None:
        weights = np.asarray(holes[:, inner, inner, 0], np.float64)
    with np.errstate(invalid='ignore'):
        return (similarity * weights).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))


def _window(images: np.ndarray) -> np.ndarray:
    """Return the Gaussian-weighted means of all windows, `[N, H - 10, W - 10, C]`."""
    taps = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    taps /= taps.sum()
    rows = sliding_window_view(images, len(taps), axis=1) @ taps
    return sliding_window_view(rows, len(taps), axis=2) @ taps
