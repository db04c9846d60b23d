"""Allowed imports between the folders of `dcgan_jax/`."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'dcgan_jax'
# Modules in `dcgan_jax/` itself are 'core', except the entry points, which may import all others.
ENTRIES = '__init__', '__main__', 'cli', 'training'
ALLOWED = {
    'runtime': {'runtime'},
    'data': {'runtime', 'data'},
    'models': {'runtime', 'data', 'models'},
    'metrics': {'runtime', 'data', 'metrics'},
    'core': {'runtime', 'data', 'models', 'metrics', 'core'},
    'tasks': {'runtime', 'data', 'models', 'metrics', 'core', 'tasks'},
    'entry': {'runtime', 'data', 'models', 'metrics', 'core', 'tasks', 'entry'},
}


def folder(parts):
    name = parts[1] if len(parts) > 1 else '__init__'
    return name if name in ALLOWED else 'entry' if name in ENTRIES else 'core'


def imported(path):
    """Yield the names that a module imports from `dcgan_jax`, split at dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path} has a relative import, which this test does not support'
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        else:
            continue
        yield from (parts for name in names if (parts := name.split('.'))[0] == 'dcgan_jax')


@pytest.mark.parametrize(
    'path', sorted(PACKAGE.rglob('*.py')), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_follow_the_allowed_directions(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
    for target in imported(path):
        assert folder(target) in ALLOWED[folder(parts)], '.'.join(target)
