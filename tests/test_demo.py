"""`--mode=demo`: functions of the tabs, and the page in Chromium."""

import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from dcgan_jax import training
from dcgan_jax.data import images
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import demo, demo_functions
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import merge_config, restore
from tests.peers import peer, require
from tests.test_training import small

ROOT = Path(__file__).resolve().parents[1]


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
    gray, colorized = restoration('colorization_cifar10').colorize(upload)
    assert gray.shape == colorized.shape == (496, 400, 3)
    expected = np.asarray(PIL.Image.open(upload).convert('L').convert('RGB'))[:496]
    np.testing.assert_allclose(gray.astype(int), expected.astype(int), atol=1)


@pytest.mark.slow
def test_only_painted_pixels_are_inpainted(restoration, tmp_path):
    restoration = restoration('inpainting_cifar10')
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
        demo.run(TaskOptions(workdir=finished[0], port=free_port()))


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


# Runs main.py and prints every address that the process connects to or looks up.
AUDITED = """
import runpy, sys
def hook(event, arguments):
    if event == 'socket.connect':
        print('connects to', arguments[1], file=sys.stderr, flush=True)
    elif event == 'socket.getaddrinfo':
        print('connects to', arguments[:2], file=sys.stderr, flush=True)
sys.addaudithook(hook)
sys.argv = ['main.py', *sys.argv[1:]]
runpy.run_path('main.py', run_name='__main__')
"""


@pytest.fixture
def serve(tmp_path, default_sighup):
    """Function that starts the demo of a workdir and returns its port.

    At the end it is checked that the demo deleted the uploaded images and connected only to the
    local computer.
    """
    with contextlib.ExitStack() as stack:
        yield functools.partial(start, stack, tmp_path)


def start(stack, folder, workdir, *flags, number=signal.SIGTERM):
    port = free_port()
    log = stack.enter_context((folder / f'{port}.log').open('w+'))
    uploads = folder / f'{port}_uploads'
    uploads.mkdir()
    process = subprocess.Popen(
        [
            *(sys.executable, '-c', AUDITED, '--mode=demo', f'--workdir={workdir}'),
            *(f'--port={port}', *flags),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=os.environ | {'TMPDIR': str(uploads)},
    )
    stack.enter_context(process)
    stack.callback(stop, process, log, uploads, number)
    line = process.stdout.readline()
    assert f'http://127.0.0.1:{port}' in line
    return port


def stop(process, log, uploads, number):
    assert list(uploads.iterdir())
    process.send_signal(number)
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert not list(uploads.iterdir())
    log.seek(0)
    lines = log.read().splitlines()
    assert [
        line for line in lines if not re.match(r"connects to .*'(127\.0\.0\.1|localhost)'", line)
    ] == []


@pytest.fixture
def page():
    """A page of Chromium, which must not request anything from other computers."""
    sync_api = peer('playwright.sync_api')
    chromium = shutil.which('chromium')
    if chromium is None:
        pytest.skip('Chromium is not installed: apt-get install chromium')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=['--no-sandbox', '--disable-gpu']
        )
        page = browser.new_page()
        requests = []
        page.on('request', lambda request: requests.append(request.url))
        yield page
        browser.close()
    assert requests
    assert all(re.match(r'(https?://127\.0\.0\.1:|data:|blob:)', url) for url in requests), requests


def open_tab(page, name):
    page.get_by_role('tab', name=name).click()
    return page.get_by_role('tabpanel').filter(visible=True)


def source(panel, label):
    """Wait for an image of the visible tab and return its URL, which depends on the content."""
    image = panel.locator('.block').filter(has=panel.page.get_by_text(label, exact=True))
    image = image.locator('img')
    image.wait_for()
    return image.get_attribute('src')


def wait_for_change(panel, label, before):
    for _ in range(100):
        if (after := source(panel, label)) != before:
            return after
        panel.page.wait_for_timeout(100)
    raise AssertionError(f'{label} did not change')


@pytest.mark.slow
def test_page_of_a_latent_generator(finished, serve, page, tmp_path):
    require('gradio')
    flags = ['--config=configs/cifar10.py', '--config.latent_optimization.steps=2']
    address = f'http://127.0.0.1:{serve(finished[0], *flags)}'
    page.goto(address)
    large = {'name': 'a.png', 'mimeType': 'image/png', 'buffer': bytes(17 * 2**20)}
    assert (
        page.request.post(f'{address}/gradio_api/upload', multipart={'files': large}).status == 413
    )
    sample = open_tab(page, 'Sample')
    before = source(sample, 'Samples')
    sample.get_by_label('Seed').fill('7')
    wait_for_change(sample, 'Samples', before)
    sample.get_by_label('Seed').fill('')
    page.get_by_text('the seed must be an integer').wait_for()
    for tab, slider in (('Interpolation', 'Position'), ('Directions', 'Direction 1')):
        panel = open_tab(page, tab)
        before = source(panel, 'Image')
        panel.get_by_label(f'range slider for {slider}').press('End')
        wait_for_change(panel, 'Image', before)
    uploads = [write(tmp_path / f'{seed}.png', (30, 40), seed=seed) for seed in range(2)]
    for tab, label in (
        ('Super-resolve', 'Super-resolved'), ('Colorize', 'Colorized'), ('Anomaly', 'Difference'),
    ):  # fmt: skip
        panel = open_tab(page, tab)
        panel.locator('input[type=file]').set_input_files(uploads[0])
        source(panel, label)
    assert 'distance to the reconstruction' in panel.get_by_label('Anomaly scores').input_value()
    (tmp_path / 'text.png').write_text('no image')
    panel.get_by_label('Remove Image').click()
    panel.locator('input[type=file]').set_input_files(str(tmp_path / 'text.png'))
    page.get_by_text('text.png cannot be decoded').wait_for()


@pytest.mark.slow
def test_page_of_an_inpainting_run(config, serve, page, tmp_path):
    require('gradio')
    training.train_and_evaluate(small('inpainting_cifar10', config), tmp_path / 'run')
    page.goto(f'http://127.0.0.1:{serve(tmp_path / "run", number=signal.SIGHUP)}')
    panel = open_tab(page, 'Inpaint')
    assert page.get_by_role('tab').all_inner_texts() == ['Inpaint']
    panel.get_by_role('button', name='Inpaint').click()
    page.get_by_text('there is no image').wait_for()
    panel.locator('input[type=file]').first.set_input_files(write(tmp_path / 'a.png', (30, 40)))
    brush = panel.get_by_label('Brush', exact=True)
    brush.wait_for()
    page.wait_for_timeout(2000)
    brush.click()
    box = panel.locator('canvas').first.bounding_box()
    middle = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 20, middle[1] + 20, steps=5)
    page.mouse.up()
    panel.get_by_role('button', name='Inpaint').click()
    source(panel, 'Inpainted')
