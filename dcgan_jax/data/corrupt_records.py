"""Records that can't be read or decoded: refused, or passed over and counted."""

from collections.abc import Sequence
from typing import Any

from absl import logging

from dcgan_jax.runtime.errors import UserError

CHOICES = ('stop', 'skip')
_MOST = 100  # that are passed over in a row: beyond, a file is missing rather than a record


class CheckedRecords:
    """Records of a split; a corrupt one ends the run, or the next that is whole stands in for it.

    So the records asked for, and nothing else, say which are got: the same on every machine, from
    the device or a stream.
    """

    def __init__(self, records: Any, name: str, on_corrupt: str):
        """Wraps `records` (see `sources.Records`).

        Args:
            records: of the split.
            name: of data set and split, for messages.
            on_corrupt: one of `CHOICES`.
        """
        self._records = records
        self._name = name
        self._on_corrupt = on_corrupt
        self._corrupt = set()

    def __len__(self) -> int:
        return len(self._records)

    def __getitems__(self, indices: list[int]) -> Sequence[dict]:
        """Records of `indices`, in that order.

        Raises:
            UserError: one is corrupt, or too many in a row are.
        """
        try:
            return self._records.__getitems__(indices)
        except Exception:  # Readers and decoders raise errors of nearly any kind.
            return [self._get(index) for index in indices]

    def _get(self, index: int) -> dict:
        tried = min(len(self), _MOST)
        for distance in range(tried):
            at = (index + distance) % len(self)
            try:
                return self._records.__getitems__([at])[0]
            except Exception as error:
                self._count(at, error)
        raise UserError(
            f'{self._name}: {tried} records in a row from {index} on are corrupt: mend the data set'
        )

    def _count(self, index: int, error: Exception) -> None:
        reason = str(error).strip().partition('\n')[0]
        if not isinstance(error, UserError):
            reason = f'{type(error).__name__}: {reason}'
        if self._on_corrupt == 'stop':
            raise UserError(
                f'{self._name}: record {index} is corrupt ({reason}): mend '
                'the data set, or set config.data.on_corrupt=skip to take the record after it'
            ) from error
        if index not in self._corrupt:
            self._corrupt.add(index)
            logging.warning(
                '%s: record %d is corrupt (%s): the next stands in for it; %d so far',
                self._name, index, reason, len(self._corrupt),
            )  # fmt: skip
