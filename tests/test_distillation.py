"""Distillation: the teacher of a run, its loss, and the initialization by pruning."""

import errno
import functools
import json
import os
import shutil

import jax
import numpy as np
import pytest

from dcgan_jax import distillation, models, pruning, run_dir, train_state, training, weights
from dcgan_jax.runtime.errors import ConfigError, UserError
from dcgan_jax.tasks.trained_run import restore
from dcgan_jax.train_step import train_step
from tests.compare import assert_equal_states
from tests.conftest import slow


@pytest.fixture
def student(config, finished):
    """Config of a student of `finished`, with half of its channels."""
    config.distill.teacher = str(finished[0])
    config.generator.width = 0.5
    config.loss.content_weight = 1.0
    return config


def teacher_images(workdir, latents):
    """Images of the run's EMA generator in [-1, 1], with its standing statistics."""
    trained = restore(workdir)
    variables = trained.sampler.variables(trained.state)
    return trained.networks.generator.apply(variables, latents, train=False)


def test_student_keeps_the_teacher_and_its_digest(student, finished, tmp_path):
    training.train_and_evaluate(student, tmp_path)
    content = (tmp_path / run_dir.TEACHER_FILE).read_bytes()
    recorded = json.loads((tmp_path / 'config.json').read_text())
    assert recorded['teacher'] == distillation.digest(content)
    variables, metadata = weights.deserialize(content)
    generator = restore(finished[0]).networks.generator
    latents = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        generator.apply(variables, latents, train=False), teacher_images(finished[0], latents)
    )
    assert metadata['step'] == 6


def test_discriminator_of_the_teacher_is_copied_and_stays_fixed(student, finished, tmp_path):
    student.loss.update(adversarial_weight=0.0, feature_matching_weight=1.0)
    student.distill.discriminator, student.discriminator_steps = 'teacher', 0
    state = training.train_and_evaluate(student, tmp_path / 'run')
    expected = finished[1].discriminator
    for name in ('params', 'batch_stats'):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(state.discriminator, name),
            getattr(expected, name),
        )  # fmt: skip
    # This run copied a trained discriminator.
    student.distill.teacher = str(tmp_path / 'run')
    training.train_and_evaluate(student, tmp_path / 'second')
    student.discriminator.width = 0.5
    with pytest.raises(UserError, match=r'has a different discriminator: batch_stats'):
        training.train_and_evaluate(student, tmp_path / 'other')
    student.distill.discriminator = 'random'
    with pytest.raises(ConfigError, match='discriminator_steps=0 needs'):
        training.train_and_evaluate(student, tmp_path / 'other')


def test_untrained_discriminator_of_the_teacher_is_rejected(student, tmp_path):
    student.loss.adversarial_weight, student.discriminator_steps = 0.0, 0
    training.train_and_evaluate(student, tmp_path / 'run')
    student.distill.update(teacher=str(tmp_path / 'run'), discriminator='teacher')
    with pytest.raises(UserError, match='was not trained'):
        training.train_and_evaluate(student, tmp_path / 'other')
    assert not (tmp_path / 'other').exists()


def test_generator_loss_adds_the_distance_to_the_teacher_images(student, finished):
    """The logged terms equal losses that are computed outside of the training step."""
    student.loss.update(content_norm='l1', content_weight=3.0, feature_matching_weight=2.0)
    networks = models.build(student, (8, 8, 3))
    state = train_state.create(student, networks, (8, 8, 3))
    trained = restore(finished[0])
    teacher = train_state.Teacher(
        trained.sampler.variables(trained.state), trained.networks.generator.apply
    )
    real = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 3)).astype(np.float32)
    key = jax.random.key(3)
    step = jax.jit(functools.partial(train_step, config=student))
    after, metrics = step(state, real, None, key, teacher=teacher)
    latents = jax.random.normal(jax.random.fold_in(key, 0), (8, 4))  # RngStream.LATENTS
    images, _ = networks.generator.apply(
        {'params': state.generator.params, **state.generator.statistics},
        latents, train=True, mutable=['batch_stats'],
    )  # fmt: skip
    targets = teacher_images(finished[0], latents)
    expected = np.mean(np.abs(np.float64(images) - np.float64(targets)))
    assert float(metrics['generator/content']) == pytest.approx(expected, rel=1e-4)
    _, sown = networks.discriminator.apply(
        {'params': after.discriminator.params, **after.discriminator.statistics},
        np.concatenate([targets, images]), train=True, mutable=['batch_stats', 'intermediates'],
        rngs={'dropout': jax.random.fold_in(key, 7)},
    )  # fmt: skip
    maps = [np.float64(stage) for stage in jax.tree.leaves(sown['intermediates'])]
    expected = np.mean([np.mean(np.abs(stage[:8] - stage[8:])) for stage in maps])
    assert float(metrics['generator/feature_matching']) == pytest.approx(expected, rel=1e-3)
    total = metrics['generator/adversarial'] + 3 * metrics['generator/content']
    total += 2 * metrics['generator/feature_matching']
    assert float(metrics['generator/loss']) == pytest.approx(float(total), rel=1e-5)


@pytest.mark.slow
def test_resumed_student_needs_neither_the_teacher_run_nor_its_checkpoint(
    student, finished, tmp_path
):
    whole = training.train_and_evaluate(student, tmp_path / 'whole')
    teacher = shutil.copytree(finished[0], tmp_path / 'teacher')
    student.distill.teacher = str(teacher)
    student.num_steps = 2
    training.train_and_evaluate(student, tmp_path / 'parts')
    shutil.rmtree(teacher)
    student.num_steps = 6
    resumed = training.train_and_evaluate(student, tmp_path / 'parts')
    assert_equal_states(resumed, whole)


def test_student_without_checkpoint_reads_its_teacher_again(student, finished, tmp_path):
    """The teacher changes after the student was stopped and before its first checkpoint."""
    teacher = shutil.copytree(finished[0], tmp_path / 'teacher')
    student.distill.teacher, student.num_steps = str(teacher), 0
    run = tmp_path / 'run'
    training.train_and_evaluate(student, run)
    shutil.rmtree(run / 'checkpoints')
    (run / 'has_checkpoints').unlink()
    shutil.rmtree(teacher / 'checkpoints' / '6')
    training.train_and_evaluate(student, run)
    content = (run / run_dir.TEACHER_FILE).read_bytes()
    assert weights.deserialize(content)[1]['step'] == 4
    assert run_dir.read(run).teacher == distillation.digest(content)


@pytest.mark.slow
@pytest.mark.parametrize('module', [run_dir, distillation], ids=['config', 'teacher'])
def test_student_can_be_restarted_if_a_file_was_not_written(student, tmp_path, monkeypatch, module):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, 'No space left on device')

    student.num_steps = 0
    with monkeypatch.context() as patched:
        patched.setattr(module, 'write', fail)
        with pytest.raises(OSError, match='No space'):
            training.train_and_evaluate(student, tmp_path)
    training.train_and_evaluate(student, tmp_path)
    assert (tmp_path / run_dir.TEACHER_FILE).exists()


def test_new_student_does_not_overwrite_a_file(student, tmp_path):
    path = tmp_path / run_dir.TEACHER_FILE
    path.write_text('user data')
    with pytest.raises(UserError, match=rf'contains no run, but files .*{path.name}'):
        training.train_and_evaluate(student, tmp_path)
    assert path.read_text() == 'user data'


def test_lost_copy_of_an_unchanged_teacher_is_written_again(student, finished, tmp_path):
    teacher = shutil.copytree(finished[0], tmp_path / 'teacher')
    student.distill.teacher, student.num_steps = str(teacher), 0
    training.train_and_evaluate(student, tmp_path / 'run')
    path = tmp_path / 'run' / run_dir.TEACHER_FILE
    content = path.read_bytes()
    path.unlink()
    training.train_and_evaluate(student, tmp_path / 'run')
    assert path.read_bytes() == content
    path.unlink()
    teacher.rename(tmp_path / 'moved')
    with pytest.raises(UserError, match=f'{path} is missing: restore it, or the run of the'):
        training.train_and_evaluate(student, tmp_path / 'run')


@pytest.mark.slow
def test_student_continues_from_a_student(student, tmp_path):
    student.loss.update(adversarial_weight=0.0, feature_matching_weight=1.0)
    student.distill.update(init='pruned', discriminator='teacher')
    student.discriminator_steps, student.num_steps = 0, 2
    first = training.train_and_evaluate(student, tmp_path / 'first')
    student.init_from, student.num_steps = str(tmp_path / 'first'), 0
    student.distill.update(init='random', discriminator='random')
    state = training.train_and_evaluate(student, tmp_path / 'second')
    for name in ('generator', 'discriminator'):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(state, name).params, getattr(first, name).params
        )


@pytest.mark.parametrize('damage', ['modified', slow('pipe'), slow('removed')])
def test_lost_teacher_is_an_error(student, finished, tmp_path, damage):
    teacher = shutil.copytree(finished[0], tmp_path / 'teacher')
    student.distill.teacher, student.num_steps = str(teacher), 2
    training.train_and_evaluate(student, tmp_path / 'run')
    path = tmp_path / 'run' / run_dir.TEACHER_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    if damage == 'modified':
        path.write_bytes(content)
    elif damage == 'pipe':
        os.mkfifo(path)
    else:  # Another teacher is in the folder now.
        shutil.rmtree(teacher / 'checkpoints' / '6')
    student.num_steps = 6
    with pytest.raises(UserError, match='restore '):
        training.train_and_evaluate(student, tmp_path / 'run')


@pytest.mark.parametrize(
    ('field', 'value'), [('latent_dim', 5), ('conditional', True), ('generator.use_bias', True)]
)
def test_incompatible_teacher_is_rejected(student, tmp_path, field, value):
    student.distill.init = 'pruned' if field.startswith('generator') else 'random'
    student.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f'the teacher has config.{field}='):
        training.train_and_evaluate(student, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_teacher_of_fewer_classes_is_rejected(config, student, tmp_path):
    teacher = config.copy_and_resolve_references()
    teacher.conditional, teacher.data.classes, teacher.num_steps = True, (0, 2), 0
    teacher.distill.teacher, teacher.loss.content_weight = '', 0.0
    training.train_and_evaluate(teacher, tmp_path / 'teacher')
    student.conditional, student.distill.teacher = True, str(tmp_path / 'teacher')
    with pytest.raises(UserError, match='not trained on all classes'):
        training.train_and_evaluate(student, tmp_path / 'run')
    student.data.classes, student.num_steps = (2,), 0
    training.train_and_evaluate(student, tmp_path / 'run')


@pytest.mark.parametrize('field', ['stem_features', slow('block')])
def test_pruning_a_different_architecture_is_rejected(config, student, tmp_path, field):
    teacher = config.copy_and_resolve_references()
    teacher.distill.teacher, teacher.loss.content_weight, teacher.num_steps = '', 0.0, 0
    teacher.generator[field] = {'stem_features': (6,), 'block': 'residual'}[field]
    training.train_and_evaluate(teacher, tmp_path / 'teacher')
    student.distill.teacher, student.distill.init = str(tmp_path / 'teacher'), 'pruned'
    with pytest.raises(UserError, match=f'the teacher has config.generator.{field}='):
        training.train_and_evaluate(student, tmp_path / 'run')


def test_missing_teacher_is_rejected(student, tmp_path):
    student.distill.teacher = str(tmp_path / 'none')
    with pytest.raises(UserError, match='contains no run'):
        training.train_and_evaluate(student, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


NO_TEACHER = {
    'distill.teacher': '', 'loss.content_weight': 0.0, 'loss.adversarial_weight': 1.0,
    'discriminator_steps': 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ('changes', 'field'),
    [
        ({'loss.content_weight': 0.0}, 'loss.content_weight'),
        ({'distill.init': 'pruned', 'generator.norm': 'layer'}, 'generator.norm'),
        ({'distill.init': 'pruned', 'conditional': True}, 'conditional'),
        ({'distill.init': 'pruned', 'init_from': 'run'}, 'init_from'),
        (NO_TEACHER | {'distill.init': 'pruned'}, 'distill.init'),
        (NO_TEACHER | {'distill.discriminator': 'teacher'}, 'distill.discriminator'),
    ],
)
def test_incompatible_fields_are_rejected(student, tmp_path, changes, field):
    student.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError) as error:
        training.train_and_evaluate(student, tmp_path)
    assert field in error.value.fields


def test_pruning_to_all_channels_gives_the_teacher(student, finished):
    student.generator.width = 1.0
    networks = models.build(student, (8, 8, 3))
    trained = restore(finished[0])
    variables = trained.sampler.variables(trained.state)
    state = jax.device_put(
        train_state.create(student, networks, (8, 8, 3)), trained.state.step.sharding
    )
    pruned = pruning.initialize(state, variables)
    jax.tree.map(np.testing.assert_array_equal, pruned.ema_params, variables['params'])
    jax.tree.map(
        np.testing.assert_array_equal, pruned.generator.batch_stats, variables['batch_stats']
    )


def test_pruning_keeps_the_channels_with_the_largest_scales(student):
    """If the other channels have a scale and a bias of 0, the images do not change."""
    student.generator.update(features=(8, 6), strides=(2, 2, 2), base_size=1, width=1.0)
    student.discriminator.update(features=(8, 8), strides=(2, 2))
    large = models.build(student, (8, 8, 3)).generator
    latents = jax.random.normal(jax.random.key(0), (5, 4))
    variables = large.init(jax.random.key(1), latents, train=False)
    params = jax.device_get(variables['params'])
    rng = np.random.default_rng(0)
    for norm, count in (('project_norm', 8), ('norm_0', 8), ('norm_1', 6)):
        dropped = rng.permutation(count)[: count // 2]
        for name in ('scale', 'bias'):
            params[norm][name] = rng.normal(1.0, 0.1, count).astype(np.float32)
            params[norm][name][dropped] = 0.0
    variables = variables | {'params': params}
    student.generator.width = 0.5
    small = models.build(student, (8, 8, 3)).generator
    counts = {'project_norm': 4, 'norm_0': 4, 'norm_1': 3}
    pruned, statistics = pruning.prune(params, jax.device_get(variables['batch_stats']), counts)
    np.testing.assert_allclose(
        small.apply({'params': pruned, 'batch_stats': statistics}, latents, train=False),
        large.apply(variables, latents, train=False),
        atol=1e-5,
    )


def test_feature_matching_supports_conditions(student):
    student.conditional, student.loss.feature_matching_weight = True, 1.0
    networks = models.build(student, (8, 8, 3), num_classes=3)
    state = jax.eval_shape(lambda: train_state.create(student, networks, (8, 8, 3)))
    real = jax.ShapeDtypeStruct((8, 8, 8, 3), 'float32')
    labels = jax.ShapeDtypeStruct((8,), 'int32')
    step = functools.partial(train_step, config=student)
    _, metrics = jax.eval_shape(step, state, real, labels, jax.eval_shape(jax.random.key, 0))
    assert metrics['generator/feature_matching'].shape == ()


@pytest.mark.slow
def test_pruned_student_starts_with_channels_of_the_teacher(student, finished, tmp_path):
    """After 0 steps, the state has channels of the teacher."""
    student.distill.init, student.num_steps = 'pruned', 0
    state = training.train_and_evaluate(student, tmp_path)
    kernel = np.asarray(finished[1].ema_params['conv_1']['kernel'])
    for index in range(4):
        column = np.asarray(state.generator.params['conv_1']['kernel'])[:, :, index]
        assert any(np.array_equal(column, kernel[:, :, channel]) for channel in range(8))


def test_more_channels_than_the_teacher_are_rejected(student, tmp_path):
    student.distill.init, student.generator.width = 'pruned', 2.0
    with pytest.raises(UserError, match='more than'):
        training.train_and_evaluate(student, tmp_path)
