"""Output folders that would be read as input images are rejected."""

import contextlib
import os
import shutil
import subprocess

import pytest

from dcgan_jax import run_dir, training
from dcgan_jax.runtime import containment
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import evaluate, sample
from dcgan_jax.tasks.options import TaskOptions
from tests.class_folders import COLORS, content, folder_config, write_images


@pytest.mark.parametrize('name', ['run', '', 'a/b'])
def test_workdir_inside_the_training_images_is_rejected(class_folder_run, name):
    images, _ = class_folder_run
    before = content(images)
    with pytest.raises(
        UserError, match=r'--workdir=.* would be among the files of config\.data_dir'
    ):
        training.train_and_evaluate(folder_config(images), images / name)
    assert content(images) == before


def test_output_folder_linked_into_the_images_is_rejected(class_folder_run, tmp_path):
    images, run = class_folder_run
    (tmp_path / 'link').symlink_to(images)
    with pytest.raises(UserError, match=r'--out=.* would be among the files of config\.data_dir'):
        sample.run(TaskOptions(workdir=run, out=tmp_path / 'link' / 'out', num=1))
    (tmp_path / 'own').mkdir()
    write_images(tmp_path / 'own', COLORS['red'], num=2)
    (tmp_path / 'own' / 'run').symlink_to(run)
    with pytest.raises(UserError, match=r'--out=.* would be among the files of --images'):
        evaluate.run(
            TaskOptions(workdir=run, images=tmp_path / 'own', out=tmp_path / 'own' / 'results')
        )


def test_output_folder_outside_of_the_images_is_accepted(tmp_path):
    (tmp_path / 'images').mkdir()
    inputs = {'--images': tmp_path / 'images', 'config.data_dir': ''}
    containment.check_outside(tmp_path / 'images_2', '--out', inputs)
    containment.check_outside('gs://bucket/run', '--workdir', {'config.data_dir': '.'})
    with pytest.raises(UserError, match='among the files of --images'):
        containment.check_outside(tmp_path / 'images', '--out', inputs)


def link_inside(root):
    """Return (images, workdir), where images contain a link to the parent of the workdir."""
    (root / 'images' / 'link').symlink_to(root / 'elsewhere')
    return root / 'images', root / 'elsewhere' / 'run'


def samples_folder(root):
    return root / 'elsewhere' / 'samples', root / 'elsewhere'


def below_checkpoints(root):
    return root / 'elsewhere' / 'checkpoints' / 'images', root / 'elsewhere'


def linked_samples(root):
    (root / 'elsewhere' / 'samples').symlink_to(root / 'images')
    return root / 'images', root / 'elsewhere'


@pytest.mark.parametrize('create', [link_inside, samples_folder, below_checkpoints, linked_samples])
def test_folders_of_a_run_that_would_be_read_as_images_are_rejected(tmp_path, create):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    images, workdir = create(tmp_path)
    images.mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match='among the files'):
        containment.check_outside(workdir, '--workdir', {'--images': images}, run_dir.FOLDERS)


@pytest.fixture
def bind_mount():
    """Return a function that mounts a folder at another path."""
    if shutil.which('mount') is None:
        pytest.skip('needs mount')
    with contextlib.ExitStack() as stack:

        def mount(folder, path):
            path.mkdir()
            command = ['mount', '--bind', '--make-private', folder, path]
            if subprocess.run(command, check=False).returncode:
                pytest.skip('no folder can be mounted here')
            stack.callback(subprocess.run, ['umount', path], check=True)

        yield mount


def test_folders_reached_by_another_mount_point_are_rejected(tmp_path, bind_mount):
    (tmp_path / 'images' / 'a').mkdir(parents=True)
    (tmp_path / 'run' / 'samples').mkdir(parents=True)
    bind_mount(tmp_path / 'images', tmp_path / 'mounted')
    bind_mount(tmp_path / 'run' / 'samples', tmp_path / 'samples')
    bind_mount(tmp_path / 'run', tmp_path / 'images' / 'b')
    inputs = {'--images': tmp_path / 'images'}
    for out in ('mounted', 'mounted/new', 'mounted/a', 'run', 'run/new', 'samples'):
        with pytest.raises(UserError, match='among the files of --images'):
            containment.check_outside(tmp_path / out, '--out', inputs)
    with pytest.raises(UserError, match='among the files of --images'):
        containment.check_outside(
            tmp_path / 'run', '--workdir', {'--images': tmp_path / 'samples'}, run_dir.FOLDERS
        )


def test_file_systems_without_inodes_are_supported(tmp_path, monkeypatch):
    stat = os.stat

    def without_inode(path, **arguments):
        fields = list(stat(path, **arguments))
        fields[1] = 0
        return os.stat_result(fields)

    images, run = tmp_path / 'run' / 'samples' / 'images', tmp_path / 'run'
    images.mkdir(parents=True)
    (tmp_path / 'elsewhere').mkdir()
    (images / 'link').symlink_to(tmp_path / 'elsewhere')
    monkeypatch.setattr(containment.os, 'stat', without_inode)
    for out in (images, images / 'new', run, tmp_path / 'elsewhere' / 'new'):
        with pytest.raises(UserError, match='among the files of --images'):
            containment.check_outside(out, '--workdir', {'--images': images}, run_dir.FOLDERS)
    containment.check_outside(tmp_path / 'new', '--out', {'--images': images})


def test_images_in_another_subfolder_of_the_workdir_are_accepted(tmp_path):
    (tmp_path / 'run' / 'images' / 'loop').mkdir(parents=True)
    (tmp_path / 'run' / 'images' / 'loop' / 'up').symlink_to(tmp_path / 'run' / 'images')
    inputs = {'config.data_dir': tmp_path / 'run' / 'images'}
    containment.check_outside(tmp_path / 'run', '--workdir', inputs, run_dir.FOLDERS)


@pytest.mark.parametrize(
    'name',
    ['checkpoints/2/export', 'best_checkpoint', 'link', '~/checkpoints', 'damaged_checkpoints'],
)
def test_output_folder_inside_a_checkpoint_folder_is_rejected(
    class_folder_copy, tmp_path, monkeypatch, name
):
    _, run = class_folder_copy
    (run / 'link').symlink_to(run / 'checkpoints')
    (tmp_path / 'elsewhere').mkdir()
    (run / 'damaged_checkpoints').symlink_to(tmp_path / 'elsewhere')
    monkeypatch.setenv('HOME', str(run))
    before = content(tmp_path)
    out = name if name.startswith('~') else run / name
    with pytest.raises(UserError, match=r'--out=.* is inside the checkpoint folder'):
        sample.run(TaskOptions(workdir=run, out=out, num=1))
    assert content(tmp_path) == before
    sample.run(TaskOptions(workdir=run, out=tmp_path / 'checkpoints', num=1))


def test_checkpoints_of_a_linked_folder_are_not_used_for_results(class_folder_copy, tmp_path):
    images, run = class_folder_copy
    (run / 'checkpoints').rename(tmp_path / 'disk')
    (run / 'checkpoints').symlink_to(tmp_path / 'disk')
    before = content(tmp_path)
    for path in (tmp_path / 'disk' / '2' / 'export', tmp_path / 'disk' / '100'):
        with pytest.raises(UserError, match=r'--out=.* is inside the checkpoint folder'):
            sample.run(TaskOptions(workdir=run, out=path, num=1))
        with pytest.raises(UserError, match=r'--workdir=.* is inside the checkpoint folder'):
            training.train_and_evaluate(folder_config(images), path)
    assert content(tmp_path) == before


def test_output_folder_inside_the_images_of_the_config_is_rejected(class_folder_copy, tmp_path):
    images, run = class_folder_copy
    images.rename(tmp_path / 'moved')
    config = folder_config(tmp_path / 'moved')
    with pytest.raises(UserError, match=r'--out=.* would be among the files of --config\.data_dir'):
        sample.run(TaskOptions(workdir=run, config=config, out=tmp_path / 'moved', num=1))


@pytest.mark.parametrize('name', ['checkpoints/100', 'best_checkpoint', 'link/run'])
def test_workdir_inside_a_checkpoint_folder_is_rejected(class_folder_copy, tmp_path, name):
    images, run = class_folder_copy
    (run / 'link').symlink_to(run / 'checkpoints')
    before = content(tmp_path)
    with pytest.raises(UserError, match=r'--workdir=.* is inside the checkpoint folder'):
        training.train_and_evaluate(folder_config(images), run / name)
    assert content(tmp_path) == before


def test_output_folder_with_a_linked_input_file_is_rejected(class_folder_run, tmp_path):
    _, run = class_folder_run
    for name in ('photos', 'selected'):
        (tmp_path / name).mkdir()
    write_images(tmp_path / 'photos', COLORS['red'], num=2)
    first = next((tmp_path / 'photos').iterdir())
    (tmp_path / 'selected' / first.name).symlink_to(first)
    before = content(tmp_path / 'photos')
    options = TaskOptions(workdir=run, images=tmp_path / 'selected', out=tmp_path / 'photos')
    with pytest.raises(UserError, match=r'--out=.* would be among the files of --images'):
        evaluate.run(options)
    assert content(tmp_path / 'photos') == before
    inside = {'--images': tmp_path / 'selected'}  # Other folders beside the files are accepted.
    containment.check_outside(tmp_path / 'photos' / 'results', '--out', inside)


def test_output_folder_inside_a_mounted_checkpoint_is_rejected(class_folder_copy, tmp_path):
    """Such a folder has any name; a copy of a checkpoint is treated like one."""
    _, run = class_folder_copy
    step = max((run / 'checkpoints').iterdir(), key=lambda path: int(path.name))
    shutil.copytree(step, tmp_path / 'mounted')
    with pytest.raises(UserError, match=r'--out=.* is inside the checkpoint folder .*mounted'):
        sample.run(TaskOptions(workdir=run, out=tmp_path / 'mounted' / 'x', num=1))
