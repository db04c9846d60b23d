"""Loading of the config file that is passed as `--config`."""

import importlib.machinery
import sys
import traceback
from pathlib import Path
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict

from dcgan_jax.runtime import jax_settings
from dcgan_jax.runtime.files import reject_special_file


class ConfigFileParser(flags.ArgumentParser):
    """Parser of `--config` that reports each error in a config file as a one-line message.

    The parser of ml_collections reports some errors with a traceback, and others only when the
    config is used.
    """

    def parse(self, argument: str) -> ConfigDict:
        """Execute a config file and return the locked `ConfigDict` that `get_config` returns.

        Args:
            argument: `FILE`, or `FILE:TEXT` to call `get_config(TEXT)`.

        Raises:
            ValueError: If JAX cannot be imported, the file cannot be read or executed, or
                `get_config` is missing or does not return a `ConfigDict`.
        """
        # Imported first, so that an error of this import is not reported as an error in the file.
        jax_settings.import_jax()
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
        except (Exception, SystemExit) as error:  # The file can raise any exception.
            message = f'{_describe(error, path)}: use a file like those in configs/'
            raise ValueError(message) from error

    def flag_type(self) -> str:
        """Return the name of the type in `--help`."""
        return 'config file'


def _find(path: str) -> str:
    """Return `path`, or that of the installed config of this name if `path` does not exist."""
    installed = Path(__file__).parent / path
    return str(installed) if installed.is_file() and not Path(path).exists() else path


def _execute(path: str) -> ModuleType:
    """Execute a Python file as a module; cached bytecode, which may be stale, is not used."""
    reject_special_file(path)
    module = ModuleType('_dcgan_jax_config')
    module.__file__ = path
    sys.modules[module.__name__] = module  # Data classes look up their module there.
    loader = importlib.machinery.SourceFileLoader(module.__name__, path)
    exec(loader.source_to_code(loader.get_data(path), path), vars(module))
    return module


def _describe(error: BaseException, path: str) -> str:
    """Return the message of an error, with its type and the line of the file in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    message = error
    if isinstance(error, SyntaxError) and error.filename == path:
        lines, message = [error.lineno], error.msg
    return f'{type(error).__name__} in line {lines[-1]}: {message}' if lines else str(error)
