"""The command line: flags and modes."""

import importlib
import os
import sys
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from dcgan_jax import exit_codes
from dcgan_jax.runtime import log_filter
from dcgan_jax.runtime.errors import UserError

# Each is a module of `dcgan_jax.tasks`, except the first.
MODES = (
    'train', 'sample', 'evaluate', 'export', 'super_resolve', 'inpaint', 'translate', 'explore',
    'explain', 'detect_anomalies', 'retrieve', 'report',
)  # fmt: skip
# Modes in which a flag has a meaning, for flags that have one in some modes only.
_MODES_OF_FLAG = {
    'images': ('evaluate', 'super_resolve', 'inpaint', 'translate', 'detect_anomalies'),
    'mask': ('inpaint',),
    'classes': ('sample',),
    'prompt': ('sample',),
    'arithmetic': ('explore',),
}
# Flags that have no meaning with --images, by mode.
_NOT_WITH_IMAGES = {'evaluate': ('num', 'seed', 'checkpoint')}

_CONFIG = config_flags.DEFINE_config_file(
    'config',
    None,
    'Config of the run; change its fields by --config.FIELD=VALUE.',
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run; an interrupted run resumes.')
_MODE = flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')
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


def run() -> None:
    """Entry point of `main.py` and of the console script `dcgan-jax`."""
    for flag in flags.FLAGS.get_flags_for_module(__name__):  # So that --help lists them.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(main, flags_parser=parse)


def main(argv: list[str]) -> None:
    """Runs the mode that `parse` found; its errors end the process with their exit codes."""
    del argv  # All of it is in the flags.
    absl_logging.get_absl_handler().addFilter(log_filter.is_shown)
    with exit_codes.handle_errors():
        _check_flags()
        _keep_compiled_programs()
        print(_train() if _MODE.value == 'train' else _run_task())


def _train() -> str:
    from dcgan_jax import training
    from dcgan_jax.runtime import multihost

    config = _config()
    if _is_distributed():
        multihost.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    state = training.train_and_evaluate(config, _WORKDIR.value)
    return f'samples: {training.grid_path(_WORKDIR.value, int(state.step))}'


def _run_task() -> str:
    from dcgan_jax.tasks.options import TaskOptions

    names = 'workdir', 'out', 'num', 'seed', 'checkpoint', *_MODES_OF_FLAG
    options = {name: flags.FLAGS[name].value for name in names}
    config = None if _CONFIG.value is None else _config()
    task = importlib.import_module(f'dcgan_jax.tasks.{_MODE.value}')
    return task.run(TaskOptions(config=config, **options))


def _is_distributed() -> bool:
    given = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    return _DISTRIBUTED.value or any(value is not None for value in given)


def _check_flags() -> None:
    mode = _MODE.value
    for name, modes in _MODES_OF_FLAG.items():
        if flags.FLAGS[name].value is not None and mode not in modes:
            known = ', '.join(f'--mode={mode}' for mode in modes)
            raise UserError(f'--{name} has no meaning with --mode={mode}, only with {known}')
    for name in _NOT_WITH_IMAGES.get(mode, ('num',)) if _IMAGES.value is not None else ():
        if flags.FLAGS[name].present:
            raise UserError(f'--{name} has no meaning with --images: all of them are used')
    images_alone = mode == 'evaluate' and _IMAGES.value and _CONFIG.value is not None
    if _WORKDIR.value is None and not images_alone:
        instead = ', or a --config for --images alone' if _IMAGES.value else ''
        raise UserError(f'--workdir is missing: give the folder of the run{instead}')
    if _is_distributed() and mode != 'train':
        raise UserError(f'--mode={mode} runs in one process: leave out the flags of several')


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


def parse(argv: list[str]) -> list[str]:
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
        exit_codes.exit_with_error(f'{error}{hint}', 2)
    except (flags.Error, TypeError, ValueError, SyntaxError, ImportError) as error:
        exit_codes.exit_with_error(error, 2)
    except OSError as error:  # From ml_collections, where fields of such a config are changed.
        exit_codes.exit_with_error(
            f'--config can not be read ({error}): give a file of configs/', 2
        )
    except (AttributeError, KeyError) as error:
        # From ml_collections: an unknown field, its name and words quoted twice, or a config file
        # without get_config.
        words = str(error).replace('\\n', ' ').replace('\\', '')
        if 'get_config' in words:
            exit_codes.exit_with_error(f'--config: {words}', 2)
        exit_codes.exit_with_error(f'--config has no field {words[1:-1]}', 2)


def _end_help() -> NoReturn:
    """Ends with code 0, and quietly where nobody reads on (`--help | head -1`)."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _keep_compiled_programs() -> None:
    """Keeps compiled programs in JAX_COMPILATION_CACHE_DIR; nowhere if that is empty."""
    import jax

    from dcgan_jax.runtime import cache_dir

    folder = os.environ.get('JAX_COMPILATION_CACHE_DIR', cache_dir.folder())
    jax.config.update('jax_compilation_cache_dir', str(folder) or None)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
