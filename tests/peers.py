"""PyTorch packages to compare with (tests/requirements-peers.txt); tests skip where one is missing.

Their own warnings at import are no concern of ours.
"""

import functools
import warnings

import pytest


def peer(name):
    """Imports a module of a peer, or skips the test."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch = pytest.importorskip('torch', reason=_reason('torch'))
        if name == 'torch':
            return torch
        _mend_torchvision()
        return pytest.importorskip(name, reason=_reason(name))


def _reason(name):
    return f'{name} is not installed: pip install -r tests/requirements-peers.txt'


@functools.cache
def _mend_torchvision():
    """PyPI's torchvision wants CUDA for its compiled operators, which nothing here uses.

    Beside a CPU build of PyTorch its import fails where it describes two of them, unless they are
    declared.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError as error:
        if 'torchvision::nms' not in str(error):
            raise
        for name in ('nms', 'qnms'):
            schema = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
            torch.library.define(f'torchvision::{name}', schema)
