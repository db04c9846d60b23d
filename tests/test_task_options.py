"""The interface of all tasks."""

import importlib
import inspect

import pytest
from etils import epath

from dcgan_jax import cli
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks.options import TaskOptions, TaskResult


@pytest.mark.parametrize('mode', cli.MODES[1:])
def test_every_mode_is_a_function_from_options_to_a_result(mode):
    task = importlib.import_module(f'dcgan_jax.tasks.{mode}')
    signature = inspect.signature(task.run)
    (options,) = signature.parameters.values()
    assert (options.annotation, signature.return_annotation) == (TaskOptions, TaskResult)


@pytest.mark.parametrize('numbers', [{'num': 0}, {'num': -5}, {'num': 1.5}, {'seed': -1}])
def test_invalid_numbers_are_rejected(numbers):
    with pytest.raises(UserError, match='must be an integer from'):
        TaskOptions(workdir='w', **numbers)


def test_printed_result_is_the_summary_and_the_path():
    path = epath.Path('/a/b')
    assert str(TaskResult(path, 'FD: 3')) == 'FD: 3\nresults: /a/b'
    assert str(TaskResult(path)) == 'results: /a/b'
    assert str(TaskResult(None, 'FD: 3')) == 'FD: 3'
