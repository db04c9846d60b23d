"""Command line of dcgan_jax: flags, and one dispatch on --mode."""

import contextlib
import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from etils import epath
from ml_collections import ConfigDict, config_flags

from dcgan_jax.runtime.errors import StoppedError, TrainingError, UserError

_STARTED = 'DCGAN_JAX_STARTED'  # so that a process starts itself anew once, whatever glibc does

_CONFIG = config_flags.DEFINE_config_file(
    'config',
    None,
    'Config of the run; change its fields by --config.FIELD=VALUE.',
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run; a started run goes on there.')
_MODE = flags.DEFINE_enum(
    'mode',
    'train',
    [
        'train',
        'sample',
        'evaluate',
        'export',
        'super_resolve',
        'inpaint',
        'translate',
        'explore',
        'explain',
        'detect_anomalies',
        'retrieve',
        'report',
    ],
    'What to do.',
)
_OUT = flags.DEFINE_string('out', None, 'Folder for results; a folder in --workdir by default.')
_NUM = flags.DEFINE_integer(
    'num',
    None,
    'Samples to draw (64 by default, config.evaluation.num_samples in --mode=evaluate), or images '
    'of the data set to work on.',
    lower_bound=1,
    upper_bound=1_000_000,
)
_SEED = flags.DEFINE_integer(
    'seed', 0, 'Seed of the samples.', lower_bound=0, upper_bound=2**32 - 1
)
_IMAGES = flags.DEFINE_string(
    'images',
    None,
    'Folder of images that a mode works on; --mode=evaluate scores those, or an npz file.',
)
_CLASSES = flags.DEFINE_list(
    'classes', None, 'Classes that --mode=sample draws in turn, by name or number: cat,dog.'
)
_PROMPT = flags.DEFINE_multi_string(
    'prompt', None, 'A sentence that --mode=sample draws; may be given several times.'
)
_MASK = flags.DEFINE_string(
    'mask', None, 'Picture of the holes, white where something is missing, for --mode=inpaint.'
)
_ARITHMETIC = flags.DEFINE_string(
    'arithmetic',
    None,
    'Samples of --seed by number, A-B+C, each a list as 1,2,3: what --mode=explore adds up.',
)
_COORDINATOR = flags.DEFINE_string(
    'coordinator_address', None, "HOST:PORT of a run's first process, where there are several."
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many.', lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which this is, from 0.', lower_bound=0)
_DISTRIBUTED = flags.DEFINE_bool(
    'distributed',
    False,
    'One of several processes that the cluster tells of each other: Cloud TPU, SLURM, Open MPI.',
)
_CHECKPOINT = flags.DEFINE_enum(
    'checkpoint',
    'latest',
    ['latest', 'best'],
    'Which of the run; the best is what config.evaluation.best chose.',
)


def _train() -> None:
    from dcgan_jax import train

    config = _config()
    _join()
    state = train.train_and_evaluate(config, _WORKDIR.value)
    print(f'samples: {train.grid_path(_WORKDIR.value, int(state.step))}')


def _join() -> None:
    from dcgan_jax.runtime import multihost

    if _is_one_of_several():
        multihost.start(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)


def _is_one_of_several() -> bool:
    told = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    return _DISTRIBUTED.value or any(value is not None for value in told)


def _sample() -> None:
    from dcgan_jax.tasks.sample import sample

    path = sample(
        _WORKDIR.value,
        _OUT.value,
        _NUM.value or 64,
        _SEED.value,
        _CHECKPOINT.value,
        _CLASSES.value,
        _PROMPT.value,
    )
    print(f'samples: {path}')


def _evaluate() -> None:
    from dcgan_jax.metrics import evaluator
    from dcgan_jax.tasks import evaluate

    given = _given()
    if _IMAGES.value is None:
        result = evaluate.evaluate_run(
            _WORKDIR.value, given, _OUT.value, _NUM.value, _SEED.value, _CHECKPOINT.value
        )
    else:
        _refuse_beside_images('num', 'seed', 'checkpoint')
        result = evaluate.evaluate_images(_IMAGES.value, _WORKDIR.value, given, _OUT.value)
    print(evaluator.line(result))


def _export() -> None:
    from dcgan_jax.tasks.export import export

    print(f'exported: {export(_WORKDIR.value, _OUT.value, _CHECKPOINT.value)}')


def _super_resolve() -> None:
    from dcgan_jax.tasks.super_resolve import super_resolve

    _complete(super_resolve, _IMAGES.value)


def _inpaint() -> None:
    from dcgan_jax.tasks.inpaint import inpaint

    _complete(inpaint, _IMAGES.value, _MASK.value)


def _translate() -> None:
    from dcgan_jax.tasks.translate import translate

    _complete(translate, _IMAGES.value)


def _retrieve() -> None:
    from dcgan_jax.tasks.retrieve import retrieve

    _complete(retrieve)


def _detect_anomalies() -> None:
    from dcgan_jax.tasks.detect_anomalies import detect_anomalies

    _complete(detect_anomalies, _IMAGES.value)


def _explore() -> None:
    from dcgan_jax.tasks.explore import explore

    path, found = explore(
        _WORKDIR.value,
        _OUT.value,
        _NUM.value,
        _SEED.value,
        _ARITHMETIC.value,
        _CHECKPOINT.value,
        _given(),
    )
    print(f'distance to the nearest training image: {found}\npictures: {path}')


def _explain() -> None:
    from dcgan_jax.tasks.explain import explain

    path, found = explain(
        _WORKDIR.value, _OUT.value, _NUM.value, _SEED.value, _CHECKPOINT.value, _given()
    )
    print(*filter(None, [found, f'pictures: {path}']), sep='\n')


def _report() -> None:
    from dcgan_jax.tasks.report import report

    print(f'report: {report(_WORKDIR.value, _OUT.value)}')


def _complete(task: Callable[..., tuple[epath.Path, str]], *told: str | None) -> None:
    given = _given()
    if _IMAGES.value is not None:
        _refuse_beside_images('num')
    path, figures = task(
        _WORKDIR.value, given, _OUT.value, *told, _NUM.value, _SEED.value, _CHECKPOINT.value
    )
    print(*filter(None, [figures, f'pictures: {path}']), sep='\n')


def _refuse_beside_images(*names: str) -> None:
    for name in names:
        if flags.FLAGS[name].present:
            raise UserError(
                f'--{name} has no meaning with --images: all of them are taken as they are'
            )


def _given() -> ConfigDict | None:
    return None if _CONFIG.value is None else _config()


def _config() -> ConfigDict:
    if _CONFIG.value is None:
        raise UserError('--config is missing: give one, --config=configs/cifar10.py, say')
    file = config_flags.get_config_filename(flags.FLAGS['config'])
    try:
        _CONFIG.value.to_dict()  # ml_collections reports a file it could not load at first use.
    except OSError as error:
        raise UserError(f'--config={file} can not be read: give a file of configs/') from error
    except AttributeError as error:
        raise UserError(f'--config={file}: its get_config() must return a ConfigDict') from error
    return _CONFIG.value


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; a wrong one ends the program with one line and code 2."""
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise UserError(f'unknown argument {rest[1]!r}: flags are --NAME=VALUE, see --help')
        return rest
    except (SystemExit, BrokenPipeError):  # Of --help, which absl ends with code 1.
        _end_help()
    except flags.UnrecognizedFlagError as error:
        hint = '; to change fields, give a --config=FILE too' if 'config.' in str(error) else ''
        _exit(f'{error}{hint}', 2)
    except (flags.Error, TypeError, ValueError, SyntaxError, ImportError) as error:
        _exit(error, 2)
    except OSError as error:  # From ml_collections, where fields of such a config are changed.
        _exit(f'--config can not be read ({error}): give a file of configs/', 2)
    except (AttributeError, KeyError) as error:
        # From ml_collections: an unknown field, its name and words quoted twice, or a config file
        # without get_config.
        words = str(error).replace('\\n', ' ').replace('\\', '')
        if 'get_config' in words:
            _exit(f'--config: {words}', 2)
        _exit(f'--config has no field {words[1:-1]}', 2)


def _end_help() -> NoReturn:
    """Ends with code 0, and quietly where nobody reads on (`--help | head -1`)."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _exit(error: object, code: int) -> NoReturn:
    print('error:', *str(error).split(), file=sys.stderr)
    sys.exit(code)


def _is_ours(record: logging.LogRecord) -> bool:
    """Keeps what this project and CLU tell; libraries (Orbax above all) only where they warn."""
    folders = epath.Path(record.pathname).parts
    if record.exc_info and not {'clu', 'orbax', 'asyncio'}.isdisjoint(folders):
        return False  # Of their threads: they raise it again here.
    if 'clu' in folders:  # Steps/s and time left, which a terminal sees in the progress bar.
        record.msg = str(record.msg).removeprefix('Setting work unit notes: ')
        return not sys.stderr.isatty()
    if 'dcgan_jax' in folders:
        return True
    # TFDS warns where OpenCV is missing: Pillow decodes the same pixels.
    quiet = logging.WARNING if 'tensorflow_datasets' in folders else logging.INFO
    return record.levelno > quiet


def _ask_for_huge_pages() -> None:
    """Starts this process anew with huge pages, unless GLIBC_TUNABLES is set (to nothing, say).

    XLA on CPUs takes its memory from the system at each update and gives it back; with pages of
    2 MiB that takes 10 to 20% less time (benchmarks/README.md). glibc asks for them only if told so
    at a process's start. Debuggers, and programs read from stdin, are left alone.
    """
    told = 'GLIBC_TUNABLES' in os.environ or _STARTED in os.environ
    debugged = sys.gettrace() is not None or 'pdb' in sys.orig_argv
    repeatable = sys.executable and os.path.isfile(__file__)
    if sys.platform != 'linux' or told or debugged or not repeatable:
        return
    environment = os.environ | {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1', _STARTED: '1'}
    with contextlib.suppress(OSError):  # Slower is better than not at all.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _keep_compiled_programs() -> None:
    """Compiled programs outlive the process, in JAX_COMPILATION_CACHE_DIR ('': they don't)."""
    import jax

    from dcgan_jax.runtime import cache_dir

    folder = os.environ.get('JAX_COMPILATION_CACHE_DIR', cache_dir.folder())
    jax.config.update('jax_compilation_cache_dir', str(folder) or None)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


_MODES = {
    'train': _train,
    'sample': _sample,
    'evaluate': _evaluate,
    'export': _export,
    'super_resolve': _super_resolve,
    'inpaint': _inpaint,
    'translate': _translate,
    'explore': _explore,
    'explain': _explain,
    'detect_anomalies': _detect_anomalies,
    'retrieve': _retrieve,
    'report': _report,
}


# Flags that mean something to some modes alone.
_MODES_OF = {
    'images': ('evaluate', 'super_resolve', 'inpaint', 'translate', 'detect_anomalies'),
    'mask': ('inpaint',),
    'classes': ('sample',),
    'prompt': ('sample',),
    'arithmetic': ('explore',),
}


def _check_flags() -> None:
    for name, modes in _MODES_OF.items():
        if flags.FLAGS[name].value is not None and _MODE.value not in modes:
            known = ', '.join(f'--mode={mode}' for mode in modes)
            raise UserError(f'--{name} means nothing to --mode={_MODE.value}: it is of {known}')


def main(argv: list[str]) -> None:
    """Runs the mode; mistakes of the user end it with one line and code 2, lost runs with 1."""
    absl_logging.get_absl_handler().addFilter(_is_ours)
    del argv  # All is in the flags.
    try:
        _check_flags()
        images_alone = _MODE.value == 'evaluate' and _IMAGES.value and _CONFIG.value is not None
        if _WORKDIR.value is None and not images_alone:
            instead = ', or a --config for --images alone' if _IMAGES.value else ''
            raise UserError(f'--workdir is missing: give the folder of the run{instead}')
        if _is_one_of_several() and _MODE.value != 'train':
            raise UserError(f'--mode={_MODE.value} is of one process: leave out what joins several')
        _keep_compiled_programs()
        _MODES[_MODE.value]()
    except UserError as error:
        _exit(error, 2)
    except TrainingError as error:
        # At exit Python would add a line for each write that Orbax started and gave up.
        warnings.simplefilter('ignore', RuntimeWarning)
        _exit(error, 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _exit(f'{error}: free some space, then the same command goes on', 1)
    except RuntimeError as error:  # JAX's own is one of them, and isn't imported for --help.
        if not str(error).startswith('RESOURCE_EXHAUSTED'):
            raise
        told = str(error).splitlines()[0].removesuffix('.')
        _exit(f'{told}: smaller batches or networks, or config.sharding=fsdp on more devices', 1)
    except StoppedError as error:
        print(error, file=sys.stderr)
        sys.exit(128 + error.signal)
    except KeyboardInterrupt:
        print('SIGINT: stopped, and nothing more was saved', file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == '__main__':
    _ask_for_huge_pages()
    app.run(main, flags_parser=_parse)
