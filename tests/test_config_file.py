"""Loading of config files: the returned config, and errors in a file."""

import os

import pytest

from dcgan_jax.config_file import ConfigFileParser
from dcgan_jax.configs import quickstart

PARSER = ConfigFileParser()
INVALID = {
    '{"a": false}': "NameError in line 1: name 'false' is not defined",
    'def get_config(): return get_config()': 'RecursionError in line 1',
    'import sys\nsys.exit(0)': 'SystemExit in line 2',
    'def get_config():\n    raise ValueError("a\\nb")': 'ValueError in line 2: a',
    '\ndef get_config(:': 'SyntaxError in line 2: invalid syntax',
    'def get_config(): return {}': 'must return a ConfigDict, not dict',
    'def get_config(): pass': 'must return a ConfigDict, not NoneType',
    'x = 1': 'no function get_config',
    'import missing_package': "ModuleNotFoundError in line 1: No module named 'missing_package'",
}


def test_config_of_a_file_is_locked(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(
        'from dcgan_jax.configs import quickstart\n'
        'def get_config(seed="3"):\n'
        '    config = quickstart.get_config()\n'
        '    config.seed = int(seed)\n'
        '    return config\n'
    )
    expected = quickstart.get_config()
    expected.seed = 3
    assert PARSER.parse(str(path)).to_dict() == expected.to_dict()
    assert PARSER.parse(f'{path}:5').seed == 5
    assert PARSER.parse(str(path)).is_locked


def test_changed_file_with_equal_size_and_mtime_is_reloaded(tmp_path):
    path = tmp_path / 'own.py'
    seeds = []
    for seed in (1, 2):
        path.write_text(
            'from ml_collections import ConfigDict\n'
            f'def get_config(): return ConfigDict({{"seed": {seed}}})\n'
        )
        os.utime(path, (1e9, 1e9))
        seeds.append(PARSER.parse(str(path)).seed)
    assert seeds == [1, 2]


@pytest.mark.parametrize(('text', 'message'), INVALID.items())
def test_errors_in_a_file_are_reported(tmp_path, text, message):
    path = tmp_path / 'own.py'
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        PARSER.parse(str(path))


@pytest.mark.parametrize('name', ['missing.py', '', '.', 'pipe', '/dev/zero', 'x' * 300])
def test_files_that_cannot_be_read_are_rejected(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo('pipe')
    with pytest.raises(ValueError, match=r'use a file like those in configs/'):
        PARSER.parse(name)


def test_installed_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = quickstart.get_config().to_dict()
    assert PARSER.parse('configs/quickstart.py').to_dict() == expected
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'quickstart.py').touch()
    for name in ('quickstart', 'none'):
        with pytest.raises(ValueError, match=r'get_config|No such file'):
            PARSER.parse(f'configs/{name}.py')
