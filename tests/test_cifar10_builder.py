import functools
import hashlib
import http.server
import io
import socket
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from dcgan_jax.data import cifar10_builder, input_pipeline, sources
from dcgan_jax.runtime.errors import UserError

SHARED = Path(__file__).resolve().parents[2] / 'shared' / 'tfds'
PER_FILE = 3
NAMES = [f'data_batch_{i}.bin' for i in range(1, 6)] + ['test_batch.bin']
ARCHIVE = 'cifar-10-binary.tar.gz'


def fake_pixels(file, record):
    """Return noise, uint8 [32, 32, 3], so that swapped axes or channels are detected."""
    return np.random.default_rng([file, record]).integers(0, 256, (32, 32, 3), np.uint8)


def fake_label(file, record):
    return (3 * file + record) % 10


def make_archive(path, names=NAMES, cut=0):
    """Write a small archive in CIFAR-10's binary format, with a file outside of its folder."""
    with tarfile.open(path, 'w:gz') as tar:
        for file, name in enumerate(names):
            content = b''.join(
                bytes([fake_label(file, i)])
                + b''.join(fake_pixels(file, i)[:, :, c].tobytes() for c in range(3))
                for i in range(PER_FILE)
            )
            content = content[: len(content) - cut]
            member = tarfile.TarInfo(f'cifar-10-batches-bin/{name}')
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        evil = tarfile.TarInfo('../evil.bin')
        evil.size = 4
        tar.addfile(evil, io.BytesIO(b'evil'))


def expect(path, monkeypatch, url=None):
    """Set the expected SHA-256 to that of `path`, and the URL of the archive to `url`."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10_builder, 'ARCHIVE_SHA256', digest)
    monkeypatch.setattr(cifar10_builder, 'ARCHIVE_URL', url or path.as_uri())


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Truncating(Quiet):
    """Announce the size of the whole file, and close the connection after half of it."""

    def copyfile(self, source, outputfile):
        content = source.read()
        outputfile.write(content[: len(content) // 2])


def serve(folder, handler):
    server = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(handler, directory=folder)
    )
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.05}).start()
    return server


@pytest.fixture(params=[Quiet])
def web(tmp_path, monkeypatch, request):
    """Serve an archive by HTTP; yield the folder that is served."""
    folder = tmp_path / 'web'
    folder.mkdir()
    make_archive(folder / ARCHIVE)
    server = serve(folder, request.param)
    url = f'http://127.0.0.1:{server.server_port}/{ARCHIVE}'
    expect(folder / ARCHIVE, monkeypatch, url)
    yield folder
    server.shutdown()
    server.server_close()


@pytest.fixture
def root(tmp_path):
    root = tmp_path / 'data'
    root.mkdir()
    return root


def assert_nothing_prepared(root):
    assert not list(root.glob('cifar10/[0-9]*'))
    assert not list(root.glob('downloads/*.part'))


def check_prepared(root):
    """Compare pixels, labels and ids, read by `open_source` and by TFDS, with the archive."""
    for split, files in (('train', range(5)), ('test', [5])):
        ours = sources.open_source('cifar10', split, str(root))
        theirs = tfds.data_source('cifar10', split=split, data_dir=root)
        assert len(ours) == len(theirs) == PER_FILE * len(files)
        np.testing.assert_array_equal(
            input_pipeline.load_split(ours).images, [r['image'] for r in theirs]
        )
        records = {record['id']: record for record in theirs}
        for index in range(len(theirs)):
            file, i = files[index // PER_FILE], index % PER_FILE
            record = records[f'{split}_{index:05d}'.encode()]
            np.testing.assert_array_equal(record['image'], fake_pixels(file, i))
            assert record['label'] == fake_label(file, i)


def test_download_and_prepare(web, root, monkeypatch, capsys):
    sources.open_source('cifar10', 'train', str(root))
    check_prepared(root)
    captured = capsys.readouterr()
    assert f'Preparing cifar10 in {root}' in captured.err
    assert captured.out == ''
    assert not (root.parent / 'evil.bin').exists()
    names = tfds.builder('cifar10', data_dir=root).info.features['label'].names
    assert names[:3] == ['airplane', 'automobile', 'bird']
    assert len(names) == 10
    # After preparation, neither the network nor the archive is needed.
    (root / 'downloads' / ARCHIVE).unlink()
    monkeypatch.setattr(cifar10_builder, 'ARCHIVE_URL', 'http://127.0.0.1:1/')
    check_prepared(root)


def test_ids_and_order_equal_tfds(tmp_path):
    """The local copy has the order of cifar10:3.0.2 in TFDS, which the shuffle must reproduce."""
    if not SHARED.is_dir():
        pytest.skip(f'no CIFAR-10 in {SHARED}')
    from tensorflow_datasets.core import shuffle

    copy = tfds.data_source('cifar10', split='test', data_dir=SHARED)
    builder = cifar10_builder.Cifar10(data_dir=tmp_path, file_format='array_record')
    examples = builder._generate_examples(
        'test', np.zeros((10_000, 1, 1, 3), np.uint8), [0] * 10_000
    )
    shuffler = shuffle.Shuffler(tmp_path, hash_salt='test')
    for key, example in examples:
        shuffler.add(key, example['id'].encode())
    ordered = [name for _, name in shuffler]
    assert ordered[:200] == [copy[i]['id'] for i in range(200)]


def test_manually_downloaded_archive_is_used(web, root, monkeypatch):
    monkeypatch.setattr(cifar10_builder, 'ARCHIVE_URL', f'http://127.0.0.1:1/{ARCHIVE}')
    (root / 'downloads').mkdir()
    (web / ARCHIVE).rename(root / 'downloads' / ARCHIVE)
    check_prepared(root)


def test_wrong_manually_downloaded_archive_is_rejected_and_kept(web, root):
    archive = root / 'downloads' / ARCHIVE
    archive.parent.mkdir()
    archive.write_bytes(b'something else')
    with pytest.raises(UserError, match=r'has SHA-256 .* delete it, or replace it') as error:
        sources.open_source('cifar10', 'train', str(root))
    assert '\n' not in str(error.value)
    assert archive.read_bytes() == b'something else'
    assert_nothing_prepared(root)


def test_download_with_wrong_checksum_is_rejected(web, root, monkeypatch):
    monkeypatch.setattr(cifar10_builder, 'ARCHIVE_SHA256', '0' * 64)
    with pytest.raises(
        UserError, match=f'returned .* bytes .* not {"0" * 64}: .*put the archive at'
    ) as e:
        sources.open_source('cifar10', 'train', str(root))
    assert '\n' not in str(e.value)
    assert not (root / 'downloads' / ARCHIVE).exists()
    assert_nothing_prepared(root)


@pytest.mark.parametrize('web', [Truncating], indirect=True)
def test_interrupted_download_is_rejected(web, root):
    with pytest.raises(UserError, match=r'try again, put the archive at .*downloads/cifar-10'):
        sources.open_source('cifar10', 'train', str(root))
    assert not (root / 'downloads' / ARCHIVE).exists()
    assert_nothing_prepared(root)


def test_failed_download_is_rejected(root, monkeypatch):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(cifar10_builder, 'ARCHIVE_URL', f'http://127.0.0.1:{port}/{ARCHIVE}')
    with pytest.raises(UserError, match=r'cannot download .*refused.* set data_dir') as error:
        sources.open_source('cifar10', 'train', str(root))
    assert '\n' not in str(error.value)
    assert_nothing_prepared(root)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-3000]), 'cannot read'),
        (lambda path: path.write_bytes(b'no archive'), 'cannot read'),
        (lambda path: make_archive(path, NAMES[:-1]), 'test_batch.bin has 0 bytes'),
        (lambda path: make_archive(path, cut=7), 'data_batch_1.bin has 9212 bytes'),
    ],
)
def test_damaged_archive_with_expected_checksum_is_rejected(
    tmp_path, root, monkeypatch, damage, message
):
    archive = tmp_path / ARCHIVE
    make_archive(archive)
    damage(archive)
    expect(archive, monkeypatch)
    with pytest.raises(UserError, match=message):
        sources.open_source('cifar10', 'train', str(root))
    assert_nothing_prepared(root)


def test_interrupted_preparation_is_restarted(web, root, monkeypatch):
    generate = cifar10_builder.Cifar10._generate_examples

    def interrupted(self, split, images, labels):
        yield from generate(self, split, images[:2], labels[:2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cifar10_builder.Cifar10, '_generate_examples', interrupted)
        with pytest.raises(KeyboardInterrupt):
            sources.open_source('cifar10', 'train', str(root))
    assert_nothing_prepared(root)
    # A killed process leaves TFDS's folder of incomplete files.
    (root / 'cifar10' / 'incomplete.ABCDEF_3.0.2').mkdir(parents=True)
    check_prepared(root)
