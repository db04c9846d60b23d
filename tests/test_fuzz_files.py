"""Damaged files are read, or rejected with a UserError."""

import contextlib
import functools
import io
import json
import os
import shutil
import types
import zipfile

import jax
import numpy as np
import PIL.Image
import pytest
from etils import epath
from hypothesis import strategies as st

from dcgan_jax import evaluation, models, parallel, run_description, run_dir, train_state
from dcgan_jax.configs import default
from dcgan_jax.data import sources, user_images
from dcgan_jax.metrics import extractors, reference_stats
from dcgan_jax.metrics.evaluator import Evaluation
from dcgan_jax.metrics.frechet_distance import frechet_distance
from dcgan_jax.runtime import checkpoint, checkpoint_folder, nonfinite, sharding
from tests.conftest import tiny_config
from tests.extractors import write_artifact
from tests.fuzzing import (
    changed,
    damaged,
    dumped,
    fuzz,
    user_error_message,
)

pytestmark = [
    # If one read fails, Orbax abandons its other reads, and Python warns about each.
    pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
    # Warnings about the bytes of a file in a failing case.
    pytest.mark.filterwarnings('ignore:Generating overly large repr'),
]


def image_files():
    """Return 6x6 images as files of common formats and modes."""
    colors = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 6, 4), np.uint8))
    gray_16_bit = PIL.Image.fromarray(np.full((6, 6), 40_000, np.uint16))
    rotated = PIL.Image.Exif()
    rotated[0x0112] = 6
    files = []

    def add(kind, mode, **options):
        picture = gray_16_bit if mode == 'I;16' else colors.convert('RGB').convert(mode)
        if mode in ('RGBA', 'LA'):
            picture = colors.convert(mode)
        file = io.BytesIO()
        picture.save(file, kind, **options)
        files.append(file.getvalue())

    for kind, modes in {
        'PNG': ['RGB', 'RGBA', 'L', 'LA', '1', 'P', 'I;16'],
        'JPEG': ['RGB', 'L', 'CMYK'],
        'BMP': ['RGB', 'L', '1', 'P'],
        'WEBP': ['RGB', 'RGBA'],
        'GIF': ['P'],
        'TIFF': ['RGB'],
    }.items():
        for mode in modes:
            add(kind, mode)
    add('JPEG', 'RGB', exif=rotated, progressive=True)
    add('PNG', 'P', transparency=3)
    add('WEBP', 'RGBA', lossless=True)
    return files


def test_damaged_images_are_read_or_rejected(tmp_path, fraction):
    folder = tmp_path / 'class'
    folder.mkdir()

    def read_images():
        batches, count = user_images.open_images(tmp_path, default.get_config().data)
        assert sum(map(len, batches)) == count == 1

    def read_source():
        source = sources.open_source('folder', 'train', str(tmp_path), image_size=8)
        assert source.read(np.zeros(1, int), labels=True).images.shape == (1, *source.image_shape)

    errors = []

    def check(content, name):
        path = folder / name
        path.write_bytes(content)
        errors.extend(
            user_error_message(read, folder=tmp_path) for read in (read_images, read_source)
        )
        path.unlink()

    files = image_files()
    for content in files:
        check(content, 'a.png')
    names = st.sampled_from(['a.png', 'a.jpg', 'a.webp', 'a.BMP', 'a\n.jpeg'])
    fuzz(check, 300 * fraction, content=damaged(*files), name=names)
    assert None in errors
    assert any('cannot be decoded' in message for message in errors if message)


def npz(compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def npz_with_header(
    shape, dtype='|u1', content=b'', name='images.npy', compression=zipfile.ZIP_STORED
):
    """Return an npz file with a header of the given shape and type, followed by `content`."""
    member, file = io.BytesIO(), io.BytesIO()
    header = {'shape': shape, 'fortran_order': False, 'descr': dtype}
    np.lib.format.write_array_header_1_0(member, header)
    with zipfile.ZipFile(file, 'w', compression) as archive:
        archive.writestr(name, member.getvalue() + content)
    return file.getvalue()


def npz_files():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    shape = images.shape
    unusual = [
        *(np.array([{}, os.system], object), np.array(['a']), np.zeros(3, [('é', 'i4')])),
        *(images.astype(np.float16), images.astype('M8[s]'), np.zeros((0, 4, 4, 3), np.uint8)),
    ]
    return [
        *(npz(images=images), npz(True, images=images), npz(a=images, images=images), npz()),
        *(npz(True, images=array) for array in unusual),
        *(
            npz_with_header(size)
            for size in [(2**40, 4, 4, 3), (2**62, 4, 4, 3), (-1, 4, 4, 3), (True,)]
        ),
        *(npz_with_header((2**40,), kind) for kind in ('|V0', '|S0', '|U0', '|b1')),
        *(
            npz_with_header(shape, content=images.tobytes(), name=name)
            for name in ('images', '../a.npy')
        ),
        *(
            npz_with_header(shape, content=images.tobytes(), compression=compression)
            for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        ),
    ]


def test_damaged_npz_files_are_read_or_rejected(tmp_path, fraction):
    path = tmp_path / f'{"long" * 50}.npz'
    errors = []

    def read():
        batches, count = user_images.open_images(path, default.get_config().data)
        assert sum(map(len, batches)) == count

    def check(content):
        path.write_bytes(content)
        errors.append(user_error_message(read, folder=tmp_path))

    for content in npz_files():
        check(content)
    assert None in errors
    fuzz(check, 200 * fraction, content=damaged(*npz_files()))


def test_damaged_statistics_are_read_or_rejected(tmp_path, fraction):
    extractor = types.SimpleNamespace(name='x', sha256='0' * 64, dimension=4)
    good = {'mu': np.zeros(4), 'sigma': np.eye(4), 'n': 10, 'extractor_sha256': '0' * 64}
    unusual = [
        *(np.inf, np.nan, -1, 2**62, 2.5, 1j, 'x', b'\xff', True, np.datetime64('2020')),
        *(np.zeros((4, 4, 4)), np.full((4, 4), np.nan), np.full((4, 4), 1e308), [1, 2]),
        *(np.zeros(4, [('a', 'f4')]), np.zeros((2**12, 2**12), np.uint8)),
    ]
    files = [npz(**good), npz(True, **good), npz(True, **good | {'mu': np.zeros(2**28, np.uint8)})]
    for name in good:
        files.append(npz(**{key: value for key, value in good.items() if key != name}))
        files += [npz(True, **good | {name: value}) for value in unusual]
    path = tmp_path / 'r.npz'

    def read():
        mu, sigma, _ = reference_stats.read_statistics(path, extractor)
        frechet_distance(mu, sigma, mu, np.eye(4))

    def check(content):
        path.write_bytes(content)
        return user_error_message(read, folder=tmp_path)

    assert check(files[0]) is None
    for content in files:
        check(content)
    fuzz(check, 120 * fraction, content=damaged(*files[:2], *files[3:6]))


def test_damaged_extractors_are_used_or_rejected(tmp_path, fraction):
    path = write_artifact(tmp_path / 'tiny.jaxexport')
    content = path.read_bytes()
    errors = []

    def read():
        extractors.load(path, batch_size=2)(np.zeros((2, 8, 8, 3), np.uint8))

    def check(content):
        path.write_bytes(content)
        errors.append(user_error_message(read, folder=tmp_path))

    check(content)
    fuzz(check, 100 * fraction, content=damaged(content))
    assert errors[0] is None
    assert any('is damaged' in message for message in errors if message)
    assert any('does not run' in message for message in errors if message)


@pytest.fixture(scope='module')
def run(data_dir, tmp_path_factory):
    """(workdir, abstract state) of a run with checkpoints and best checkpoints at steps 2 and 4."""
    workdir = epath.Path(tmp_path_factory.mktemp('run'))
    run = run_dir.Run(tiny_config(data_dir), (8, 8, 3), ('a', 'b', 'c'))
    run_dir.write(workdir, run)
    create = functools.partial(
        train_state.create, run.config, models.build(*run[:2], run.num_classes), run.image_shape
    )
    abstract_state = parallel.create_abstract_state(create, sharding.create_mesh())
    state = parallel.initial_state(create, abstract_state)
    best = {'value': 1.0, 'protocol': evaluation._settings('frechet_distance', {'num_samples': 9})}
    for folder in (checkpoint_folder.FOLDER, checkpoint_folder.BEST_FOLDER):
        with contextlib.closing(checkpoint.Checkpoints(workdir, 2, {}, folder)) as checkpoints:
            for step in (2, 4):
                checkpoints.save(state.replace(step=jax.numpy.int32(step)), best=best)
    return workdir, abstract_state


def test_damaged_run_configs_are_read_or_rejected(run, tmp_path, fraction):
    content = (run[0] / run_dir.CONFIG_FILE).read_bytes()
    tree = json.loads(content)

    def read():
        run = run_dir.read(tmp_path)
        networks = models.build(*run[:2], run.num_classes)
        jax.eval_shape(functools.partial(train_state.create, run.config, networks, run.image_shape))
        json.dumps(run_description.describe(run)).encode()

    def check(content):
        content = content if isinstance(content, bytes) else dumped(content)
        (tmp_path / run_dir.CONFIG_FILE).write_bytes(content)
        return user_error_message(read, folder=tmp_path)

    assert check(content) is None
    for shape in ([8, 8, -3], [8, 8, 10**30], [8, 8, float('inf')], [8, 8], '883'):
        assert 'is damaged' in check(tree | {'image_shape': shape})
    for names in (['a', 1], 'abc', ['\0'], None):
        assert 'is damaged' in check(tree | {'class_names': names})
    fuzz(check, 300 * fraction, content=st.one_of(changed(tree), damaged(content)))


def test_damaged_rollbacks_are_read_or_rejected(tmp_path, fraction):
    workdir = epath.Path(tmp_path)

    def read():
        count = len(nonfinite.read_rollbacks(workdir))
        nonfinite.seed_after_rollbacks(0, count)
        nonfinite.add_rollback(workdir, 'x')
        assert len(nonfinite.read_rollbacks(workdir)) == count + 1

    def check(content):
        (workdir / nonfinite.FILE).write_bytes(dumped(content))
        user_error_message(read, folder=tmp_path)

    fuzz(check, 80 * fraction, content=changed(['a', 'b']))


def copy_checkpoints(run, folder, tmp_path):
    shutil.copytree(run[0] / folder, tmp_path / folder)
    return sorted(
        (path for path in (tmp_path / folder).rglob('*') if path.is_file()),
        key=lambda path: (path.stat().st_size, path),
    )


def test_damaged_checkpoints_are_skipped(run, tmp_path, fraction):
    files = {
        path: path.read_bytes()
        for path in copy_checkpoints(run, checkpoint_folder.FOLDER, tmp_path)
    }
    found = []

    def read():
        state, passed_over = checkpoint.restore_latest(tmp_path, run[1])
        found.append((int(state.step), passed_over))
        # A resumed run opens the folder, including damaged checkpoints, for saving.
        checkpoint.Checkpoints(tmp_path, 3, {}).close()

    def check(data):
        path = data.draw(st.sampled_from(list(files)))
        content = damaged(files[path])
        with contextlib.suppress(ValueError):
            content = st.one_of(content, changed(json.loads(files[path])).map(dumped))
        path.write_bytes(data.draw(content))
        assert user_error_message(read, folder=tmp_path) is None
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    fuzz(check, 50 * fraction, data=st.data())
    # The damaged files depend on their names, which Orbax generates randomly.
    assert {(step, tuple(damaged)) for step, damaged in found} <= {(4, ()), (2, (4,))}


def test_damaged_best_checkpoint_metadata_are_replaced(run, tmp_path, fraction):
    copy_checkpoints(run, checkpoint_folder.BEST_FOLDER, tmp_path)
    shutil.rmtree(tmp_path / checkpoint_folder.BEST_FOLDER / '2')
    path = tmp_path / checkpoint_folder.BEST_FOLDER / '4' / 'metadata' / 'metadata'
    tree = json.loads(path.read_text())
    config = tiny_config('')
    protocol = {'num_samples': 9, 'weights_sha256': ''}
    measured = Evaluation({'frechet_distance': 2.0}, {'frechet_distance': 'FD'}, protocol)
    scorer = lambda *_: measured  # noqa: E731
    watcher = types.SimpleNamespace(interruptible=contextlib.nullcontext)
    writer = types.SimpleNamespace(write_scalars=lambda *_: None)
    saved = []

    def read():
        best = types.SimpleNamespace(save=lambda state, best: saved.append(best), wait=lambda: None)
        progress = evaluation.TrainingEvaluator(
            config, scorer, epath.Path(tmp_path), writer, best, watcher
        )
        progress(types.SimpleNamespace(step=6))

    def check(content):
        path.write_bytes(dumped(content))
        assert user_error_message(read, folder=tmp_path) is None

    check(tree)
    assert not saved
    for best in (None, [], {}, {'value': 'x'}, {'value': None, 'protocol': 1}, {'value': 3.0}):
        check(tree | {'best': best})
    assert len(saved) == 6
    fuzz(check, 50 * fraction, content=changed(tree))
