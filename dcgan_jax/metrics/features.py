"""What all metrics ask of their input."""

import numpy as np

from dcgan_jax.runtime.errors import UserError


def check(features: np.ndarray, least: int, what: str = 'features') -> None:
    """Refuses what is not `[N, D]` with N at least `least` and all finite.

    Raises:
        UserError: says which of these.
    """
    if features.ndim != 2:
        raise UserError(f'{what} must be an array [N, D], got shape {features.shape}')
    if len(features) < least:
        raise UserError(f'{len(features)} {what} are too few: give at least {least}')
    if not np.isfinite(features).all():
        wrong = np.flatnonzero(~np.isfinite(features).all(1))
        raise UserError(
            f'{len(wrong)} of {len(features)} {what} are not finite (the first: row {wrong[0]}): '
            'the images or the extractor that they come from are broken'
        )


def check_pair(first: np.ndarray, second: np.ndarray, least: int) -> None:
    """`check` for two sets that are to be compared, which must have the same D.

    Raises:
        UserError: says which.
    """
    check(first, least, 'features of the first set')
    check(second, least, 'features of the second set')
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f'features of {first.shape[1]} and {second.shape[1]} dimensions can not be compared: '
            'take both from the same extractor'
        )
