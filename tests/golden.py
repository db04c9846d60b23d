"""Print SHA-256 digests of the runs of all configs and the outputs of all tasks.

The digests compare two versions of the code:

    python -m tests.golden --data_dir=DIR > before.txt    # DIR: prepared TFDS data sets
    python -m tests.golden --data_dir=DIR > after.txt     # on the same machine; then diff them

main.py trains each config for three steps at an eighth of its width, and then runs the tasks. A
digest covers arrays, pixels and numbers, but not the names of parameters, files or fields, so that
renaming does not change it.
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
CHANGES = {  # Changes of single configs.
    'text_cifar10': {'text.embedder': 'trigrams'},
    'shapes_stable': {'discriminator.pack': 1},
}
TEACHERS = {'distill_cifar10': 'cifar10_cpu'}
TASKS = {  # mode: (config of the run, further flags)
    'sample': ('cifar10', ['--num=10', '--seed=3']),
    'evaluate': ('cifar10', []),
    'export': ('cifar10', []),
    'super_resolve': ('super_resolution_cifar10', ['--num=8']),
    'inpaint': ('cifar10', ['--num=4']),
    'translate': ('colorization_cifar10', ['--num=8']),
    'explore': ('cifar10', ['--num=8']),
    'explain': ('cifar10', ['--num=8']),
    'detect_anomalies': ('anomaly_cifar10', ['--num=20']),
    'classify_samples': ('cifar10_conditional', ['--num=20']),
    'report': ('cifar10', []),
}


def run(workdir: Path, *flags: str) -> str:
    """Run main.py; return the error if it fails, or ''."""
    program = 'from tests import trigrams; from dcgan_jax import __main__; __main__.run()'
    command = [sys.executable, '-c', program, f'--workdir={workdir}', *flags]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return f'failed: {process.stderr.strip().splitlines()[-1]}' if process.returncode else ''


def contents(path: Path) -> Iterator[bytes]:
    """Yield each array, image or number of a file; files of other types are ignored."""
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
    """Return a SHA-256 of the parts that does not depend on their order."""
    each = sorted(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(b''.join(each)).hexdigest()[:16]


def digest_of_folder(folder: Path) -> str:
    """Return the digest of all files below a folder."""
    return digest(part for path in folder.rglob('*') for part in contents(path))


def digest_of_run(workdir: Path) -> str:
    """Return the digest of a run's last state and sample grids."""
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(workdir / 'checkpoints' / str(STEPS) / 'state')
    arrays = (np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))
    grids = (part for path in workdir.glob('samples/*.png') for part in contents(path))
    return digest([*arrays, *grids])


def main() -> None:
    """Print a line for each config and task."""
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
    needed |= {TEACHERS[name] for name in chosen if name in TEACHERS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        extractor = write_artifact(folder / 'tiny.jaxexport', shape='b, 32, 32, 3')
        for name in (name for name in configs if name in chosen or name in needed):
            fields = TINY | {'evaluation.extractor': extractor} | CHANGES.get(name, {})
            if name in TEACHERS:
                fields['distill.teacher'] = folder / TEACHERS[name]
            changes = [f'--config.{field}={value}' for field, value in fields.items()]
            error = run(folder / name, f'--config=configs/{name}.py', *changes)
            print(name, error or digest_of_run(folder / name), flush=True)
        for mode, (name, further) in TASKS.items():
            if mode in chosen:
                out = folder / f'out_{mode}'
                error = run(folder / name, f'--mode={mode}', f'--out={out}', *further)
                print(mode, error or digest_of_folder(out), flush=True)


if __name__ == '__main__':
    main()
