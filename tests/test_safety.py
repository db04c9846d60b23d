"""Nothing that is read runs, nothing is written elsewhere, and no network is used unasked."""

import ast
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

import dcgan_jax
from tests.extractors import write_artifact
from tests.test_main import ROOT, TINY, assert_refused


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


# Runs main.py, and tells of what it must not do in a file that is open before.
AUDITED = """
import os, runpy, sys

# Buckets' client, an extra that tensorboardX imports: urllib3, which it takes, binds a socket then.
sys.modules['google.cloud.storage'] = None

events, *folders = [os.path.realpath(path) for path in sys.argv[1].split(os.pathsep)]
events = open(events, 'w', buffering=1)
sys.argv = ['main.py', *sys.argv[2:]]
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
never = (
    'pickle.find_class', 'os.system', 'os.exec', 'subprocess.Popen', 'socket.connect',
    'socket.getaddrinfo', 'socket.sendto', 'socket.bind',
)

# tensorboardX hands its own events to its thread by a queue of multiprocessing, which pickles them.
queued = ('tensorboardX.proto.event_pb2', 'Event'), ('builtins', 'object')

def hear(event, arguments):
    if event in never and arguments not in queued:
        print(event, arguments, file=events)
    elif event in ('os.mkdir', 'os.rename') or event == 'open' and arguments[2] & writing:
        for path in arguments[: 2 if event == 'os.rename' else 1]:
            if isinstance(path, (str, bytes, os.PathLike)):  # Else a file that is open.
                path = os.path.realpath(os.fsdecode(path))
                if not path.startswith((*folders, '/proc/', os.devnull)):  # names of threads
                    print(event, path, file=events)

sys.addaudithook(hear)
runpy.run_path('main.py', run_name='__main__')
"""


@pytest.fixture
def audited(tmp_path, data_dir):
    """`call(*flags)`: the result of main.py, and what it did that it must not."""
    for name in ('home', 'temporary', 'cache', 'programs'):
        (tmp_path / name).mkdir()
    environment = {
        **os.environ,
        'HOME': str(tmp_path / 'home'),
        'TMPDIR': str(tmp_path / 'temporary'),
        'TFDS_DATA_DIR': str(data_dir),
        'DCGAN_JAX_CACHE': str(tmp_path / 'cache'),
        'PYTHONDONTWRITEBYTECODE': '1',
    }

    def call(*flags):
        events = tmp_path / 'events'
        allowed = [tmp_path / 'w', tmp_path / 'out', tmp_path / 'cache']
        allowed.append(os.environ['JAX_COMPILATION_CACHE_DIR'])
        folders = os.pathsep.join(map(str, [events, *allowed]))
        result = subprocess.run(
            [sys.executable, '-c', AUDITED, folders, *map(str, flags)],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        for name in ('home', 'temporary'):
            assert not list((tmp_path / name).rglob('*'))
        return result, events.read_text()

    return call


@pytest.mark.slow
def test_a_run_writes_only_into_its_folders_and_uses_no_network(audited, tmp_path):
    workdir, out = f'--workdir={tmp_path / "w"}', tmp_path / 'out'
    artifact = write_artifact(tmp_path / 'tiny.jaxexport')
    extractor = [
        f'--config.evaluation.extractor={artifact}', '--config.evaluation.num_samples=4',
        '--config.evaluation.metrics=("frechet_distance",)', '--config.evaluation.every=2',
    ]  # fmt: skip
    trained, events = audited(*TINY, *extractor, workdir, '--config.num_steps=2')
    assert trained.returncode == 0, trained.stderr
    assert events == ''
    sampled, events = audited('--mode=sample', workdir, f'--out={out}', '--num=2')
    assert sampled.returncode == 0, sampled.stderr
    assert events == ''
    assert sorted(path.name for path in out.iterdir()) == ['samples.npz', 'samples.png']
    # The watching itself works: it hears of another folder.
    _, events = audited(*TINY, f'--workdir={tmp_path / "elsewhere"}', '--config.dataset=none')
    assert 'elsewhere' in events


def test_hostile_files_are_refused_and_nothing_in_them_runs(audited, tmp_path):
    touched = tmp_path / 'touched'
    pickled = np.array([Command(touched)], object)
    np.savez(tmp_path / 'images.npz', images=pickled)
    np.savez(tmp_path / 'reference.npz', mu=pickled, sigma=pickled, n=2, extractor_sha256='')
    (tmp_path / 'weights.pth').write_bytes(pickle.dumps({'a': Command(touched)}, 2))
    artifact = write_artifact(tmp_path / 'tiny.jaxexport')
    tiny = [*TINY, '--mode=evaluate', f'--images={tmp_path / "images.npz"}']
    extractor = f'--config.evaluation.extractor={artifact}'
    for flags, name in (
        ([extractor], 'images.npz'),
        ([extractor, f'--config.evaluation.reference={tmp_path / "reference.npz"}'], 'reference'),
        ([f'--config.evaluation.inception_weights={tmp_path / "weights.pth"}'], 'weights.pth'),
    ):
        if name != 'images.npz':
            np.savez(tmp_path / 'images.npz', images=np.zeros((4, 8, 8, 3), np.uint8))
        result, events = audited(*tiny, *flags)
        assert_refused(result, name)
        assert events == ''
    assert not touched.exists()


def test_no_module_can_unpickle_or_execute_what_it_reads():
    """But `torch_weights`, whose unpickler knows no names but those of a state_dict."""
    folder = pathlib.Path(dcgan_jax.__file__).parent
    found = set()
    for path in [*folder.rglob('*.py'), ROOT / 'main.py']:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            elif isinstance(node, ast.Call):
                names = [getattr(node.func, 'id', None)]
                names += [
                    keyword.arg
                    for keyword in node.keywords
                    if keyword.arg == 'allow_pickle' and ast.unparse(keyword.value) != 'False'
                ]
            else:
                continue
            dangers = {'pickle', 'marshal', 'shelve', 'dill', 'joblib', 'yaml', 'torch', 'eval'}
            dangers |= {'exec', 'allow_pickle', 'cloudpickle', 'subprocess'}
            found |= {(path.name, name) for name in names if name in dangers}
    assert found == {('torch_weights.py', 'pickle')}
