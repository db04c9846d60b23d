"""What the folders of `dcgan_jax/` may import from each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'dcgan_jax'
# The modules of `dcgan_jax/` itself are 'core', but for those that know all others.
ENTRIES = '__init__', 'cli', 'training'
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
    """Dotted names of what a module imports from `dcgan_jax`, as tuples."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path} has a relative import, which this test does not read'
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        else:
            continue
        yield from (parts for name in names if (parts := name.split('.'))[0] == 'dcgan_jax')


@pytest.mark.parametrize(
    'path', sorted(PACKAGE.rglob('*.py')), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_point_one_way(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
    for target in imported(path):
        assert folder(target) in ALLOWED[folder(parts)], '.'.join(target)
