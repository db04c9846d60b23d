"""Exported generators, loaded as docs/export.md says, by processes that lack this package."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors

from dcgan_jax import training
from dcgan_jax.configs import cifar10
from dcgan_jax.tasks.export import PROGRAM, TENSORS, export
from dcgan_jax.tasks.sample import sample
from tests.peers import peer

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'export.md'


def snippets():
    return re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)


def run_alone(program, folder):
    """Runs Python code in `folder`, where dcgan_jax can't be imported."""
    program = (
        f'{program}\nimport importlib.util\nassert importlib.util.find_spec("dcgan_jax") is None\n'
    )
    done = subprocess.run(
        [sys.executable, '-P', '-c', program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def exported(config, tmp_path):
    """(folder of a run of `config`, its export)."""

    def exported(config):
        training.train_and_evaluate(config, tmp_path / 'run')
        return tmp_path / 'run', export(tmp_path / 'run', None)

    return exported


def test_the_program_makes_the_same_images_bit_for_bit(config, exported, tmp_path):
    workdir, out = exported(config)
    sample(workdir, tmp_path, num=config.batch_size, seed=3)
    with np.load(tmp_path / 'samples.npz', allow_pickle=False) as arrays:
        latents, expected = arrays['latents'], arrays['images']
    np.save(out / 'latents.npy', latents)
    program = snippets()[0].replace(
        'latents = np.random.default_rng(0).normal(size=(16, 100)).astype(np.float32)',
        "latents = np.load('latents.npy')",
    )
    assert 'np.load' in program
    run_alone(program + "np.save('images.npy', images)", out)
    np.testing.assert_array_equal(np.load(out / 'images.npy'), expected)


def test_any_number_of_images_of_any_class(config, exported, tmp_path):
    from jax import export as jax_export

    config.conditional = True
    workdir, out = exported(config)
    program = jax_export.deserialize(bytearray((out / PROGRAM).read_bytes()))
    assert set(program.platforms) == {'cpu', 'cuda', 'tpu'}
    sample(workdir, tmp_path, num=5, seed=0)
    with np.load(tmp_path / 'samples.npz', allow_pickle=False) as arrays:
        images = program.call(arrays['latents'], arrays['labels'])
        assert np.abs(np.asarray(images).astype(int) - arrays['images']).max() <= 1


@pytest.mark.slow
def test_pytorch_makes_the_same_images_from_the_tensors(config, exported, tmp_path):
    torch = peer('torch')
    published = cifar10.get_config()
    for name in ('dataset', 'data_dir', 'batch_size', 'log_every'):
        published[name] = config[name]
    published.num_steps = 3
    published.generator.width = published.discriminator.width = 0.03
    published.data.image_size = 32
    workdir, out = exported(published)
    with safetensors.safe_open(out / TENSORS, framework='numpy') as file:
        metadata = file.metadata()
    assert metadata['step'] == '3'
    assert json.loads(metadata['config'])['batch_size'] == config.batch_size
    sample(workdir, tmp_path, num=4, seed=0)
    scope = {}
    code = snippets()[1].replace("'generator.safetensors'", repr(str(out / TENSORS)))
    exec(code, scope)  # our own page
    with np.load(tmp_path / 'samples.npz', allow_pickle=False) as arrays:
        made = scope['generate'](torch.tensor(arrays['latents'])).permute(0, 2, 3, 1).numpy()
        assert np.abs((made + 1) * 127.5 - arrays['images']).max() <= 0.51
