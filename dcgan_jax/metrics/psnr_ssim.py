"""How near images are to what they should be: PSNR and SSIM."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

_RADIUS, _SIGMA = 5, 1.5  # of SSIM's Gaussian window, 11 pixels wide
_LEVELS = 255.0


def psnr(images: np.ndarray, real: np.ndarray, holes: np.ndarray | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each pair, 10 log10(255^2 / max(MSE, 1/12)).

    An error of 1/12 is that of rounding to whole levels: smaller ones tell nothing, and an image
    that is equal by chance (a gray one, to be colored) would make means infinite.

    Args:
        images: uint8 `[N, H, W, C]`.
        real: the same shape.
        holes: `[N, H, W, 1]` of 0 and 1; where given, pixels outside don't count.

    Returns:
        Float64 `[N]`, at most 58.9: equal images.
    """
    squares = np.square(images.astype(np.float64) - real.astype(np.float64)).mean(axis=3)
    weights = np.ones_like(squares) if holes is None else np.asarray(holes[..., 0], np.float64)
    error = (squares * weights).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
    return 10.0 * np.log10(_LEVELS**2 / np.maximum(error, 1 / 12))


def ssim(images: np.ndarray, real: np.ndarray, holes: np.ndarray | None = None) -> np.ndarray:
    """Structural similarity of each pair, a mean over channels and window positions.

    Wang et al. 2004, with their Gaussian window of 11 pixels (standard deviation 1.5) wherever it
    lies within the image, K1 = 0.01, K2 = 0.03, 255 levels.

    Args:
        images: uint8 `[N, H, W, C]`.
        real: the same shape.
        holes: `[N, H, W, 1]` of 0 and 1; where given, only windows around those pixels count.

    Returns:
        Float64 `[N]`, at most 1; NaN where no window counts, as in images smaller than one.
    """
    x, y = images.astype(np.float64), real.astype(np.float64)
    if min(x.shape[1:3]) <= 2 * _RADIUS:
        return np.full(len(x), np.nan)
    mean_x, mean_y = _window(x), _window(y)
    variance_x, variance_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * _LEVELS) ** 2, (0.03 * _LEVELS) ** 2
    similar = (2.0 * mean_x * mean_y + c1) * (2.0 * covariance + c2)
    similar /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    similar = similar.mean(axis=3)
    inner = slice(_RADIUS, -_RADIUS)
    weights = np.ones_like(similar)
    if holes is not None:
        weights = np.asarray(holes[:, inner, inner, 0], np.float64)
    with np.errstate(invalid='ignore'):
        return (similar * weights).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))


def _window(images: np.ndarray) -> np.ndarray:
    """Gaussian means of `[N, H, W, C]` wherever the window fits: `[N, H - 10, W - 10, C]`."""
    taps = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    taps /= taps.sum()
    rows = sliding_window_view(images, len(taps), axis=1) @ taps
    return sliding_window_view(rows, len(taps), axis=2) @ taps
