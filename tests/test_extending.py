"""The examples of docs/extending.md run."""

import re
from pathlib import Path

import numpy as np
import PIL.Image

import dcgan_jax
from dcgan_jax import config as config_lib
from dcgan_jax.tasks.options import TaskOptions
from tests.conftest import tiny_config

PAGE = (Path(__file__).resolve().parents[1] / 'docs' / 'extending.md').read_text()


def example(title):
    """The names that the example of a section defines."""
    (section,) = re.findall(rf'^## {title}\n(.*?)(?=^## |\Z)', PAGE, re.M | re.S)
    (code,) = re.findall(r'```python\n(.*?)```', section, re.S)
    names = {}
    exec(code, names)
    return names


def test_a_task(data_dir, tmp_path):
    dcgan_jax.train(tiny_config(data_dir), tmp_path / 'run')
    options = TaskOptions(workdir=tmp_path / 'run', out=tmp_path / 'out', num=6, seed=2)
    printed = example('A task')['run'](options)
    assert printed == f'mean image: {tmp_path / "out" / "mean.png"}'
    samples = dcgan_jax.load(tmp_path / 'run').sample(6, seed=2)
    with PIL.Image.open(tmp_path / 'out' / 'mean.png') as picture:
        np.testing.assert_allclose(np.asarray(picture), samples.astype(float).mean(0), atol=0.501)


def test_a_config():
    config = example('A config')['get_config']()
    config_lib.validate(config)
    assert config.loss.name == 'hinge'
