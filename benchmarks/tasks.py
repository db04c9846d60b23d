"""Figures of a task on a trained run, and its seconds from a cold start.

python -m benchmarks.tasks --workdir=/tmp/x2 -- --mode=super_resolve --num=1000

What follows `--` goes to main.py, in a process of its own that has no compiled programs yet. Prints
a JSON line with the JSON files that the task wrote, and with the run's changes from
configs/default.py. Pictures are left in --out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import measure, program
from dcgan_jax import config as config_lib
from dcgan_jax import run_dir


def main() -> None:
    """Runs the task and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--workdir', required=True, help='of the trained run')
    parser.add_argument('--out', default='', help='folder for what the task writes')
    parser.add_argument('flags', nargs='*', help='of main.py')
    flags = parser.parse_args()
    out = Path(flags.out or tempfile.mkdtemp())
    seconds = _run([*flags.flags, f'--workdir={flags.workdir}', f'--out={out}'])
    written = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob('*.json'))}
    measure.report(
        'tasks',
        command=' '.join(['python main.py', *map(_told, flags.flags)]),
        run=_changes(flags.workdir),
        seconds=round(seconds, 1),
        **written,
    )


def _run(flags: list[str]) -> float:
    """Seconds from the start of main.py to its end."""
    with tempfile.TemporaryDirectory() as empty:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, 'main.py', *flags],
            check=True,
            stdout=sys.stderr,  # This program's own has lines of JSON alone.
            cwd=Path(__file__).parent.parent,
            env=os.environ | {'JAX_COMPILATION_CACHE_DIR': empty},
        )
        return time.perf_counter() - start


def _told(flag: str) -> str:
    """A flag whose value is a path somewhere on this machine, with its last part alone."""
    name, _, value = flag.partition('=')
    return f'{name}={Path(value).name}' if Path(value).is_absolute() else flag


def _changes(workdir: str) -> list[str]:
    """Returns a run's changes from configs/default.py, one line each."""
    return config_lib.differences(program.load_config('default'), run_dir.read(workdir).config)


if __name__ == '__main__':
    main()
