"""Runs whose workdir is in a bucket, `gs://`: real processes, and a server on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import bucket
from tests.peers import require

ROOT = Path(__file__).parent.parent

# Several uses in one process, of which each takes seconds to start.
SCRIPT = """
import sys
from pathlib import Path
from dcgan_jax import training
from dcgan_jax.tasks import report, sample
from tests.conftest import TinyImages, tiny_config

data_dir, workdir, out, *steps = sys.argv[1:]
for count in map(int, steps):
    config = tiny_config(Path(data_dir))
    config.num_steps = count
    training.train_and_evaluate(config, workdir)
sample.sample(workdir, out, 9, 0)
print(report.report(workdir))
"""


def use(server, *arguments):
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, *map(str, arguments)], cwd=ROOT,
        env={**os.environ, **server.variables}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def drawn(folder):
    with np.load(folder / 'samples.npz', allow_pickle=False) as arrays:
        return arrays['images']


@pytest.mark.slow
def test_a_run_in_a_bucket_equals_a_run_in_a_folder(data_dir, tmp_path):
    """It goes on, goes back over a damaged checkpoint, and ends with the same samples."""
    require('gcsfs')
    with bucket.served() as server:
        use(server, data_dir, tmp_path / 'run', tmp_path / 'local', 4, 6)
        use(server, data_dir, 'gs://bucket/run', tmp_path / 'remote', 4, 6)
        np.testing.assert_array_equal(drawn(tmp_path / 'remote'), drawn(tmp_path / 'local'))
        names = server.objects.keys()
        there = {name.removeprefix('run/').partition('/')[0] for name in names}
        assert {'checkpoints', 'samples', 'config.json', 'report.html'} <= there
        assert b'generator/loss' in server.objects['run/report.html'].content

        for name in [name for name in names if name.startswith('run/checkpoints/6/state/ocdbt')]:
            content = bytearray(server.objects[name].content)
            content[len(content) // 2] ^= 1
            server.objects[name] = server.objects[name]._replace(content=bytes(content))
        done = use(server, data_dir, 'gs://bucket/run', tmp_path / 'again', 6)
        assert 'damaged' in done.stderr
        assert any(name.startswith('run/damaged_checkpoints/6') for name in names)
        np.testing.assert_array_equal(drawn(tmp_path / 'again'), drawn(tmp_path / 'local'))
