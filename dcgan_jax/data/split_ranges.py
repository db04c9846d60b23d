"""Ranges of examples of splits such as 'train[:50%]+test'."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow_datasets as tfds


class SplitRange(NamedTuple):
    """Range of examples of a split of the data set.

    Attributes:
        name: Name of the split, e.g. 'train'.
        start: Index of the first example.
        end: Index after the last example.
    """

    name: str
    start: int
    end: int


def parse(split: str, infos: Mapping[str, Any]) -> tuple[SplitRange, ...]:
    """Return the ranges of a split, which are read one after the other.

    Args:
        split: Split in the syntax of TFDS, e.g. 'train[:50%]+test' or 'all'.
        infos: `tfds.core.SplitInfo` of each split of the data set by name.

    Raises:
        ValueError, NotImplementedError: If `split` is invalid.
    """
    ranges = tuple(
        SplitRange(
            part.splitname,
            part.from_ or 0,
            infos[part.splitname].num_examples if part.to is None else part.to,
        )
        for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
    )
    if any(part.start > part.end for part in ranges):
        raise ValueError('a range ends before it starts')
    return ranges


def overlap(first: Sequence[SplitRange], second: Sequence[SplitRange]) -> bool:
    """Return whether two sets of ranges of one data set have a common example."""
    return any(
        a.name == b.name and max(a.start, b.start) < min(a.end, b.end)
        for a, b in itertools.product(first, second)
    )


def has_duplicates(ranges: Sequence[SplitRange]) -> bool:
    """Return whether an example is in several ranges."""
    return any(overlap([a], [b]) for a, b in itertools.combinations(ranges, 2))
