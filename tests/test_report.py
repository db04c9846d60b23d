"""The report of a run: one self-contained HTML file without scripts."""

import base64
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from dcgan_jax import training
from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import explore, html_report, report
from dcgan_jax.tasks.options import TaskOptions


class ParsedPage(html.parser.HTMLParser):
    """Parsed page: tags with their attributes, and texts."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(content)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ('meta', 'img'):  # Void elements have no end tag.
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope='module')
def workdir(data_dir, tmp_path_factory):
    from tests.conftest import tiny_config

    folder = tmp_path_factory.mktemp('runs') / 'a <b>run'
    training.train_and_evaluate(tiny_config(data_dir), folder)
    explore.run(TaskOptions(workdir=folder, num=8))
    found = {'labels': {'frechet_distance': 'FD (<x>)'}, 'protocol': {'step': 6, 'num_samples': 10}}
    (folder / 'evaluation').mkdir()
    (folder / 'evaluation' / '6.json').write_text(json.dumps({'frechet_distance': 12.345, **found}))
    return folder


def write_page(workdir, out=None):
    """Write the report of a run and return its content."""
    return report.run(TaskOptions(workdir=workdir, out=out)).path.read_text()


def test_report_contains_all_results(workdir, tmp_path):
    content = write_page(workdir, tmp_path)
    read = ParsedPage(content)
    pictures = {attrs['alt']: attrs['src'] for attrs in read.named('img')}
    assert {'Step 3', 'Step 6'} <= pictures.keys()
    kind, encoded = re.fullmatch('data:image/(.*);base64,(.*)', pictures['Step 6']).groups()
    assert kind == 'png'
    decoded = base64.b64decode(encoded)
    assert decoded == (workdir / 'samples' / '00000006.png').read_bytes()
    text = ' '.join(read.texts)
    for word in ('FD (<x>)', '12.35', 'tiny_images', 'config', 'base_features', 'a <b>run'):
        assert word in text
    titles = {attrs['aria-label'] for attrs in read.named('svg')}
    assert {'loss', 'gradient norm', 'discriminator/real', 'images per second'} <= titles


def test_report_loads_nothing_and_has_no_scripts(workdir, tmp_path):
    read = ParsedPage(write_page(workdir, tmp_path))
    names = {tag for tag, _ in read.tags}
    assert not names & {'script', 'link', 'iframe', 'object'}
    assert all(attrs['src'].startswith('data:image/') for attrs in read.named('img'))
    policy = next(a for a in read.named('meta') if 'http-equiv' in a)['content']
    assert policy.startswith("default-src 'none'")
    assert not any(name.startswith('on') for _, attrs in read.tags for name in attrs)


def test_chart_is_linear_and_omits_nan():
    """The middle of a straight line is in the middle of the chart; NaN is omitted."""
    line = [(0, 2.0), (10, 3.0), (20, 4.0), (30, float('nan'))]
    (drawn,) = ParsedPage(html_report.chart('t', {'a': line})).named('polyline')
    points = np.array([p.split(',') for p in drawn['points'].split()], float)
    np.testing.assert_allclose(points[1], (points[0] + points[2]) / 2, atol=0.1)
    assert points[0, 1] > points[2, 1]  # The y axis of SVG points down.
    assert len(points) == 3
    assert html_report.chart('t', {'a': [(0, float('inf'))]}) == ''


def test_subsampled_lines_keep_their_end_points():
    line = [(step, float(step % 7)) for step in range(10_001)]
    (drawn,) = ParsedPage(html_report.chart('t', {'a': line})).named('polyline')
    points = drawn['points'].split()
    assert len(points) <= 401
    assert points[0].startswith('58.0,')
    assert points[-1].startswith('470.0,')


def test_damaged_results_are_listed(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    (folder / 'evaluation' / 'x.json').write_text('{')
    (folder / 'evaluation' / 'y.json').write_text('{"labels": 3, "protocol": []}')
    (folder / 'explore' / 'explore.json').write_text('[]')
    text = ' '.join(ParsedPage(write_page(folder)).texts)
    assert 'x.json' in text
    assert 'y.json' in text
    assert '12.35' in text


@pytest.mark.parametrize(
    ('make', 'reason'),
    [
        (lambda path: path.write_bytes(bytes(9 * 2**20)), '9,437,184 bytes exceed the limit'),
        (lambda path: path.symlink_to('/dev/zero'), 'not a regular file, but a pipe'),
    ],
    ids=['too large', 'device'],
)
def test_images_that_cannot_be_embedded_are_listed(workdir, tmp_path, make, reason):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    make(folder / 'explore' / 'other.png')
    text = ' '.join(ParsedPage(write_page(folder)).texts)
    assert f'explore/other.png cannot be read: {reason}' in text


def test_run_without_checkpoint_is_rejected(workdir, tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    with pytest.raises(UserError, match='contains no run'):
        write_page(folder)
    shutil.copy(workdir / 'config.json', folder)
    with pytest.raises(UserError, match='no checkpoint'):
        write_page(folder, tmp_path / 'out')
    assert [path.name for path in folder.iterdir()] == ['config.json']
    assert not (tmp_path / 'out').exists()


def test_lost_checkpoints_are_reported(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    shutil.rmtree(folder / 'checkpoints')
    with pytest.raises(UserError, match='no checkpoints, although the run had saved some'):
        write_page(folder)


def test_report_states_the_last_step_with_readable_metadata(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    (folder / 'checkpoints' / '6' / 'metadata' / 'metadata').write_text('{')
    assert 'last checkpoint at step 4' in write_page(folder)
    for path in (folder / 'checkpoints').iterdir():
        (path / 'metadata' / 'metadata').write_text('{')
    assert 'last checkpoint at step 6' in write_page(folder)


def test_incomplete_files_are_ignored(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    (folder / 'checkpoints' / '999.orbax-checkpoint-tmp').mkdir()
    (folder / 'samples' / '00000009.png.7.partial').write_bytes(b'x')
    (folder / 'samples' / '5.txt').write_text('x')
    read = ParsedPage(write_page(folder))
    assert '6 steps' in ' '.join(read.texts[:3])
    shown = [attrs['alt'] for attrs in read.named('img') if attrs['alt'].startswith('Step')]
    assert shown == ['Step 3', 'Step 6']


def test_unreadable_files_are_listed_and_others_are_shown(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    (folder / 'explore' / 'gone.png').symlink_to(folder / 'nowhere.png')
    (folder / 'explore' / 'folder.png').mkdir()
    (folder / 'inpainting').mkdir()
    (folder / 'inpainting' / 'x.json').write_text('{"input": {"a": 1}, "metrics": 3}')
    odd = {'labels': {'a': ['b']}, 'protocol': {'step': 7}, 'a': '\\ud800'}
    (folder / 'evaluation' / '7.json').write_text(json.dumps(odd).replace('\\\\', '\\'))
    text = ' '.join(ParsedPage(write_page(folder)).texts)
    assert 'explore/gone.png' in text
    assert 'explore/folder.png' in text
    assert "['b']" in text
    assert 'Curves' in text
    (folder / 'events.out.tfevents.1.x').mkdir()
    assert 'event files' in ' '.join(ParsedPage(write_page(folder)).texts)


def test_damaged_files_are_named(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    image = folder / 'samples' / '00000003.png'
    image.write_bytes(image.read_bytes()[:100])
    (folder / 'samples' / '00000006.png').write_text('text')
    animation = folder / 'explore' / 'interpolation.gif'
    animation.write_bytes(animation.read_bytes()[:-100])
    bomb = bytearray((folder / 'explore' / 'truncation.png').read_bytes())
    bomb[16:24] = (30_000).to_bytes(4, 'big') * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, 'big')
    (folder / 'explore' / 'truncation.png').write_bytes(bomb)
    for path in folder.glob('*tfevents*'):
        path.write_bytes(path.read_bytes()[:20])
    text = ' '.join(ParsedPage(write_page(folder)).texts)
    for name in ('samples/00000003.png', 'samples/00000006.png', 'explore/truncation.png'):
        assert f'{name} is damaged or is not a PNG image' in text
    assert 'interpolation.gif is damaged or is not a GIF image' in text
    assert 'There are no scalars: the event files are missing, truncated or damaged.' in text


def test_owner_of_files_needs_no_entry_in_passwd(workdir, tmp_path, monkeypatch):
    def fail(uid):
        raise KeyError(f'getpwuid(): uid not found: {uid}')

    digest = files.digest([workdir / 'config.json'])
    monkeypatch.setattr('pwd.getpwuid', fail)
    assert files.digest([workdir / 'config.json']) == digest
    read = ParsedPage(write_page(workdir, tmp_path))
    assert 'Step 6' in [attrs['alt'] for attrs in read.named('img')]
    assert 'cannot be read' not in ' '.join(read.texts)


def test_pipes_are_not_read(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    for name in ('events.000001.tfevents.x', 'evaluation/x.json', 'explore/x.json'):
        os.mkfifo(folder / name)
    text = ' '.join(ParsedPage(write_page(folder)).texts)
    assert 'The event files cannot be read: not a regular file, but a pipe' in text
    assert 'x.json is not a valid evaluation' in text
    assert 'Latent space' in text


def chromium(folder, width, *options):
    return subprocess.run(
        ['chromium', '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={folder}/u',
         f'--window-size={width},3000', *options],
        check=True, capture_output=True, timeout=120, text=True,
    ).stdout  # fmt: skip


@pytest.mark.skipif(shutil.which('chromium') is None, reason='needs the browser chromium')
@pytest.mark.parametrize('width', [500, 1200])  # 500 is the minimum width of a window.
def test_page_is_not_wider_than_the_window(workdir, tmp_path, width):
    """Measure the width of a page with a very long word by a script, with the policy removed."""
    folder = shutil.copytree(workdir, tmp_path / 'run')
    (folder / 'evaluation' / f'{"x" * 200}.json').write_text('{')
    content = write_page(folder, tmp_path)
    assert 'x' * 200 in content
    measured = (
        '<script>const e = document.documentElement;'
        'document.title = `${e.scrollWidth} of ${innerWidth}, '
        '${[...document.images].filter(i => i.naturalWidth > 0).length} decoded`</script></body>'
    )
    page_of_script = tmp_path / 'measured.html'
    allowed = re.sub('<meta http-equiv[^>]*>', '', content)
    page_of_script.write_text(allowed.replace('</body>', measured))
    shown = chromium(tmp_path, width, '--dump-dom', page_of_script.absolute().as_uri())
    wide, screen, decoded = map(
        int, re.search(r'<title>(\d+) of (\d+), (\d+) decoded', shown).groups()
    )
    assert wide <= screen
    assert screen <= width
    assert decoded == len(ParsedPage(content).named('img'))


@pytest.mark.skipif(shutil.which('chromium') is None, reason='needs the browser chromium')
def test_browser_shows_pictures(workdir, tmp_path):
    """The content security policy allows the pictures."""
    path = report.run(TaskOptions(workdir=workdir, out=tmp_path)).path
    shot = tmp_path / 'shot.png'
    chromium(tmp_path, 500, f'--screenshot={shot}', path.absolute().as_uri())
    with Image.open(io.BytesIO(shot.read_bytes())) as picture:
        shown = np.asarray(picture.convert('RGB'))
    colors = np.unique(shown.reshape(-1, 3), axis=0)
    assert len(colors) > 200  # Text and lines alone have fewer colors than samples.
