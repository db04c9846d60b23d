"""The interface of all tasks."""

import importlib
import inspect

import pytest
from etils import epath

from dcgan_jax import cli
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import sample
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from tests.class_folders import folder_config
from tests.conftest import slow


@pytest.mark.parametrize('mode', cli.MODES[1:])
def test_every_mode_is_a_function_from_options_to_a_result(mode):
    task = importlib.import_module(f'dcgan_jax.tasks.{mode}')
    signature = inspect.signature(task.run)
    (options,) = signature.parameters.values()
    assert (options.annotation, signature.return_annotation) == (TaskOptions, TaskResult)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'num': 0}, 'num=0 must be an integer from 1 to 1,000,000'),
        ({'num': 10**9}, 'num=1000000000 must be'),
        ({'num': 1.5}, 'num=1.5 must be'),
        ({'num': True}, 'num=True must be'),
        ({'seed': -1}, 'seed=-1 must be'),
        ({'checkpoint': 'last'}, "checkpoint='last' must be one of 'latest', 'best'"),
        ({'format': 'JAX'}, "format='JAX' must be one of"),
        ({'weights': 'INT8'}, "weights='INT8' must be one of"),
        ({'classes': '13'}, 'must be a sequence'),
        ({'classes': 0}, 'must be a sequence'),
        ({'classes': 1.5}, 'must be a sequence'),
        ({'prompt': 'a cat'}, 'must be a sequence'),
        ({'num': 3, 'images': 'folder'}, 'num is not supported with images'),
        ({'images': b'folder'}, "images=b'folder' is not a path"),
        ({'mask': 3}, 'mask=3 is not a path'),
        ({'arithmetic': 3}, 'arithmetic=3 must be a string'),
    ],
    ids=str,
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        TaskOptions(workdir='w', **options)


@pytest.mark.parametrize('path', [None, b'run', 3])
def test_values_that_are_not_paths_are_rejected(path):
    with pytest.raises(UserError, match=r'--workdir=.* is not a path'):
        sample.run(TaskOptions(workdir=path))


@pytest.mark.parametrize('mode', ['explore', slow('explain')])
def test_changed_data_set_is_rejected_before_results_are_written(class_folder_copy, tmp_path, mode):
    images, run = class_folder_copy
    (images / 'green').rename(images / 'zebra')
    config = folder_config(images)
    out = tmp_path / 'out'
    task = importlib.import_module(f'dcgan_jax.tasks.{mode}')
    with pytest.raises(UserError, match='the data set has the classes'):
        task.run(TaskOptions(workdir=run, config=config, out=out, num=4))
    assert not out.exists() or not list(out.iterdir())


def test_printed_result_is_the_summary_and_the_path():
    path = epath.Path('/a/b')
    assert str(TaskResult(path, 'FD: 3')) == 'FD: 3\nresults: /a/b'
    assert str(TaskResult(path)) == 'results: /a/b'
    assert str(TaskResult(None, 'FD: 3')) == 'FD: 3'
