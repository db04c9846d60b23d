"""Results of a task on a trained run, and its duration from a cold start.

python -m benchmarks.tasks --workdir=/tmp/x2 -- --mode=super_resolve --num=1000

Arguments after `--` are passed to main.py, which runs in its own process with an empty
compilation cache. Prints a JSON line with the contents of the JSON files written by the task and
with the run's differences from configs/default.py. All files of the task are written to --out.
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
    """Run the task and report the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--workdir', required=True, help='folder of the trained run')
    parser.add_argument('--out', default='', help='folder for the results of the task')
    parser.add_argument('flags', nargs='*', help='flags of main.py')
    flags = parser.parse_args()
    out = Path(flags.out or tempfile.mkdtemp())
    seconds = _run([*flags.flags, f'--workdir={flags.workdir}', f'--out={out}'])
    written = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob('*.json'))}
    measure.report(
        'tasks',
        command=' '.join(['python main.py', *map(_shorten_path, flags.flags)]),
        run=_changes(flags.workdir),
        seconds=round(seconds, 1),
        **written,
    )


def _run(flags: list[str]) -> float:
    """Run main.py and return its duration in seconds."""
    with tempfile.TemporaryDirectory() as empty:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, 'main.py', *flags],
            check=True,
            stdout=sys.stderr,  # Only JSON lines are printed to stdout.
            cwd=Path(__file__).parent.parent,
            env=os.environ | {'JAX_COMPILATION_CACHE_DIR': empty},
        )
        return time.perf_counter() - start


def _shorten_path(flag: str) -> str:
    """Replace an absolute path in a flag by its last component."""
    name, _, value = flag.partition('=')
    return f'{name}={Path(value).name}' if Path(value).is_absolute() else flag


def _changes(workdir: str) -> list[str]:
    """Return the differences of a run's config from configs/default.py."""
    return config_lib.differences(program.load_config('default'), run_dir.read(workdir).config)


if __name__ == '__main__':
    main()
