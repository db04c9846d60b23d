"""Exported generators, used with the code of docs/export.md in processes without dcgan_jax."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors

from dcgan_jax import quantization, training, weights
from dcgan_jax.configs import cifar10
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.sampling import generate
from dcgan_jax.tasks import export, sample
from dcgan_jax.tasks.discriminator_features import logits
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import restore
from tests.conftest import slow
from tests.peers import peer
from tests.test_training import small

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'export.md'


def snippets():
    return re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)


def run_alone(program, folder):
    """Run Python code in `folder`, where dcgan_jax cannot be imported."""
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
    """Function from a config to (workdir of its run, folder of the export)."""

    def exported(config):
        training.train_and_evaluate(config, tmp_path / 'run')
        return tmp_path / 'run', export.run(TaskOptions(workdir=tmp_path / 'run')).path

    return exported


def test_exported_program_is_bit_identical_to_sample(config, exported, tmp_path):
    workdir, out = exported(config)
    sample.run(TaskOptions(workdir=workdir, out=tmp_path, num=config.batch_size, seed=3))
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


def test_exported_program_accepts_any_batch_size_and_labels(config, exported, tmp_path):
    from jax import export as jax_export

    config.conditional = True
    workdir, out = exported(config)
    program = jax_export.deserialize(bytearray((out / 'generator.jaxexport').read_bytes()))
    assert set(program.platforms) == {'cpu', 'cuda', 'tpu'}
    sample.run(TaskOptions(workdir=workdir, out=tmp_path, num=5))
    with np.load(tmp_path / 'samples.npz', allow_pickle=False) as arrays:
        images = program.call(arrays['latents'], arrays['labels'])
        assert np.abs(np.asarray(images).astype(int) - arrays['images']).max() <= 1


@pytest.mark.parametrize(
    'changes', [{'dtype': 'bfloat16'}, slow({'dtype': 'bfloat16', 'generator.kernel_size': 5})]
)
def test_bfloat16_runs_are_exported(config, exported, changes):
    """Exported programs do not call oneDNN and have a symbolic batch size."""
    config.update_from_flattened_dict(changes | {'conv_impl': 'auto', 'num_steps': 0})
    workdir, out = exported(config)
    program = jax.export.deserialize(bytearray((out / 'generator.jaxexport').read_bytes()))
    latents = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    trained = restore(workdir)
    expected = trained.sampler(trained.state, latents).astype(int)
    assert np.abs(np.asarray(program.call(latents)).astype(int) - expected).max() <= 2


def test_unets_are_exported_for_images_of_any_size(config, exported):
    published = small('super_resolution_cifar10', config)
    published.conv_impl, published.num_steps = 'auto', 0
    _, out = exported(published)
    program = jax.export.deserialize(bytearray((out / 'generator.jaxexport').read_bytes()))
    for height, width in ((8, 8), (16, 24)):
        inputs = np.zeros((2, height, width, 4), np.float32)
        assert program.call(inputs).shape == (2, height, width, 3)


@pytest.mark.slow
def test_pytorch_generates_the_same_images_from_the_tensors(config, exported, tmp_path):
    torch = peer('torch')
    published = cifar10.get_config()
    for name in ('dataset', 'data_dir', 'batch_size', 'log_every'):
        published[name] = config[name]
    published.num_steps = 3
    published.generator.width = published.discriminator.width = 0.03
    published.data.image_size = 32
    workdir, out = exported(published)
    with safetensors.safe_open(out / 'generator.safetensors', framework='numpy') as file:
        metadata = file.metadata()
    assert metadata['step'] == '3'
    assert json.loads(metadata['config'])['batch_size'] == config.batch_size
    sample.run(TaskOptions(workdir=workdir, out=tmp_path, num=4))
    scope = {}
    code = snippets()[1].replace(
        "'generator.safetensors'", repr(str(out / 'generator.safetensors'))
    )
    exec(code, scope)  # Code of this repository.
    with np.load(tmp_path / 'samples.npz', allow_pickle=False) as arrays:
        made = scope['generate'](torch.tensor(arrays['latents'])).permute(0, 2, 3, 1).numpy()
        assert np.abs((made + 1) * 127.5 - arrays['images']).max() <= 0.51


def read_onnx(path):
    """A function from named inputs to the output of an ONNX file, by ONNX Runtime."""
    session = peer('onnxruntime').InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda **inputs: session.run(None, inputs)[0]


@pytest.mark.slow
@pytest.mark.parametrize('conditional', [False, True])
def test_onnx_networks_equal_those_of_the_run(config, exported, tmp_path, conditional):
    config.conditional = conditional
    workdir, _ = exported(config)
    out = export.run(TaskOptions(workdir=workdir, out=tmp_path / 'onnx', format='onnx')).path
    sample.run(TaskOptions(workdir=workdir, out=tmp_path, num=5))
    with np.load(tmp_path / 'samples.npz', allow_pickle=False) as arrays:
        inputs = {'latents': arrays['latents']}
        labels = {'labels': arrays['labels']} if conditional else {}
        images = arrays['images']
    made = read_onnx(out / 'generator.onnx')(**inputs, **labels)
    assert made.dtype == np.uint8
    assert np.abs(made.astype(int) - images).max() <= 1
    trained = restore(workdir)
    expected = logits(trained.networks, trained.state, images, labels.get('labels'))
    scores = read_onnx(out / 'discriminator.onnx')(images=images, **labels)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_onnx_generator_of_captions_takes_classes(config, exported, tmp_path):
    config.conditional, config.text.embedder = True, 'trigrams'
    workdir, _ = exported(config)
    out = export.run(TaskOptions(workdir=workdir, out=tmp_path / 'onnx', format='onnx')).path
    latents = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    labels = np.asarray([2, 0, 1], np.int32)
    made = read_onnx(out / 'generator.onnx')(latents=latents, labels=labels)
    program = jax.export.deserialize(
        bytearray((workdir / 'export' / 'generator.jaxexport').read_bytes())
    )
    assert np.abs(made.astype(int) - np.asarray(program.call(latents, labels))).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['super_resolution_cifar10', 'inpainting_cifar10', 'colorization_cifar10']
)
def test_exported_unets_take_images_of_any_size(config, exported, tmp_path, name):
    workdir, out = exported(small(name, config))
    export.run(TaskOptions(workdir=workdir, out=out, format='onnx'))
    program = jax.export.deserialize(bytearray((out / 'generator.jaxexport').read_bytes()))
    trained = restore(workdir)
    rng = np.random.default_rng(0)
    for height, width in ((8, 8), (16, 24)):
        inputs = rng.uniform(-1, 1, (2, height, width, 4)).astype(np.float32)
        inputs[..., 3] = 1.0
        expected = trained.sampler(trained.state, inputs).astype(int)
        for made in (program.call(inputs), read_onnx(out / 'generator.onnx')(inputs=inputs)):
            assert np.abs(np.asarray(made).astype(int) - expected).max() <= 1


@pytest.mark.slow
def test_int8_files_hold_the_quantized_generator(config, exported, tmp_path):
    """They are at most 0.27 times as large, and the images are those of the rounded weights."""
    config.generator.update(base_features=256, features=(128,))
    config.latent_dim, config.num_steps = 64, 1
    workdir, out = exported(config)
    trained = restore(workdir)
    variables = trained.sampler.variables(trained.state)
    rounded = quantization.dequantize(quantization.quantize(variables))
    latents = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    expected = np.asarray(generate(trained.networks.generator, rounded, latents, None))
    export.run(TaskOptions(workdir=workdir, out=out, format='onnx'))
    export.run(TaskOptions(workdir=workdir, out=out, format='all', weights='int8'))
    for suffix in ('jaxexport', 'safetensors', 'onnx'):
        sizes = [(out / f'generator{q}.{suffix}').stat().length for q in ('', '_int8')]
        assert sizes[1] <= 0.27 * sizes[0], (suffix, sizes)
    program = jax.export.deserialize(bytearray((out / 'generator_int8.jaxexport').read_bytes()))
    for made in (program.call(latents), read_onnx(out / 'generator_int8.onnx')(latents=latents)):
        assert np.abs(np.asarray(made).astype(int) - expected).max() <= 1


def test_remaining_files_of_an_earlier_export_are_listed(finished, tmp_path, caplog):
    for name in ('generator.onnx', 'discriminator_int8.onnx', 'generator.jaxexport', 'notes.txt'):
        (tmp_path / name).write_text('')
    with caplog.at_level(logging.WARNING, 'absl'):
        export.run(TaskOptions(workdir=finished[0], out=tmp_path))
    (line,) = (line for line in caplog.messages if 'earlier export' in line)
    assert line.endswith('not written now: discriminator_int8.onnx, generator.onnx')
    caplog.clear()
    for name in ('generator.onnx', 'discriminator_int8.onnx'):
        (tmp_path / name).unlink()
    export.run(TaskOptions(workdir=finished[0], out=tmp_path))
    assert 'earlier export' not in caplog.text


def test_missing_package_is_named(config, exported, tmp_path, monkeypatch):
    workdir, _ = exported(config)
    monkeypatch.setitem(sys.modules, 'jax2onnx', None)
    with pytest.raises(UserError, match=r'pip install -r requirements-export.txt'):
        export.run(TaskOptions(workdir=workdir, out=tmp_path / 'all', format='all'))
    assert not any((tmp_path / 'all').glob('*'))


def test_weights_are_serialized_to_the_same_bytes():
    variables = {'params': {'a': {'kernel': np.ones((2, 3), np.float32)}}}
    metadata = {name: [name, 1] for name in 'dcbaefgh'}
    contents = {weights.serialize(variables, metadata) for _ in range(5)}
    assert len(contents) == 1
    restored, found = weights.deserialize(contents.pop())
    np.testing.assert_array_equal(restored['params']['a']['kernel'], np.ones((2, 3)))
    assert found == metadata
