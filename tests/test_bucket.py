"""Runs whose workdir is in a bucket (`gs://`), with real processes and a local server."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import bucket
from tests.peers import require

ROOT = Path(__file__).parent.parent

# One process trains, samples and writes a report, because each process takes seconds to start.
SCRIPT = """
import sys
from pathlib import Path
from dcgan_jax import training
from dcgan_jax.tasks import report, sample
from dcgan_jax.tasks.options import TaskOptions
from tests.conftest import TinyImages, tiny_config

data_dir, workdir, out, *steps = sys.argv[1:]
for count in map(int, steps):
    config = tiny_config(Path(data_dir))
    config.num_steps = count
    training.train_and_evaluate(config, workdir)
sample.run(TaskOptions(workdir=workdir, out=out, num=9))
report.run(TaskOptions(workdir=workdir))
"""


def run_in_process(server, *arguments):
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, *map(str, arguments)], cwd=ROOT,
        env={**os.environ, **server.variables}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def samples(folder):
    with np.load(folder / 'samples.npz', allow_pickle=False) as arrays:
        return arrays['images']


@pytest.mark.slow
def test_run_in_a_bucket_equals_a_run_in_a_folder(data_dir, tmp_path):
    """It resumes, skips a damaged checkpoint, and ends with the same samples."""
    require('gcsfs')
    with bucket.served() as server:
        run_in_process(server, data_dir, tmp_path / 'run', tmp_path / 'local', 4, 6)
        run_in_process(server, data_dir, 'gs://bucket/run', tmp_path / 'remote', 4, 6)
        np.testing.assert_array_equal(samples(tmp_path / 'remote'), samples(tmp_path / 'local'))
        names = server.objects.keys()
        there = {name.removeprefix('run/').partition('/')[0] for name in names}
        assert {'checkpoints', 'samples', 'config.json', 'report.html'} <= there
        assert b'generator/loss' in server.objects['run/report.html'].content

        for name in [name for name in names if name.startswith('run/checkpoints/6/state/ocdbt')]:
            content = bytearray(server.objects[name].content)
            content[len(content) // 2] ^= 1
            server.objects[name] = server.objects[name]._replace(content=bytes(content))
        done = run_in_process(server, data_dir, 'gs://bucket/run', tmp_path / 'again', 6)
        assert 'damaged' in done.stderr
        assert any(name.startswith('run/damaged_checkpoints/6') for name in names)
        np.testing.assert_array_equal(samples(tmp_path / 'again'), samples(tmp_path / 'local'))
