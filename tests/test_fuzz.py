"""Random flags, configs, images and damaged files are accepted, or rejected with a UserError."""

import contextlib
import functools
import io
import json
import os
import shutil
import types
import zipfile
from typing import Annotated

import jax
import numpy as np
import PIL.Image
import pytest
from etils import epath
from hypothesis import strategies as st

from dcgan_jax import config as config_lib
from dcgan_jax import evaluation, models, parallel, run_dir, train_state, training
from dcgan_jax.config_types import INT32_MAX, Group
from dcgan_jax.configs import default
from dcgan_jax.data import image_source, sources, user_images
from dcgan_jax.metrics import extractors, reference_stats
from dcgan_jax.metrics.evaluator import Evaluation
from dcgan_jax.metrics.frechet_distance import frechet_distance
from dcgan_jax.runtime import checkpoint, download, multihost, nonfinite, sharding
from dcgan_jax.runtime.errors import UserError
from tests.command_line import call_main
from tests.conftest import slow, tiny_config
from tests.extractors import write_artifact
from tests.fuzzing import (
    FLOATS,
    INTEGERS,
    TEXTS,
    changed,
    damaged,
    dumped,
    fuzz,
    guarded,
    is_convertible,
    user_error_message,
)
from tests.test_main import ROOT, TINY

pytestmark = [
    # If one read fails, Orbax abandons its other reads, and Python warns about each.
    pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
    # Warnings about the bytes of a file in a failing case.
    pytest.mark.filterwarnings('ignore:Generating overly large repr'),
]


@pytest.fixture(params=[pytest.param(0.1, id='some'), slow(1, id='all')])
def fraction(request):
    """Fraction of the cases that are tested; there are about 2,000 cases."""
    return request.param


QUICKSTART = f'--config={ROOT}/configs/quickstart.py'
TINY_RUN = [QUICKSTART, *TINY[1:], '--workdir=w']
FLAGS = (
    *('mode', 'workdir', 'out', 'num', 'seed', 'images', 'config', 'checkpoint', 'distributed'),
    *('coordinator_address', 'num_processes', 'process_id', 'flagfile', 'undefok'),
    *('mask', 'classes', 'arithmetic', 'prompt'),
)
# Arguments contain no NUL, and no paths outside of the temporary folder.
VALUES = st.one_of(
    TEXTS.filter(lambda text: '\0' not in text and not text.startswith(('/', '..'))),
    st.one_of(INTEGERS, FLOATS).filter(is_convertible).map(str),
    st.sampled_from(['w', 'file', 'file/x', 'broken', 'none', 'w/../x', '.']),
    st.sampled_from(['train', 'sample', 'evaluate', 'export', 'best', 'latest', 'true', 'false']),
    st.sampled_from(['super_resolve', 'inpaint', 'translate', 'explore', 'explain', '1,2-3+4']),
    st.sampled_from(['report', 'classify_samples', 'detect_anomalies', 'a cat']),
)
# Valid values of some fields.
WORDS = (
    *('batch', 'none', 'layer', 'group', 'residual', 'conv', 'hinge', 'relativistic', 'adamw'),
    *('masked', 'gray', 'low_resolution', 'free_form', 'skip', 'l1', "('latent_optimization',)"),
    *('cosine', 'stream', 'bfloat16', 'average', 'sum', 'mode_coverage', 'folder'),
    *('trigrams', "('{}',)", "('a',)"),
    *('True', 'False', "('color',)", "('mode_coverage',)", '(0,)', '(8,)', '(2, 2)', '1e-3'),
)


@pytest.fixture
def command_line(tmp_path, data_dir, monkeypatch):
    """Function that runs main.py in this process, without compilation and network."""

    def prepare(config, workdir):
        run = training.prepare(config, workdir).run
        networks = models.build(config, run.image_shape, run.num_classes)
        create = functools.partial(train_state.create, config, networks, run.image_shape)
        jax.eval_shape(create)
        return types.SimpleNamespace(step=0)

    def refuse(*_):
        raise UserError('this test has a single process')

    def fail(*_):
        raise OSError('this test has no network')

    here = tmp_path / 'here'
    (here / 'broken').mkdir(parents=True)
    (here / 'broken' / 'config.json').write_text('{"config": 3')
    (here / 'file').write_text('')
    monkeypatch.chdir(here)
    monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
    monkeypatch.setenv('DCGAN_JAX_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(training, 'train_and_evaluate', prepare)
    monkeypatch.setattr(multihost, 'initialize', refuse)
    monkeypatch.setattr(download, '_download', fail)
    sources.open_source('tiny_images')  # Imports libraries that define flags.

    def run(*arguments):
        """Return the exit code and the lines of stderr."""
        with guarded(tmp_path):
            result = call_main(*arguments)
        code, lines = result.returncode, result.stderr.splitlines()
        if code:
            assert code == 2
            assert len(lines) == 1, lines
            assert lines[0].startswith('error: '), lines
        shutil.rmtree(here / 'w', ignore_errors=True)
        return code, lines

    return run


def test_random_command_lines_are_accepted_or_rejected(command_line, fraction):
    assert command_line(*TINY_RUN)[0] == 0
    data = [*TINY_RUN, '--config.dataset=folder']
    for path in ('~no-such-user/x', 'x' * 300, 'gs://b/x', 'ftp://h/x', '\udcff', 'a\nb', ''):
        for flags in (
            [*TINY_RUN, f'--workdir={path}', '--config.dataset=none'],
            ['--mode=sample', f'--workdir={path}'],
            [*TINY_RUN[:-1], '--mode=evaluate', f'--images={path}/x'],
            [f'--config={path}', '--config.seed=1', '--workdir=w'],
            [*data, f'--config.data_dir={path}'],
            [*TINY_RUN, f'--config.data_dir={path}/x'],
            [*TINY_RUN, '--config.evaluation.every=1', f'--config.evaluation.extractor={path}'],
        ):
            assert command_line(*flags)[0] == 2
    flag = st.builds('--{}={}'.format, st.sampled_from(FLAGS), VALUES)
    unknown = st.builds('--{}={}'.format, st.text(max_size=5), VALUES)
    random_flag = st.one_of(flag, flag, flag, unknown, VALUES)
    starts = st.sampled_from([[], TINY_RUN[-1:], TINY_RUN, [*TINY_RUN, '--mode=evaluate']])

    def check(start, rest):
        command_line(*start, *rest)

    fuzz(check, 300 * fraction, start=starts, rest=st.lists(random_flag, min_size=1, max_size=3))


def test_random_overrides_are_accepted_or_rejected(command_line, fraction):
    fields = sorted(config_lib.FIELDS)
    numbers = st.one_of(INTEGERS, FLOATS).filter(is_convertible)
    tuples = st.lists(st.one_of(st.integers(-1, 9), numbers, TEXTS), max_size=4).map(tuple)
    values = st.one_of(numbers.map(str), tuples.map(repr), VALUES, st.sampled_from(WORDS))
    values = values.filter(lambda text: '\0' not in text)

    def check(changes):
        command_line(*TINY_RUN, *(f'--config.{name}={value}' for name, value in changes))

    for index, field in enumerate(fields):
        check([(field, ('-1', 'nan', '1e999', '()', '9' * 400)[index % 5])])
    change = st.tuples(st.sampled_from(fields), values)
    fuzz(check, 400 * fraction, changes=st.lists(change, min_size=1, max_size=3))


def valid_values(group=default.Config, prefix=''):
    """Return a strategy for valid values of each field, by name."""
    strategies = {}
    for name, field in group.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            strategies |= valid_values(field.annotation, f'{prefix}{name}.')
        else:
            strategies[prefix + name] = st.from_type(
                Annotated[field.annotation, *field.metadata, 0]
            )
    return strategies


def test_valid_field_values_can_be_traced_or_are_rejected(tmp_path, fraction):
    values = valid_values()
    assert set(values) == set(config_lib.FIELDS)
    shape, mesh = (8, 8, 3), sharding.create_mesh()

    def trace(config):
        config_lib.validate(config)
        networks = models.build(config, shape, 3)
        create = functools.partial(train_state.create, config, networks, shape)
        abstract_state = parallel.create_abstract_state(create, mesh)
        count = 1, config.batch_size * config.discriminator_steps
        images = jax.ShapeDtypeStruct((*count, *shape), np.uint8)
        batch = image_source.Examples(images, jax.ShapeDtypeStruct(count, np.int32))
        jax.eval_shape(
            parallel.train_call(config, mesh, abstract_state, shape),
            abstract_state,
            None,
            batch,
            None,
        )

    def check(changes):
        config = tiny_config('').unlock()
        with config.ignore_type():
            config.update_from_flattened_dict(dict(changes))
        errors.append(user_error_message(trace, config, folder=tmp_path))

    errors = []

    high = INT32_MAX
    rate = {'schedule': 'cosine', 'decay_start': high - 1, 'decay_end': high, 'warmup_steps': high}
    largest = {f'optimizer.generator.{name}': value for name, value in rate.items()}
    largest |= {'augment.instance_noise': 0.1, 'augment.instance_noise_steps': high}
    check([*largest.items(), ('penalty.r1', 1.0), ('penalty.interval', high)])
    assert not errors[0]
    change = st.sampled_from(sorted(values)).flatmap(
        lambda name: st.tuples(st.just(name), values[name])
    )
    fuzz(check, 20 * fraction, changes=st.lists(change, min_size=1, max_size=8))


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
    for folder in (checkpoint.FOLDER, checkpoint.BEST_FOLDER):
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
        json.dumps(run_dir.describe(run)).encode()

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
    files = {path: path.read_bytes() for path in copy_checkpoints(run, checkpoint.FOLDER, tmp_path)}
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
    copy_checkpoints(run, checkpoint.BEST_FOLDER, tmp_path)
    shutil.rmtree(tmp_path / checkpoint.BEST_FOLDER / '2')
    path = tmp_path / checkpoint.BEST_FOLDER / '4' / 'metadata' / 'metadata'
    tree = json.loads(path.read_text())
    config = tiny_config('')
    measured = Evaluation({'frechet_distance': 2.0}, {'frechet_distance': 'FD'}, {'num_samples': 9})
    scorer = lambda *_: measured  # noqa: E731
    watcher = types.SimpleNamespace(interruptible=contextlib.nullcontext)
    writer = types.SimpleNamespace(write_scalars=lambda *_: None)
    saved = []

    def read():
        best = types.SimpleNamespace(save=lambda state, best: saved.append(best))
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
