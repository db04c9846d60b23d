"""Loading of the file that is given by `--config`."""

import importlib.machinery
import sys
import traceback
from pathlib import Path
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict

from dcgan_jax.runtime.files import reject_special_file


class ConfigFileParser(flags.ArgumentParser):
    """Parser of `--config` that reports all errors of a config file in one line.

    The parser of ml_collections reports some of them with a traceback, and not at once.
    """

    def parse(self, argument: str) -> ConfigDict:
        """Execute a config file and return the locked `ConfigDict` of its function `get_config`.

        Args:
            argument: `FILE`, or `FILE:TEXT` to call `get_config(TEXT)`.

        Raises:
            ValueError: If the file cannot be read or executed, or returns no `ConfigDict`.
        """
        path, *arguments = argument.split(':', 1)
        try:
            path = _find(path)
            module = _execute(path)
            if not hasattr(module, 'get_config'):
                raise ValueError('the file has no function get_config')
            config = module.get_config(*arguments)
            if not isinstance(config, ConfigDict):
                raise ValueError(
                    f'get_config() must return a ConfigDict, not {type(config).__name__}'
                )
            return config.lock()
        except (Exception, SystemExit) as error:  # The file is a program, which may raise anything.
            message = f'{_describe(error, path)}: use a file like those in configs/'
            raise ValueError(message) from error

    def flag_type(self) -> str:
        """Return the name of the type in `--help`."""
        return 'config file'


def _find(path: str) -> str:
    """Return the path of the installed config if there is no file `configs/NAME.py`."""
    installed = Path(__file__).parent / path
    return str(installed) if installed.is_file() and not Path(path).exists() else path


def _execute(path: str) -> ModuleType:
    """Execute a Python file without the cache of compiled files, which may be out of date."""
    reject_special_file(path)
    module = ModuleType('_dcgan_jax_config')
    module.__file__ = path
    sys.modules[module.__name__] = module  # Needed by data classes that are defined in the file.
    loader = importlib.machinery.SourceFileLoader(module.__name__, path)
    exec(loader.source_to_code(loader.get_data(path), path), vars(module))
    return module


def _describe(error: BaseException, path: str) -> str:
    """Return the message of an error, with its type and its line if it was raised in the file."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    message = error
    if isinstance(error, SyntaxError) and error.filename == path:
        lines, message = [error.lineno], error.msg
    return f'{type(error).__name__} in line {lines[-1]}: {message}' if lines else str(error)
