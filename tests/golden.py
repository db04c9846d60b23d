"""Print a SHA-256 of what every config trains and every task writes, to compare two versions.

    python -m tests.golden --data_dir=DIR > before.txt    # DIR: prepared TFDS data sets
    python -m tests.golden --data_dir=DIR > after.txt     # on the same machine; then diff them

Each config is trained for three steps at an eighth of its width, then the tasks run, all by
main.py. A digest covers arrays, pixels and numbers, not the names of parameters, files or fields,
so that renaming changes none.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import PIL.Image
from safetensors.numpy import load_file

from benchmarks import program
from tests.extractors import write_artifact

ROOT = Path(__file__).resolve().parents[1]
STEPS = 3
TINY = {
    'num_steps': STEPS,
    'batch_size': 8,
    'sample_every': STEPS,
    'checkpoint_every': STEPS,
    'generator.width': 0.125,
    'discriminator.width': 0.125,
    'evaluation.every': 0,
    'evaluation.num_samples': 1_000,
    'evaluation.num_real': 1_000,
    'latent_optimization.steps': 3,
    'latent_optimization.restarts': 2,
    'anomaly.encoder_steps': 3,
}
CHANGES = {  # of single configs
    'text_cifar10': {'text.embedder': 'trigrams'},
    'shapes_stable': {'discriminator.pack': 1},
}
TASKS = {  # mode: (config whose run it takes, further flags)
    'sample': ('cifar10', ['--num=10', '--seed=3']),
    'evaluate': ('cifar10', []),
    'export': ('cifar10', []),
    'super_resolve': ('super_resolution_cifar10', ['--num=8']),
    'inpaint': ('cifar10', ['--num=4']),
    'translate': ('colorization_cifar10', ['--num=8']),
    'explore': ('cifar10', ['--num=8']),
    'explain': ('cifar10', ['--num=8']),
    'detect_anomalies': ('anomaly_cifar10', ['--num=20']),
    'retrieve': ('cifar10_conditional', ['--num=20']),
    'report': ('cifar10', []),
}


def run(workdir: Path, *flags: str) -> str:
    """Runs main.py; returns why it failed, or ''."""
    program = 'from tests import trigrams; from dcgan_jax import cli; cli.run()'
    command = [sys.executable, '-c', program, f'--workdir={workdir}', *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return f'failed: {done.stderr.strip().splitlines()[-1]}' if done.returncode else ''


def contents(path: Path) -> Iterator[bytes]:
    """Yields what a file holds, one array, picture or number each; nothing of other types."""
    if path.suffix == '.png':
        with PIL.Image.open(path) as picture:
            yield np.asarray(picture).tobytes()
    elif path.suffix == '.npz':
        with np.load(path) as arrays:
            yield from (arrays[name].tobytes() for name in arrays)
    elif path.suffix == '.safetensors':
        yield from (array.tobytes() for array in load_file(path).values())
    elif path.suffix == '.json':
        leaves = jax.tree.leaves(json.loads(path.read_text()))
        yield from (repr(leaf).encode() for leaf in leaves if isinstance(leaf, int | float))


def digest(parts: Iterator[bytes]) -> str:
    """Returns the SHA-256 of the parts in any order."""
    each = sorted(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(b''.join(each)).hexdigest()[:16]


def of_folder(folder: Path) -> str:
    """Returns the digest of all that is written below a folder."""
    return digest(part for path in folder.rglob('*') for part in contents(path))


def of_run(workdir: Path) -> str:
    """Returns the digest of a run's last state and of its sample grids."""
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(workdir / 'checkpoints' / str(STEPS) / 'state')
    arrays = (np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))
    grids = (part for path in workdir.glob('samples/*.png') for part in contents(path))
    return digest([*arrays, *grids])


def main() -> None:
    """Prints a line for each config and task when it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data_dir', required=True, help='prepared TFDS data sets')
    parser.add_argument('--only', default='', help='names of configs and tasks, comma-separated')
    flags = parser.parse_args()
    os.environ.update(
        TFDS_DATA_DIR=str(Path(flags.data_dir).resolve()), JAX_DISABLE_MOST_OPTIMIZATIONS='1'
    )
    configs = program.config_names()
    chosen = flags.only.split(',') if flags.only else [*configs, *TASKS]
    needed = {TASKS[name][0] for name in chosen if name in TASKS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        extractor = write_artifact(folder / 'tiny.jaxexport', shape='b, 32, 32, 3')
        for name in (name for name in configs if name in chosen or name in needed):
            fields = TINY | {'evaluation.extractor': extractor} | CHANGES.get(name, {})
            changes = [f'--config.{field}={value}' for field, value in fields.items()]
            done = run(folder / name, f'--config=configs/{name}.py', *changes)
            print(name, done or of_run(folder / name), flush=True)
        for mode, (name, further) in TASKS.items():
            if mode in chosen:
                out = folder / f'out_{mode}'
                done = run(folder / name, f'--mode={mode}', f'--out={out}', *further)
                print(mode, done or of_folder(out), flush=True)


if __name__ == '__main__':
    main()
