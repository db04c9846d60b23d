"""Calls and hooks of the training loop."""

import pytest

from dcgan_jax import parallel
from dcgan_jax.hooks import Call


@pytest.mark.parametrize(
    ('start', 'stop', 'size', 'expected'),
    [
        (0, 6, 1, [(i, i + 1) for i in range(6)]),
        (0, 10, 4, [(0, 4), (4, 8), (8, 10)]),
        (6, 10, 4, [(6, 8), (8, 10)]),
        (8, 12, 4, [(8, 12)]),
        (5, 5, 4, []),
        (9, 5, 4, []),
    ],
)
def test_calls_end_at_multiples_of_their_size(start, stop, size, expected):
    ranges = parallel.CallRanges(start, stop, size)
    assert list(ranges) == expected
    assert len(ranges) == len(expected)
    assert ranges[:2] == expected[:2]
    if expected:
        assert ranges[-1] == expected[-1]


def test_is_due_if_a_call_contains_a_multiple_or_ends_the_run():
    assert Call(90, 110, 1000).is_due(100)
    assert Call(99, 100, 1000).is_due(100)
    assert not Call(100, 150, 1000).is_due(100)
    assert Call(950, 1000, 1000).is_due(300)
    assert not Call(100, 200, 1000).is_due(0)
