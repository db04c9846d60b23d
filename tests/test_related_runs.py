"""Runs that depend on another run: a student on its teacher, a run on the one it starts from."""

import json
import shutil

import pytest
from etils import epath

from dcgan_jax import run_dir, training, warm_start
from dcgan_jax.runtime.errors import UserError
from tests.class_folders import folder_config
from tests.conftest import tiny_config


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


def write_run(folder, **changes):
    """Write the description of a run of `tiny_config` with changes; it has no checkpoint."""
    config = tiny_config('')
    config.update_from_flattened_dict(changes)
    run_dir.write(epath.Path(folder), run_dir.Run(config, (8, 8, 3)))
    return run_dir.read(folder).config


UNTRAINED = {
    'distill.teacher': 'teacher', 'discriminator_steps': 0, 'loss.adversarial_weight': 0.0,
    'loss.content_weight': 1.0,
}  # fmt: skip


def test_untrained_discriminator_is_found_in_the_run_that_it_was_copied_from(tmp_path, caplog):
    is_trained = warm_start.is_discriminator_trained
    trained = write_run(tmp_path / 'trained')
    untrained = write_run(tmp_path / 'untrained', **UNTRAINED)
    assert is_trained(trained)
    assert not is_trained(untrained)
    for name in ('trained', 'untrained'):
        changes = {**UNTRAINED, 'init_from': str(tmp_path / name)}
        copied = write_run(tmp_path / f'from_{name}', **changes)
        changes['init_from'] = str(tmp_path / f'from_{name}')
        for config in (copied, write_run(tmp_path / 'last', **changes)):
            assert is_trained(config) == (name == 'trained')
    # Two runs name each other because one of them was replaced.
    write_run(tmp_path / 'untrained', **UNTRAINED, init_from=str(tmp_path / 'from_untrained'))
    assert not is_trained(copied)
    shutil.rmtree(tmp_path / 'untrained')
    assert is_trained(copied)
    assert 'it is assumed to be trained' in caplog.text


def test_features_of_an_untrained_discriminator_are_not_matched(class_folder_copy, tmp_path):
    images, run = class_folder_copy
    description = json.loads((run / 'config.json').read_text())
    source = run_dir.Run(
        write_run(tmp_path / 'x', **UNTRAINED, conditional=True), (8, 8, 3),
        tuple(description['class_names']), description['data'],
    )  # fmt: skip
    shutil.rmtree(run / 'checkpoints')
    run_dir.write(epath.Path(run), source)
    config = folder_config(images)
    config.update_from_flattened_dict({
        **UNTRAINED, 'init_from': str(run), 'loss.feature_matching_weight': 1.0,
        'distill.teacher': str(run),
    })  # fmt: skip
    with pytest.raises(UserError, match=r'init_from=.*: the discriminator .* was not trained'):
        training.train_and_evaluate(config, tmp_path / 'new')


@pytest.mark.parametrize(
    ('field', 'old', 'new', 'is_moved'),
    [
        ('init_from', 'old', 'new', True),
        ('init_from', '', 'new', False),
        ('distill.teacher', 'old', 'new', True),
        ('latent_dim', 5, 6, False),
    ],
)
def test_error_about_a_moved_run_says_that_the_original_path_is_accepted(
    tmp_path, field, old, new, is_moved
):
    others = {'loss.content_weight': 1.0} if field == 'distill.teacher' else {}
    write_run(tmp_path / 'run', **others, **{field: old})
    changed = write_run(tmp_path / 'other', **others, **{field: new})
    with pytest.raises(UserError, match=f'{field}: ') as raised:
        run_dir.check_free(epath.Path(tmp_path / 'run'), run_dir.Run(changed, (8, 8, 3)))
    shape_differs = run_dir.Run(run_dir.read(tmp_path / 'run').config, (16, 16, 3))
    with pytest.raises(UserError, match=r'image shape: .* pass its config'):
        run_dir.check_free(epath.Path(tmp_path / 'run'), shape_differs)
    assert ('original path, even if it no longer exists' in str(raised.value)) == is_moved
