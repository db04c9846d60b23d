"""Validation of features."""

import numpy as np

from dcgan_jax.runtime.errors import UserError


def check(features: np.ndarray, minimum: int, name: str = 'features') -> None:
    """Raise `UserError` unless features are finite and `[N, D]` with N at least `minimum`."""
    if features.ndim != 2:
        raise UserError(f'{name} must be an array [N, D], got shape {features.shape}')
    if len(features) < minimum:
        raise UserError(f'{len(features)} {name} are too few: use at least {minimum}')
    if not np.isfinite(features).all():
        rows = np.flatnonzero(~np.isfinite(features).all(1))
        raise UserError(
            f'{len(rows)} of {len(features)} {name} are not finite (first in row {rows[0]}): '
            'check the images and the extractor'
        )


def check_pair(first: np.ndarray, second: np.ndarray, minimum: int) -> None:
    """Raise `UserError` unless both sets are valid (see `check`) and have the same D."""
    check(first, minimum, 'features of the first set')
    check(second, minimum, 'features of the second set')
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f'features of {first.shape[1]} and {second.shape[1]} dimensions cannot be compared: '
            'use the same extractor for both'
        )
