"""Handling of records that cannot be read or decoded."""

import collections
import threading
from collections.abc import Sequence
from typing import Any

from absl import logging

from dcgan_jax.runtime.errors import UserError

CHOICES = ('stop', 'skip')
_MAX_CONSECUTIVE = 100  # That many consecutive corrupt records indicate a missing file.


class CheckedRecords:
    """Records of a split; a corrupt record raises an error or is replaced by the next intact one.

    The result depends only on the index, and is therefore the same on every machine.
    """

    def __init__(self, records: Any, name: str, on_corrupt: str, classes: Sequence[str] = ()):
        """Wrap the records of a split.

        Args:
            records: See `tfds_data.Records`.
            name: Name of the data set and the split in messages.
            on_corrupt: One of `CHOICES`.
            classes: Class name of each record; empty if unknown. A warning is logged when
                all records of a class have been found to be corrupt.
        """
        self._records = records
        self._name = name
        self._on_corrupt = on_corrupt
        self._corrupt = set()
        self._lock = threading.Lock()  # Records are read in several threads.
        self._classes = classes
        self._num_intact = collections.Counter(classes)

    def __len__(self) -> int:
        return len(self._records)

    def __getitems__(self, indices: list[int]) -> Sequence[dict]:
        """Return the records of `indices`, in that order.

        Raises:
            UserError: If a record is corrupt and `on_corrupt` is 'stop', or if too many consecutive
                records are corrupt.
        """
        try:
            return self._records.__getitems__(indices)
        except Exception:  # Readers and decoders raise exceptions of various types.
            return [self._get(index) for index in indices]

    def _get(self, index: int) -> dict:
        count = min(len(self), _MAX_CONSECUTIVE)
        for offset in range(count):
            position = (index + offset) % len(self)
            try:
                return self._records.__getitems__([position])[0]
            except Exception as error:
                self._report(position, error)
        raise UserError(
            f'{self._name}: {count} records in a row from {index} on are corrupt: repair the data '
            'set'
        )

    def _report(self, index: int, error: Exception) -> None:
        reason = str(error).strip().partition('\n')[0]
        if not isinstance(error, UserError):
            reason = f'{type(error).__name__}: {reason}'
        if self._on_corrupt == 'stop':
            raise UserError(
                f'{self._name}: record {index} is corrupt ({reason}): repair the data set, or set '
                'config.data.on_corrupt=skip to use the next record instead'
            ) from error
        with self._lock:
            if index in self._corrupt:
                return
            self._corrupt.add(index)
            logging.warning(
                '%s: record %d is corrupt (%s), using the next record instead; %d so far',
                self._name, index, reason, len(self._corrupt),
            )  # fmt: skip
            if self._classes:
                self._count_class(self._classes[index])

    def _count_class(self, name: str) -> None:
        """Count a corrupt record of a class."""
        self._num_intact[name] -= 1
        if not self._num_intact[name]:
            logging.warning(
                '%s: all records of class %r are corrupt: replace them, or remove the class',
                self._name, name,
            )  # fmt: skip
