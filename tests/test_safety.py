"""No input is executed, all output is in the given folders, and the network is not used."""

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
from tests.test_main import ROOT, TINY, assert_rejected


class Command:
    """Object whose unpickling runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


# Runs main.py and writes forbidden audit events to a file.
AUDITED = """
import os, runpy, sys

# tensorboardX imports this optional client of buckets, whose import of urllib3 binds a socket.
sys.modules['google.cloud.storage'] = None

events, *folders = [os.path.realpath(path) for path in sys.argv[1].split(os.pathsep)]
events = open(events, 'w', buffering=1)
sys.argv = ['main.py', *sys.argv[2:]]
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
never = (
    'pickle.find_class', 'os.system', 'os.exec', 'subprocess.Popen', 'socket.connect',
    'socket.getaddrinfo', 'socket.sendto', 'socket.bind',
)

# tensorboardX passes its own events through a multiprocessing queue, which pickles them.
queued = ('tensorboardX.proto.event_pb2', 'Event'), ('builtins', 'object')

def audit(event, arguments):
    if event in never and arguments not in queued:
        print(event, arguments, file=events)
    elif event in ('os.mkdir', 'os.rename') or event == 'open' and arguments[2] & writing:
        for path in arguments[: 2 if event == 'os.rename' else 1]:
            if isinstance(path, (str, bytes, os.PathLike)):  # Otherwise a file descriptor.
                path = os.path.realpath(os.fsdecode(path))
                if not path.startswith((*folders, '/proc/', os.devnull)):  # /proc: thread names
                    print(event, path, file=events)

sys.addaudithook(audit)
runpy.run_path('main.py', run_name='__main__')
"""


@pytest.fixture
def audited(tmp_path, data_dir):
    """Function that runs main.py and returns its result and its forbidden audit events."""
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
def test_run_writes_only_to_its_folders_and_uses_no_network(audited, tmp_path):
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
    # The audit hook detects writes to another folder.
    _, events = audited(*TINY, f'--workdir={tmp_path / "elsewhere"}', '--config.dataset=none')
    assert 'elsewhere' in events


def test_malicious_files_are_rejected_and_not_executed(audited, tmp_path):
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
        assert_rejected(result, name)
        assert events == ''
    assert not touched.exists()


def test_no_module_unpickles_or_executes_input():
    """`config_file` executes configs; the unpickler of `torch_weights` accepts state_dicts only."""
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
            forbidden = {'pickle', 'marshal', 'shelve', 'dill', 'joblib', 'yaml', 'torch', 'eval'}
            forbidden |= {'exec', 'allow_pickle', 'cloudpickle', 'subprocess'}
            found |= {(path.name, name) for name in names if name in forbidden}
    assert found == {('config_file.py', 'exec'), ('torch_weights.py', 'pickle')}
