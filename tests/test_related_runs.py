"""Runs that depend on another run: a student on its teacher, a run on the one it starts from."""

import pytest

from dcgan_jax import training
from dcgan_jax.runtime.errors import UserError
from tests.class_folders import folder_config


@pytest.mark.parametrize('field', ['init_from', 'distill.teacher'])
def test_exchanged_class_folders_are_rejected(class_folder_copy, tmp_path, field):
    images, run = class_folder_copy
    for old, new in (('blue', 'x'), ('green', 'blue'), ('x', 'green')):
        (images / old).rename(images / new)
    config = folder_config(images)
    config.loss.content_weight = 1.0 if field == 'distill.teacher' else 0.0
    config.update_from_flattened_dict({field: str(run)})
    with pytest.raises(UserError, match=rf'{field}=.*blue contains .* was trained as green'):
        training.train_and_evaluate(config, tmp_path / 'new')
    assert not (tmp_path / 'new').exists()


@pytest.fixture
def student(config, finished):
    """Config of a student whose discriminator is not trained."""
    config.distill.teacher = str(finished[0])
    config.loss.update(content_weight=1.0, adversarial_weight=0.0)
    config.discriminator_steps, config.num_steps = 0, 1
    return config


@pytest.mark.slow
def test_untrained_discriminator_is_found_in_the_run_that_it_was_copied_from(student, tmp_path):
    training.train_and_evaluate(student, tmp_path / 'first')
    student.init_from = str(tmp_path / 'first')
    training.train_and_evaluate(student, tmp_path / 'second')
    student.init_from = ''
    student.distill.update(teacher=str(tmp_path / 'second'), discriminator='teacher')
    with pytest.raises(UserError, match='was not trained'):
        training.train_and_evaluate(student, tmp_path / 'third')


def test_error_about_a_moved_teacher_says_that_the_old_path_is_accepted(
    student, finished_copy, tmp_path
):
    student.distill.teacher = str(finished_copy)
    training.train_and_evaluate(student, tmp_path / 'run')
    moved = finished_copy.rename(tmp_path / 'moved')
    student.distill.teacher, student.num_steps = str(moved), 2
    with pytest.raises(UserError, match=r'distill\.teacher: .*may be paths .* no longer exist'):
        training.train_and_evaluate(student, tmp_path / 'run')
    student.distill.teacher = str(finished_copy)
    assert int(training.train_and_evaluate(student, tmp_path / 'run').step) == 2
