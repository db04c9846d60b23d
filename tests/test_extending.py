"""The examples of docs/extending.md work."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image

import dcgan_jax
from dcgan_jax import config as config_lib
from dcgan_jax.tasks.options import TaskOptions
from tests.conftest import tiny_config

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / 'docs' / 'extending.md').read_text()


def code_of(title, language):
    """Return the code block of a section."""
    (section,) = re.findall(rf'^## {title}\n(.*?)(?=^## |\Z)', PAGE, re.M | re.S)
    (code,) = re.findall(rf'```{language}\n(.*?)```', section, re.S)
    return code


def example(title):
    """Execute the example of a section and return its namespace."""
    code = code_of(title, 'python')
    names = {}
    exec(code, names)
    return names


def test_task_example(data_dir, tmp_path):
    dcgan_jax.train(tiny_config(data_dir), tmp_path / 'run')
    options = TaskOptions(workdir=tmp_path / 'run', out=tmp_path / 'out', num=6, seed=2)
    result = example('A task')['run'](options)
    assert result.path == tmp_path / 'out' / 'mean.png'
    samples = dcgan_jax.load(tmp_path / 'run').sample(6, seed=2)
    with PIL.Image.open(tmp_path / 'out' / 'mean.png') as picture:
        np.testing.assert_allclose(np.asarray(picture), samples.astype(float).mean(0), atol=0.501)


def test_config_example():
    config = example('A config')['get_config']()
    config_lib.validate(config)
    assert config.loss.name == 'hinge'


def test_loss_field_metric_and_block_examples(data_dir, tmp_path):
    """Apply the diffs to a copy, and train and evaluate a run with it."""
    copy = tmp_path / 'copy'
    shutil.copytree(ROOT / 'dcgan_jax', copy / 'dcgan_jax', symlinks=True)
    shutil.copytree(ROOT / 'configs', copy / 'configs')
    shutil.copy(ROOT / 'main.py', copy)
    for title in ('An adversarial loss', 'A config field', 'A metric', 'A block'):
        diff = code_of(title, 'diff').encode()
        subprocess.run(['git', 'apply', '-'], input=diff, cwd=copy, check=True)
    changes = {
        'dataset': 'tiny_images', 'data_dir': data_dir, 'batch_size': 8, 'num_steps': 2,
        'generator.base_size': 1, 'generator.block': 'resize_conv', 'conv_impl': 'xla',
        'generator.width': 0.02, 'discriminator.width': 0.02, 'loss.name': 'exponential',
        'loss.temperature': 2.0,
        'evaluation.every': 2, 'evaluation.num_samples': 4, 'evaluation.best': 'brightness',
        'evaluation.metrics': '("brightness",)',
    }  # fmt: skip
    flags = [f'--config.{name}={value}' for name, value in changes.items()]
    command = [sys.executable, 'main.py', '--config=configs/quickstart.py', '--workdir=run']
    done = subprocess.run([*command, *flags], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (result,) = (copy / 'run' / 'evaluation').glob('*.json')
    assert 0 < json.loads(result.read_text())['brightness'] < 255
