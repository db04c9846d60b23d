"""Types of config fields; `configs/default.py` defines the fields."""

from typing import Annotated, Any

from annotated_types import Interval, Len, Predicate
from pydantic import BaseModel, ConfigDict

from dcgan_jax.runtime.files import is_unicode

INT32_MAX, FLOAT32_MAX = 2**31 - 1, 3.4e38

# Annotation of fields and groups that may change when a run is resumed, e.g. the number of steps,
# intervals, folders and the handling of errors.
CHANGEABLE = 'changeable'


def _is_valid_text(text: str) -> bool:
    """Return whether `text` can be written to files and used in file names."""
    return '\0' not in text and is_unicode(text)


Count = Annotated[int, Interval(ge=0, le=INT32_MAX)]
Positive = Annotated[int, Interval(ge=1, le=INT32_MAX)]
NumImages = Annotated[int, Interval(ge=2, le=1_000_000)]
Channels = Annotated[int, Interval(ge=1, le=2**14)]
Side = Annotated[int, Interval(ge=1, le=4096)]  # Side of an image in pixels.
KernelSize = Annotated[int, Interval(ge=1, le=7)]
Stride = Annotated[int, Interval(ge=1, le=2)]
NonNegative = Annotated[float, Interval(ge=0, le=FLOAT32_MAX)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
FractionBelowOne = Annotated[float, Interval(ge=0, lt=1)]
Text = Annotated[str, Predicate(_is_valid_text)]
NonEmptyText = Annotated[Text, Len(min_length=1)]
NonEmpty = Len(min_length=1)  # Annotation of tuples.


class Group(BaseModel):
    """Base class of configs and their groups; types are strict, i.e. values are not converted."""

    model_config = ConfigDict(strict=True, extra='forbid', allow_inf_nan=False, frozen=True)


def with_tuples(tree: Any) -> Any:
    """Convert lists to tuples recursively; JSON has no tuples."""
    if isinstance(tree, dict):
        return {name: with_tuples(value) for name, value in tree.items()}
    return tuple(tree) if isinstance(tree, list) else tree
