"""Command line interface: flags and modes."""

import dataclasses
import importlib
import sys

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from dcgan_jax import config_file, exit_codes
from dcgan_jax.runtime import cache_dir, log_filter
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import options as task_options

# All modes except the first are modules of `dcgan_jax.tasks`.
MODES = (
    'train', 'sample', 'evaluate', 'export', 'super_resolve', 'inpaint', 'translate', 'explore',
    'explain', 'detect_anomalies', 'classify_samples', 'report', 'demo',
)  # fmt: skip
# Modes that support each flag; flags that all modes support are not listed.
_MODES_OF_FLAG = {
    'images': ('evaluate', 'super_resolve', 'inpaint', 'translate', 'detect_anomalies'),
    'init_from': ('train',),
    'mask': ('inpaint',),
    'classes': ('sample',),
    'prompt': ('sample',),
    'arithmetic': ('explore',),
    'format': ('export',),
    'weights': ('export',),
    'host': ('demo',),
    'port': ('demo',),
}
# Flags that are not supported together with --images, by mode.
_NOT_WITH_IMAGES = {'evaluate': ('num', 'seed', 'checkpoint')}

try:
    _CONFIG = config_flags.DEFINE_config_file(
        'config', None, 'Config file of the run. Override fields with --config.FIELD=VALUE.'
    )
except flags.CantOpenFlagFileError as error:  # `DEFINE_config_file` reads --flagfile.
    raise UserError(f'{error}: correct the path of --flagfile') from error
flags.FLAGS['config'].parser = config_file.ConfigFileParser()
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run. An existing run is resumed.')
_INIT_FROM = flags.DEFINE_string(
    'init_from', None, 'Folder of another run to initialize a new run from (config.init_from).'
)
_MODE = flags.DEFINE_enum('mode', 'train', MODES, 'Task to run.')
_OUT = flags.DEFINE_string('out', None, 'Folder for results. Defaults to a folder in --workdir.')
_NUM = flags.DEFINE_integer(
    'num',
    None,
    'Number of samples, or of images of the data set. The default depends on --mode.',
    lower_bound=1,
    upper_bound=task_options.MAX_NUM,
)
_SEED = flags.DEFINE_integer(
    'seed',
    0,
    'Seed of latents and of selected images.',
    lower_bound=0,
    upper_bound=task_options.MAX_SEED,
)
_IMAGES = flags.DEFINE_string(
    'images', None, 'Folder of input images, or, for --mode=evaluate, an npz file.'
)
_CLASSES = flags.DEFINE_list(
    'classes', None, 'Names or indices of the classes to cycle through, e.g. cat,dog.'
)
_PROMPT = flags.DEFINE_multi_string(
    'prompt', None, 'Caption to generate images from. May be repeated.'
)
_MASK = flags.DEFINE_string(
    'mask', None, 'Image file of the inpainting mask; white pixels are the missing region.'
)
_ARITHMETIC = flags.DEFINE_string(
    'arithmetic', None, 'Latent arithmetic A-B+C, lists of sample indices: 1,2,3-4,5,6+7,8,9.'
)
_FORMAT = flags.DEFINE_enum(
    'format', 'jax', task_options.FORMATS, 'Format of exported files, see docs/export.md.'
)
_WEIGHTS = flags.DEFINE_enum(
    'weights', 'float32', task_options.WEIGHTS, 'Data type of exported weights.'
)
_HOST = flags.DEFINE_string(
    'host', '127.0.0.1', 'Address of the demo. 0.0.0.0 makes it accessible from other computers.'
)
_PORT = flags.DEFINE_integer(
    'port', 7860, 'Port of the demo.', lower_bound=1, upper_bound=2**16 - 1
)
_COORDINATOR = flags.DEFINE_string(
    'coordinator_address', None, 'HOST:PORT of process 0 in a run of several processes.'
)
_NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', None, 'Number of processes of the run.', lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    'process_id', None, 'Index of this process, from 0.', lower_bound=0
)
_DISTRIBUTED = flags.DEFINE_bool(
    'distributed', False, 'Detect the processes of the run on Cloud TPU, SLURM or Open MPI.'
)
_CHECKPOINT = flags.DEFINE_enum(
    'checkpoint',
    'latest',
    task_options.CHECKPOINTS,
    'Checkpoint to use, see config.evaluation.best.',
)


def run() -> None:
    """Run `main` with absl; called by `dcgan_jax.__main__`."""
    for flag in flags.FLAGS.get_flags_for_module(__name__):  # absl's --help lists key flags only.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(main, flags_parser=parse)


def main(argv: list[str]) -> None:
    """Run the mode selected by the flags."""
    del argv
    absl_logging.get_absl_handler().addFilter(log_filter.is_shown)
    _check_flags()
    cache_dir.enable_compilation_cache()
    print(_train() if _MODE.value == 'train' else _run_task())


def _train() -> str:
    from dcgan_jax import sample_grids, training
    from dcgan_jax.runtime import multihost

    exit_codes.raise_on_sigint()
    config = _config()
    if _INIT_FROM.value is not None:
        config.init_from = _INIT_FROM.value
    if _is_distributed():
        multihost.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    state = training.train_and_evaluate(config, _WORKDIR.value)
    return f'samples: {sample_grids.grid_path(_WORKDIR.value, int(state.step))}'


def _run_task() -> str:
    config = None if _CONFIG.value is None else _config()
    names = [
        field.name
        for field in dataclasses.fields(task_options.TaskOptions)
        if field.name != 'config'
    ]
    options = {name: flags.FLAGS[name].value for name in names}
    task = importlib.import_module(f'dcgan_jax.tasks.{_MODE.value}')
    exit_codes.raise_on_sigint()
    return str(task.run(task_options.TaskOptions(config=config, **options)))


def _is_distributed() -> bool:
    given = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    return _DISTRIBUTED.value or any(value is not None for value in given)


def _check_flags() -> None:
    mode = _MODE.value
    for name, modes in _MODES_OF_FLAG.items():
        if flags.FLAGS[name].present and mode not in modes:
            supported = ', '.join(f'--mode={name}' for name in modes)
            raise UserError(f'--{name} is not supported by --mode={mode}; use it with {supported}')
    for name in _NOT_WITH_IMAGES.get(mode, ('num',)) if _IMAGES.value is not None else ():
        if flags.FLAGS[name].present:
            raise UserError(f'--{name} is not supported with --images; remove it')
    only_images = mode == 'evaluate' and _IMAGES.value and _CONFIG.value is not None
    if _WORKDIR.value is None and not only_images:
        instead = ', or --config to evaluate only --images' if _IMAGES.value else ''
        raise UserError(f'--workdir is missing: pass the folder of the run{instead}')
    if _is_distributed() and mode != 'train':
        raise UserError(
            f'--mode={mode} runs in a single process: remove --distributed, --coordinator_address, '
            '--num_processes and --process_id'
        )


def _config() -> ConfigDict:
    if _CONFIG.value is None:
        raise UserError('--config is missing: pass a config, e.g. --config=configs/cifar10.py')
    return _CONFIG.value


def parse(argv: list[str]) -> list[str]:
    """Parse the flags; an invalid flag ends the process with one line and exit code 2."""
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise UserError(f'unknown argument {rest[1]!r}: use flags --NAME=VALUE, see --help')
        return rest
    except (SystemExit, BrokenPipeError):  # Raised by --help, for which absl exits with code 1.
        exit_codes.end_help()
    except flags.UnrecognizedFlagError as error:
        hint = '; to override fields, also pass --config=FILE' if 'config.' in str(error) else ''
        exit_codes.exit_with_error(f'{error}{hint}', 2)
    except (flags.Error, TypeError, ValueError) as error:
        exit_codes.exit_with_error(error, 2)
    except (AttributeError, KeyError) as error:
        # Raised by ml_collections for an unknown field; its message is quoted twice.
        message = str(error).replace('\\n', ' ').replace('\\', '')
        exit_codes.exit_with_error(f'--config has no field {message[1:-1]}', 2)
