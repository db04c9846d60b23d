"""Latency of the demo: time from the input event of a slider to the load event of the new image.

    python -m benchmarks.demo --workdir=RUN

Needs Gradio (`requirements-demo.txt`), Playwright (`tests/requirements-peers.txt`) and Chromium.
"""

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

from playwright import sync_api

from benchmarks import measure

# Records the times of the input event and of the load events of images.
_RECORD = """() => {
  document.addEventListener('input', event => { window.pressed = performance.now(); }, true);
  document.addEventListener('load', event => {
    if (event.target.tagName === 'IMG') window.shown.push(performance.now());
  }, true);
}"""


def main() -> None:
    """Serve the run, press the arrow keys on the first slider, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--workdir', required=True, help='folder of a run with a latent generator')
    parser.add_argument('--port', type=int, default=7861)
    parser.add_argument('--presses', type=int, default=40)
    flags = parser.parse_args()
    with _served(flags.workdir, flags.port) as address, _chromium() as page:
        page.goto(address)
        times = list(_slider_latencies(page, flags.presses))
    measure.report(
        'demo', workdir=flags.workdir, max_s=round(max(times), 6), **measure.summary(times)
    )


@contextlib.contextmanager
def _served(workdir: str, port: int) -> Iterator[str]:
    """Start the demo and yield its address."""
    command = [sys.executable, 'main.py', '--mode=demo', f'--workdir={workdir}', f'--port={port}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if not process.stdout.readline():
                raise SystemExit(f'the demo of {workdir} did not start: see the error above')
            yield f'http://127.0.0.1:{port}'
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


@contextlib.contextmanager
def _chromium() -> Iterator[sync_api.Page]:
    """Yield a page of a headless Chromium."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which('chromium'), args=['--no-sandbox', '--disable-gpu']
        )
        yield browser.new_page(viewport={'width': 1200, 'height': 800})
        browser.close()


def _slider_latencies(page: sync_api.Page, presses: int) -> Iterator[float]:
    """Yield the seconds from each input event of a slider to the load event of the new image."""
    page.get_by_role('tab', name='Directions').click()
    panel = page.get_by_role('tabpanel').filter(visible=True)
    panel.locator('.block').filter(has=page.get_by_text('Image', exact=True)).locator(
        'img'
    ).wait_for()
    slider = panel.get_by_label('range slider for Direction 1')
    page.evaluate('window.shown = []')
    page.evaluate(_RECORD)
    for index in range(presses):
        page.evaluate('window.shown = []')
        slider.press('ArrowRight' if index % 8 < 4 else 'ArrowLeft')
        page.wait_for_function('window.shown.length > 0', polling=10)
        yield page.evaluate('window.shown[0] - window.pressed') / 1e3


if __name__ == '__main__':
    main()
