"""Image restoration: training of U-Nets, tasks, evaluation and rejected inputs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dcgan_jax import config as config_lib
from dcgan_jax import models, train_state, training
from dcgan_jax.runtime.errors import ConfigError, UserError
from dcgan_jax.tasks import evaluate, image_to_image, restoration_evaluation, sample
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.outputs import OutputFolder
from dcgan_jax.tasks.trained_run import merge_config
from dcgan_jax.train_step import train_step
from tests.compare import assert_equal_states
from tests.conftest import slow, slow_except, tiny_config
from tests.extractors import write_artifact
from tests.restoration import BY_KIND, KINDS, given_config, restoration_config, run_task


@pytest.mark.parametrize('kind', slow_except(KINDS, 'masked'))
def test_restoration_run_restores_the_data_set_and_user_images(
    restoration_run, data_dir, tmp_path, kind
):
    workdir = restoration_run(kind)
    with Image.open(workdir / 'samples' / '00000006.png') as picture:
        assert picture.size[0] > 64 * 2  # 64 pairs of 16 pixels.
    given = given_config(data_dir, tmp_path, kind)
    path, line = run_task(kind, workdir, given, tmp_path / 'out')
    result = json.loads(path.with_suffix('.json').read_text())
    assert result['num'] == 8
    assert {'psnr', 'ssim', 'FD (tiny)'} <= set(result['metrics']['trained'])
    assert 'trained: psnr' in line
    (tmp_path / 'own').mkdir()
    side = 8 if kind == 'low_resolution' else 16
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (side, side, 4), np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'own' / f'{index}.png')  # With an alpha channel.
    folder, _ = run_task(kind, workdir, None, tmp_path / 'done', str(tmp_path / 'own'), None)
    for index in range(3):
        with Image.open(folder / f'{index}.png') as picture:
            assert picture.size == (16, 16)


@pytest.mark.parametrize('norm', ['l1', 'l2'])
def test_generator_loss_is_a_weighted_sum(data_dir, norm):
    """Initially G returns its input, so the content loss is that of gray images."""
    config = restoration_config(
        data_dir, 'gray',
        **{'loss.adversarial_weight': 0.5, 'loss.content_weight': 3.0,
           'loss.feature_matching_weight': 7.0, 'loss.content_norm': norm},
    )  # fmt: skip
    networks = models.build(config, (16, 16, 3))
    state = jax.jit(lambda: train_state.create(config, networks, (16, 16, 3)))()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.float64)
    real = jnp.asarray(pixels / 127.5 - 1, jnp.float32)
    step = jax.jit(lambda state, real, key: train_step(state, real, None, key, config))
    _, metrics = step(state, real, jax.random.key(0))
    gray = np.rint(pixels @ [0.299, 0.587, 0.114])[..., None]
    difference = np.abs(gray - pixels) / 127.5
    content = difference.mean() if norm == 'l1' else (difference**2).mean()
    assert float(metrics['generator/content']) == pytest.approx(content, rel=1e-4)
    adversarial, matching = (
        float(metrics[f'generator/{name}']) for name in ('adversarial', 'feature_matching')
    )
    assert adversarial > 0.1
    assert matching > 1e-3
    expected = 0.5 * adversarial + 3 * content + 7 * matching
    assert float(metrics['generator/loss']) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_training_without_a_discriminator_improves_psnr(data_dir, tmp_path):
    """With the content loss only, the PSNR of training images is better than bicubic."""
    config = restoration_config(
        data_dir, 'low_resolution',
        **{'loss.adversarial_weight': 0.0, 'loss.feature_matching_weight': 0.0,
           'discriminator_steps': 0, 'num_steps': 100, 'optimizer.generator.learning_rate': 2e-3},
    )  # fmt: skip
    state = training.train_and_evaluate(config, tmp_path / 'run')
    start = training.train_and_evaluate(
        restoration_config(data_dir, 'low_resolution', num_steps=0), tmp_path / 'none'
    )
    assert_equal_states(state.discriminator.params, start.discriminator.params)
    given = given_config(data_dir, tmp_path, 'low_resolution')
    path, _ = run_task('low_resolution', tmp_path / 'run', given, tmp_path / 'out', num=40)
    table = json.loads(path.with_suffix('.json').read_text())['metrics']
    assert table['trained']['psnr'] > table['bicubic']['psnr'] + 0.3


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_latent_optimization_restores_images_of_the_data_set(config, data_dir, tmp_path, kind):
    config.data.image_size = 16
    config.generator.update(features=(8, 8), strides=(2, 2, 2))
    training.train_and_evaluate(config, tmp_path / 'run')
    given = tiny_config(data_dir)
    given.latent_optimization.update(steps=3, restarts=2)
    with_distance = kind == 'gray'
    given.evaluation.metrics = ('inception_score', 'frechet_distance')[: 1 + with_distance]
    given.evaluation.extractor = str(
        write_artifact(tmp_path / 'tiny.jaxexport', shape='b, 16, 16, 3')
    )
    before = given.copy_and_resolve_references()
    path, line = run_task(kind, tmp_path / 'run', given, tmp_path / 'out', num=9)
    assert 'latent_optimization: psnr' in line
    assert ('FD' in line) == with_distance
    assert given == before
    if kind == 'masked':
        result = json.loads(path.with_suffix('.json').read_text())
        assert result['metrics']['mean_color']['psnr'] > 0


def test_input_of_the_passed_config_is_ignored_for_latent_generators(config, data_dir):
    """For example, when its samples are evaluated."""
    given = given_config(data_dir, data_dir, 'masked')
    given.input.scale = 4
    assert merge_config(config, given).input.to_dict() == config.input.to_dict()


@pytest.mark.parametrize(('num', 'extractor'), [(1, None), (8, 'missing.jaxexport')])
def test_invalid_evaluation_settings_are_reported_before_images_are_restored(
    restoration_run, data_dir, tmp_path, num, extractor
):
    given = given_config(data_dir, tmp_path, 'gray')
    if extractor:
        given.evaluation.extractor = str(tmp_path / extractor)
    options = TaskOptions(workdir=restoration_run('gray'), config=given, out=tmp_path / 'out')
    task = image_to_image.open_task(options, 'gray')
    task = task._replace(restore=lambda inputs: pytest.fail('images were restored'))
    data = restoration_evaluation.load_images(task, num, seed=0)
    with pytest.raises(UserError):
        restoration_evaluation.evaluate(task, data, {}, OutputFolder(tmp_path / 'out'), 'color')


def test_restoration_run_supports_its_own_task_only(restoration_run, tmp_path):
    with pytest.raises(UserError, match=r'input.kind'):
        run_task('masked', restoration_run('gray'), None, tmp_path / 'out')
    with pytest.raises(UserError, match='--mode=translate'):
        sample.run(TaskOptions(workdir=restoration_run('gray'), out=tmp_path / 'out', num=3))
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('kind', BY_KIND)
def test_results_are_never_written_to_the_input_folder(restoration_run, tmp_path, kind):
    own = tmp_path / 'own'
    (own / 'below').mkdir(parents=True)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(own / 'a.png')
    before = (own / 'a.png').read_bytes()
    for out in (own, own / 'below', tmp_path / 'own' / '..' / 'own'):
        with pytest.raises(UserError, match='--images'):
            run_task(kind, restoration_run(kind), None, out, str(own), None)
    assert (own / 'a.png').read_bytes() == before
    assert sorted(path.name for path in own.iterdir()) == ['a.png', 'below']


def test_images_are_restored_in_batches_of_limited_size(restoration_run, tmp_path, monkeypatch):
    options = TaskOptions(workdir=restoration_run('gray'), out=tmp_path)
    task = image_to_image.open_task(options, 'gray')
    sizes = []
    task = task._replace(restore=lambda inputs: sizes.append(len(inputs)) or 255 - inputs)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3)).astype(np.uint8)
    given = image_to_image.UserImages(list('abcde'), pixels)
    monkeypatch.setattr(image_to_image, '_MAX_BATCH_PIXELS', 2 * 4 * 6 * 2**2)
    out = OutputFolder(tmp_path)
    image_to_image.restore_images(task, given, lambda pixels: pixels, out, scale=2)
    assert sizes == [2, 2, 1]
    for name, image in zip('abcde', pixels, strict=True):
        with Image.open(tmp_path / f'{name}.png') as picture:
            np.testing.assert_array_equal(picture, 255 - image)


def test_sizes_not_divisible_by_the_stride_are_rejected(restoration_run, tmp_path):
    (tmp_path / 'own').mkdir()
    Image.fromarray(np.zeros((9, 16, 3), np.uint8)).save(tmp_path / 'own' / 'a.png')
    with pytest.raises(UserError, match=r'16x9'):
        run_task(
            'gray', restoration_run('gray'), None, tmp_path / 'out', str(tmp_path / 'own'), None
        )
    assert not (tmp_path / 'out').exists()


def test_folder_without_images_is_rejected(restoration_run, tmp_path):
    (tmp_path / 'own').mkdir()
    with pytest.raises(UserError, match='--images'):
        run_task(
            'masked', restoration_run('masked'), None, tmp_path / 'out', str(tmp_path / 'own'), None
        )
    assert not (tmp_path / 'out').exists()


def test_images_are_only_resized_if_the_training_images_are(
    restoration_run, finished, data_dir, tmp_path
):
    (tmp_path / 'own').mkdir()
    Image.fromarray(np.zeros((9, 20, 3), np.uint8)).save(tmp_path / 'own' / 'a.png')
    out, _ = run_task(
        'masked', restoration_run('masked'), None, tmp_path / 'out', str(tmp_path / 'own'), None
    )
    with Image.open(out / 'a.png') as picture:
        assert picture.size == (16, 16)
    given = given_config(data_dir, tmp_path, 'masked')
    with pytest.raises(UserError, match='20x9 pixels: this run requires images of 8x8'):
        run_task('masked', finished[0], given, tmp_path / 'no', str(tmp_path / 'own'), None)
    assert not (tmp_path / 'no').exists()


@pytest.mark.parametrize(
    ('changes', 'field'),
    [
        (
            {
                'loss.adversarial_weight': 0.0,
                'loss.feature_matching_weight': 0.0,
                'loss.content_weight': 0.0,
            },
            'loss.content_weight',
        ),
        ({'discriminator_steps': 0}, 'discriminator_steps'),
        ({'discriminator.dropout_rate': 0.1}, 'discriminator.dropout_rate'),
        ({'generator.strides': (2, 1, 2)}, 'generator.strides'),
        ({'generator.block': 'residual'}, 'generator.block'),
        ({'ema.batch_stats': 'standing'}, 'ema.batch_stats'),
        ({'conditional': True, 'generator.norm': 'batch'}, 'conditional'),
        ({'input.kind': 'latent'}, 'loss.content_weight'),
        ({'loss.rotation_weight': 1.0}, 'loss.rotation_weight'),
    ],
)
def test_incompatible_fields_are_rejected(data_dir, changes, field):
    with pytest.raises(ConfigError) as error:
        config_lib.validate(restoration_config(data_dir, 'low_resolution', **changes))
    assert field in error.value.fields


SPECTRAL = {
    norm: {'generator.spectral_norm': True, 'generator.norm': norm} for norm in ('batch', 'none')
}


@pytest.mark.parametrize(
    ('kind', 'changes'),
    [
        slow('latent', {'ema.batch_stats': 'average'}),  # As in the restoration configs.
        slow('low_resolution', SPECTRAL['batch']),
        slow('low_resolution', SPECTRAL['none']),
        *(
            slow(kind, SPECTRAL[norm])
            for kind in ('latent', 'masked', 'gray')
            for norm in ('batch', 'none')
        ),
    ],
    ids=str,
)
def test_resume_is_bit_exact_for_every_type_of_generator(data_dir, tmp_path, kind, changes):
    config = tiny_config(data_dir) if kind == 'latent' else restoration_config(data_dir, kind)
    config.update_from_flattened_dict(changes)
    config.num_steps = 3
    whole = training.train_and_evaluate(config, tmp_path / 'whole')
    for stop in (2, 3):
        config.num_steps = stop
        resumed = training.train_and_evaluate(config, tmp_path / 'parts')
    assert_equal_states(resumed, whole)
    grids = [tmp_path / run / 'samples' / '00000003.png' for run in ('whole', 'parts')]
    assert grids[0].read_bytes() == grids[1].read_bytes()


def test_images_are_not_repeated(restoration_run, data_dir, tmp_path, caplog):
    given = given_config(data_dir, tmp_path, 'gray')
    options = TaskOptions(workdir=restoration_run('gray'), config=given, out=tmp_path / 'out')
    task = image_to_image.open_task(options, 'gray')
    data = restoration_evaluation.load_images(task, 1000, seed=0)
    assert len(data.real) == len(data.source) < 1000
    assert f'has only {len(data.source)} images' in caplog.text


def test_evaluation_restores_each_image_once(restoration_run, data_dir, tmp_path, caplog):
    given = given_config(data_dir, tmp_path, 'gray')
    given.evaluation.metrics = ('frechet_distance',)
    options = TaskOptions(workdir=restoration_run('gray'), config=given, out=tmp_path, num=1000)
    evaluation, _ = evaluate.evaluate_run(options)
    assert evaluation.protocol['num_samples'] == 40
    assert 'has only 40 images' in caplog.text
