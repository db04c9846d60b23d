"""The report of a run: one file that says what the folder holds, and fetches and runs nothing."""

import base64
import html.parser
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from dcgan_jax import training
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import explore, html_report
from dcgan_jax.tasks.report import report


class Read(html.parser.HTMLParser):
    """What a page has: tags with their attributes, and words."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.words, self._open = [], [], []
        self.feed(content)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ('meta', 'img'):  # Which have no end.
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope='module')
def workdir(data_dir, tmp_path_factory):
    from tests.conftest import tiny_config

    folder = tmp_path_factory.mktemp('runs') / 'a <b>run'
    training.train_and_evaluate(tiny_config(data_dir), folder)
    explore.explore(folder, None, 8, 0)
    found = {'labels': {'frechet_distance': 'FD (<x>)'}, 'protocol': {'step': 6, 'n_fake': 10}}
    (folder / 'evaluation').mkdir()
    (folder / 'evaluation' / '6.json').write_text(json.dumps({'frechet_distance': 12.345, **found}))
    return folder


def test_all_that_the_folder_holds_is_in_one_file(workdir, tmp_path):
    content = report(workdir, tmp_path).read_text()
    read = Read(content)
    pictures = {attrs['alt']: attrs['src'] for attrs in read.named('img')}
    assert {'Step 3', 'Step 6'} <= pictures.keys()
    kind, encoded = re.fullmatch('data:image/(.*);base64,(.*)', pictures['Step 6']).groups()
    assert kind == 'png'
    decoded = base64.b64decode(encoded)
    assert decoded == (workdir / 'samples' / '00000006.png').read_bytes()
    words = ' '.join(read.words)
    for word in ('FD (<x>)', '12.35', 'tiny_images', 'config', 'base_features', 'a <b>run'):
        assert word in words
    titles = {attrs['aria-label'] for attrs in read.named('svg')}
    assert {'loss', 'gradient norm', 'discriminator/real', 'images per second'} <= titles


def test_nothing_is_fetched_or_run(workdir, tmp_path):
    read = Read(report(workdir, tmp_path).read_text())
    names = {tag for tag, _ in read.tags}
    assert not names & {'script', 'link', 'iframe', 'object'}
    assert all(attrs['src'].startswith('data:image/') for attrs in read.named('img'))
    policy = next(a for a in read.named('meta') if 'http-equiv' in a)['content']
    assert policy.startswith("default-src 'none'")
    assert not any(name.startswith('on') for _, attrs in read.tags for name in attrs)


def test_a_chart_is_true_to_scale():
    """The middle of a straight line is in the middle of the drawing; NaN is left out."""
    line = [(0, 2.0), (10, 3.0), (20, 4.0), (30, float('nan'))]
    (drawn,) = Read(html_report.chart('t', {'a': line})).named('polyline')
    points = np.array([p.split(',') for p in drawn['points'].split()], float)
    np.testing.assert_allclose(points[1], (points[0] + points[2]) / 2, atol=0.1)
    assert points[0, 1] > points[2, 1]  # SVG counts from the top
    assert len(points) == 3
    assert html_report.chart('t', {'a': [(0, float('inf'))]}) == ''


def test_long_lines_keep_their_ends():
    line = [(step, float(step % 7)) for step in range(10_001)]
    (drawn,) = Read(html_report.chart('t', {'a': line})).named('polyline')
    points = drawn['points'].split()
    assert len(points) <= 401
    assert points[0].startswith('58.0,')
    assert points[-1].startswith('470.0,')


def test_damaged_figures_are_told(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    (folder / 'evaluation' / 'x.json').write_text('{')
    (folder / 'evaluation' / 'y.json').write_text('{"labels": 3, "protocol": []}')
    (folder / 'explore' / 'explore.json').write_text('[]')
    words = ' '.join(Read(report(folder).read_text()).words)
    assert 'x.json' in words
    assert 'y.json' in words
    assert '12.35' in words


def test_pictures_that_are_too_large_are_named(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    (folder / 'explore' / 'large.png').write_bytes(bytes(9 * 2**20))
    words = ' '.join(Read(report(folder).read_text()).words)
    assert 'explore/large.png: 9,437,184 bytes' in words


def test_a_run_without_checkpoint_is_refused_and_nothing_written(workdir, tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    with pytest.raises(UserError, match='contains no run'):
        report(folder)
    shutil.copy(workdir / 'config.json', folder)
    with pytest.raises(UserError, match='no checkpoint'):
        report(folder, tmp_path / 'out')
    assert [path.name for path in folder.iterdir()] == ['config.json']
    assert not (tmp_path / 'out').exists()


def test_unfinished_files_are_no_part_of_it(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    (folder / 'checkpoints' / '999.orbax-checkpoint-tmp').mkdir()
    (folder / 'samples' / '00000009.png.7.partial').write_bytes(b'x')
    (folder / 'samples' / '5.txt').write_text('x')
    read = Read(report(folder).read_text())
    assert '6 steps' in ' '.join(read.words[:3])
    shown = [attrs['alt'] for attrs in read.named('img') if attrs['alt'].startswith('Step')]
    assert shown == ['Step 3', 'Step 6']


def test_odd_files_are_told_and_the_rest_is_shown(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / 'run')
    (folder / 'explore' / 'gone.png').symlink_to(folder / 'nowhere.png')
    (folder / 'explore' / 'folder.png').mkdir()
    (folder / 'inpainting').mkdir()
    (folder / 'inpainting' / 'x.json').write_text('{"input": {"a": 1}, "metrics": 3}')
    odd = {'labels': {'a': ['b']}, 'protocol': {'step': 7}, 'a': '\\ud800'}
    (folder / 'evaluation' / '7.json').write_text(json.dumps(odd).replace('\\\\', '\\'))
    words = ' '.join(Read(report(folder).read_text()).words)
    assert 'explore/gone.png' in words
    assert 'explore/folder.png' in words
    assert "['b']" in words
    assert 'Curves' in words
    (folder / 'events.out.tfevents.1.x').mkdir()
    assert 'event files' in ' '.join(Read(report(folder).read_text()).words)


def chromium(folder, width, *options):
    return subprocess.run(
        ['chromium', '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={folder}/u',
         f'--window-size={width},3000', *options],
        check=True, capture_output=True, timeout=120, text=True,
    ).stdout  # fmt: skip


@pytest.mark.skipif(shutil.which('chromium') is None, reason='needs the browser chromium')
@pytest.mark.parametrize('width', [500, 1200])  # Windows are no narrower than 500.
def test_nothing_is_wider_than_the_screen(workdir, tmp_path, width):
    """Not even with a word that is; a script, which the page itself forbids, measures it."""
    folder = shutil.copytree(workdir, tmp_path / 'run')
    (folder / 'evaluation' / f'{"x" * 200}.json').write_text('{')
    content = report(folder, tmp_path).read_text()
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
    assert decoded == len(Read(content).named('img'))


@pytest.mark.skipif(shutil.which('chromium') is None, reason='needs the browser chromium')
def test_a_browser_shows_it(workdir, tmp_path):
    """Its policy lets pictures be seen."""
    path = report(workdir, tmp_path)
    shot = tmp_path / 'shot.png'
    chromium(tmp_path, 500, f'--screenshot={shot}', path.absolute().as_uri())
    with Image.open(io.BytesIO(shot.read_bytes())) as picture:
        shown = np.asarray(picture.convert('RGB'))
    colors = np.unique(shown.reshape(-1, 3), axis=0)
    assert len(colors) > 200  # of samples: words and lines alone have fewer
