"""`--mode=demo`: functions of the tabs."""

import re
import socket
import sys

import numpy as np
import PIL.Image
import pytest

from dcgan_jax import training
from dcgan_jax.data import images
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import demo, demo_functions
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import merge_config, restore
from tests.test_training import small


@pytest.fixture
def generation(finished):
    return demo_functions.Generation(restore(finished[0]))


def test_samples_equal_those_of_the_trained_run(finished, generation):
    expected = images.grid(restore(finished[0]).sample(9, seed=5))
    np.testing.assert_array_equal(generation.sample(5, 9, 1.0)[::2, ::2], expected)
    assert not np.array_equal(generation.sample(5, 9, 0.5)[::2, ::2], expected)


def test_interpolation_starts_and_ends_at_the_latents_of_the_seeds(finished, generation):
    run = restore(finished[0])
    for position, seed in ((0.0, 3), (1.0, 8)):
        expected = demo_functions.enlarge(run.sample(1, seed=seed)[0])
        found = generation.interpolate(3, 8, position)
        np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=1)


def test_directions_shift_the_latent(finished, generation):
    still = generation.move(3, '', *[0.0] * 4)
    np.testing.assert_array_equal(
        still, demo_functions.enlarge(restore(finished[0]).sample(1, seed=3)[0])
    )
    assert not np.array_equal(generation.move(3, '', 6.0, 0.0, 0.0, 0.0), still)


@pytest.mark.slow
def test_classes_are_selected_by_name(config, tmp_path):
    config.conditional = True
    training.train_and_evaluate(config, tmp_path)
    run = restore(tmp_path)
    generation = demo_functions.Generation(run)
    assert generation.classes == ['0', '1', '2']
    expected = images.grid(run.sample(4, seed=1, classes=['2']))
    np.testing.assert_array_equal(generation.sample(1, 4, 1.0, '2')[::2, ::2], expected)


@pytest.mark.parametrize('seed', [None, -1, 2**32])
def test_invalid_seeds_are_reported(generation, seed):
    with pytest.raises(UserError, match='seed'):
        generation.sample(seed, 1, 1.0)


@pytest.fixture
def restoration(config, tmp_path):
    """Function that trains a run of a config and returns its `Restoration`."""

    def create(name):
        training.train_and_evaluate(small(name, config), tmp_path / name)
        kind = restore(tmp_path / name).run.config.input.kind
        return demo_functions.Restoration(TaskOptions(workdir=tmp_path / name), kind)

    return create


def write(path, shape, mode='RGB', seed=0):
    pixels = np.random.default_rng(seed).integers(64, 192, (*shape, 3), np.uint8)
    PIL.Image.fromarray(pixels).convert(mode).save(path)
    return str(path)


@pytest.mark.slow
def test_upsample_returns_the_bicubic_baseline_for_images_of_any_size(restoration, tmp_path):
    upload = write(tmp_path / 'a.png', (23, 150))
    bicubic, upsampled = restoration('super_resolution_cifar10').upsample(upload)
    assert bicubic.shape == upsampled.shape == (46, 300, 3)
    picture = PIL.Image.open(upload)
    expected = np.asarray(picture.resize((300, 46), PIL.Image.Resampling.BICUBIC))
    inner = np.s_[8:-8, 8:-8]  # The filters differ at borders.
    np.testing.assert_allclose(bicubic[inner].astype(int), expected[inner].astype(int), atol=2)


@pytest.mark.slow
def test_images_are_colorized(restoration, tmp_path):
    upload = write(tmp_path / 'a.png', (500, 400))
    restoration = restoration('colorization_cifar10')
    assert '8 pixels' in restoration.upload_note
    gray, colorized = restoration.colorize(upload)
    assert gray.shape == colorized.shape == (496, 400, 3)
    expected = np.asarray(PIL.Image.open(upload).convert('L').convert('RGB'))[:496]
    np.testing.assert_allclose(gray.astype(int), expected.astype(int), atol=1)


@pytest.mark.slow
def test_only_painted_pixels_are_inpainted(restoration, tmp_path):
    restoration = restoration('inpainting_cifar10')
    assert '8x8' in restoration.upload_note
    upload = write(tmp_path / 'a.png', (30, 40))
    canvas = restoration.prepare(upload)
    assert len(canvas) == restoration.canvas_size
    expected = images.center_crop(np.asarray(PIL.Image.open(upload)), 8)
    np.testing.assert_array_equal(canvas, demo_functions.enlarge(expected))
    painted = np.zeros(canvas.shape[:2], bool)
    painted[:80] = True  # Two of eight rows.
    known, inpainted = (each[20::40, 20::40] for each in restoration.inpaint(canvas, painted))
    np.testing.assert_array_equal(known[2:], expected[2:])
    np.testing.assert_allclose(known[:2].astype(int), 128, atol=1)
    np.testing.assert_array_equal(inpainted[2:], expected[2:])
    with pytest.raises(UserError, match='paint'):
        restoration.inpaint(canvas, np.zeros_like(painted))


def test_anomaly_scores_equal_those_of_the_task(finished, tmp_path):
    from dcgan_jax.tasks import detect_anomalies

    (tmp_path / 'images').mkdir()
    upload = write(tmp_path / 'images' / 'a.png', (8, 8))
    trained = restore(finished[0])
    config = trained.run.config.copy_and_resolve_references()
    config.latent_optimization.steps = 2
    config.anomaly.scores = ('discriminator', 'latent_optimization')
    options = TaskOptions(
        workdir=finished[0], config=config, images=tmp_path / 'images', out=tmp_path / 'out'
    )
    out = detect_anomalies.run(options).path
    row = (out / 'scores.csv').read_text().split()[1].split(',')
    config = merge_config(trained.run.config, config)
    text, image, *_ = demo_functions.AnomalyDetection(trained, config, seed=0).score(upload)
    numbers = [float(number) for number in re.findall(r'-?\d+\.\d+', text)]
    np.testing.assert_allclose(numbers, [float(row[2]), float(row[1])], atol=1e-4)
    np.testing.assert_array_equal(image[20::40, 20::40], np.asarray(PIL.Image.open(upload)))


def test_invalid_uploads_are_reported(tmp_path):
    large = write(tmp_path / 'large.png', (1025, 1024))
    (tmp_path / 'text.png').write_text('no image')
    for path, reason in (
        (None, 'no image'), (large, '1024x1025'), (str(tmp_path / 'text.png'), '^text.png'),
    ):  # fmt: skip
        with pytest.raises(UserError, match=reason):
            demo_functions.read_upload(path, 3)
    assert demo_functions.read_upload(write(tmp_path / 'a.png', (5, 4), 'L'), 1).shape == (5, 4, 1)


def test_port_in_use_is_reported(finished):
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f'--port={port}'):
            demo.run(TaskOptions(workdir=finished[0], port=port))


def test_missing_gradio_is_reported(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(UserError, match='requirements-demo'):
        demo.run(TaskOptions(workdir=finished[0], port=0))
