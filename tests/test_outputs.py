"""Tasks whose workdir is replaced or renamed while they run."""

import functools
import shutil

import pytest
from etils import epath

from dcgan_jax import run_dir, training
from dcgan_jax.data import input_pipeline
from dcgan_jax.runtime import workdir_guard
from dcgan_jax.runtime.errors import TrainingError
from dcgan_jax.tasks import evaluate, explain, explore, export, report, sample, translate
from dcgan_jax.tasks.options import TaskOptions
from tests.class_folders import content
from tests.evaluated import evaluation_config


@pytest.fixture
def config(config, tmp_path, monkeypatch):
    config = evaluation_config(config, tmp_path, monkeypatch)
    config.evaluation.split, config.latent_optimization.steps = 'train', 1
    return config


@pytest.fixture
def workdir(finished, tmp_path, monkeypatch):
    """Function that returns a run whose workdir is replaced or renamed after it is restored."""

    def create(is_replaced):
        workdir, moved = tmp_path / 'run', tmp_path / 'moved'
        shutil.copytree(finished[0], workdir)
        check = run_dir.check_outside_checkpoints

        def replace(*arguments):
            check(*arguments)
            workdir.rename(moved)
            if is_replaced:
                shutil.copytree(moved, workdir)

        monkeypatch.setattr(run_dir, 'check_outside_checkpoints', replace)
        return workdir

    return create


@pytest.mark.parametrize('is_replaced', [True, False])
@pytest.mark.parametrize(
    ('task', 'settings'),
    [
        (sample, {'num': 1}),
        (export, {}),
        (report, {}),
        (explain, {}),
        (explore, {}),
        (translate, {'num': 2}),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_results_are_not_written_to_another_run(
    workdir, finished, config, is_replaced, task, settings
):
    run = workdir(is_replaced)
    with pytest.raises(TrainingError, match='was removed, renamed or replaced'):
        task.run(TaskOptions(workdir=run, config=config, **settings))
    if is_replaced:
        assert content(run) == content(finished[0])
    else:
        assert not run.exists()


@pytest.mark.parametrize('has_images', [True, False])
def test_evaluations_are_not_written_to_another_run(
    workdir, finished, config, tmp_path, has_images
):
    if has_images:
        images = sample.run(TaskOptions(workdir=finished[0], out=tmp_path / 'images', num=40)).path
    options = functools.partial(TaskOptions, workdir=workdir(True), config=config)
    with pytest.raises(TrainingError, match='was removed, renamed or replaced'):
        evaluate.run(options(images=images.with_suffix('.npz')) if has_images else options())
    assert content(tmp_path / 'run') == content(finished[0])


def test_results_are_written_to_other_folders_if_the_workdir_is_removed(workdir, tmp_path):
    sample.run(TaskOptions(workdir=workdir(False), out=tmp_path / 'out', num=1))
    assert (tmp_path / 'out' / 'samples.npz').exists()


@pytest.mark.parametrize('is_linked', [False, True])
def test_a_workdir_that_is_replaced_while_images_are_read_is_not_trained(
    finished_copy, tmp_path, monkeypatch, is_linked
):
    other, workdir = tmp_path / 'other', tmp_path / 'workdir'
    shutil.copytree(finished_copy, other)
    (workdir.symlink_to if is_linked else finished_copy.rename)(
        finished_copy if is_linked else workdir
    )
    before = content(other)
    create = input_pipeline.create_input_iter

    def replace(*arguments):
        batches = create(*arguments)
        workdir.rename(tmp_path / 'moved')
        (workdir.symlink_to if is_linked else other.rename)(other if is_linked else workdir)
        return batches

    monkeypatch.setattr(input_pipeline, 'create_input_iter', replace)
    config = run_dir.read(workdir).config.unlock()
    config.num_steps = 8
    with pytest.raises(TrainingError, match='was removed, renamed or replaced'):
        training.train_and_evaluate(config, workdir)
    assert content(workdir.resolve()) == before


def test_a_new_workdir_is_detected_even_if_inode_numbers_are_reused(tmp_path):
    workdir = epath.Path(tmp_path / 'run')
    workdir.mkdir()
    check = workdir_guard.presence_check(workdir)
    check()
    workdir.rmdir()
    workdir.mkdir()
    with pytest.raises(TrainingError, match='was removed, renamed or replaced'):
        check()
