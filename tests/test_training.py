"""Complete runs: files, resumption and rejected configs."""

import functools
import importlib
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dcgan_jax import models, parallel, train_state, training
from dcgan_jax.data import image_source, input_pipeline
from dcgan_jax.runtime import sharding
from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.runtime.prng import Purpose, purpose_key
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_step import train_step
from tests.compare import assert_close_states, assert_equal_states
from tests.conftest import slow, slow_except
from tests.test_config import CONFIGS


def test_run_writes_config_samples_and_checkpoints(config, finished):
    tmp_path, state = finished
    assert int(state.step) == 6
    assert json.loads((tmp_path / 'config.json').read_text())['config'] == json.loads(
        json.dumps(config.to_dict())
    )
    assert sorted(p.name for p in (tmp_path / 'samples').iterdir()) == [
        '00000003.png',
        '00000006.png',
    ]
    with Image.open(tmp_path / 'samples' / '00000006.png') as picture:
        assert picture.size == (82, 82)  # 8 * (8 + 2) + 2
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == [2, 4, 6]


@pytest.mark.parametrize('placement', ['stream', slow('device')])
def test_resume_is_bit_exact(config, tmp_path, finished, placement):
    """Test both placements of the data."""
    workdir, whole = finished
    config.data.placement = placement
    for stop in (2, 3, 6):
        config.num_steps = stop
        resumed = training.train_and_evaluate(config, tmp_path / 'parts')
    assert_equal_states(resumed, whole)
    pictures = [folder / 'samples' / '00000006.png' for folder in (workdir, tmp_path / 'parts')]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_stream_and_device_produce_the_same_run(config, tmp_path, finished):
    config.data.placement = 'stream'
    streamed = training.train_and_evaluate(config, tmp_path)
    assert_equal_states(streamed, finished[1])


def test_several_steps_per_call_equal_single_steps(config, tmp_path, finished):
    _, one = finished
    config.steps_per_call = 4  # One call of 4 steps and one of 2.
    four = training.train_and_evaluate(config, tmp_path / 'four')
    # The compiled programs differ in rounding.
    assert_close_states(four, one, rtol=1e-3, atol=1e-5)


def test_train_call_equals_train_steps_with_distinct_keys(config):
    """`train_call` over two steps equals two calls of `train_step` on their batches."""
    mesh = sharding.create_mesh(config.batch_size)
    networks = models.build(config, (8, 8, 3))
    create = functools.partial(train_state.create, config, networks, (8, 8, 3))
    split = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    batches = input_pipeline.batch_indices(config.seed, 0, config.batch_size, 40, num_batches=2)
    abstract_state = parallel.create_abstract_state(create, mesh)
    expected = parallel.initial_state(create, abstract_state)
    step = jax.jit(lambda state, real, key: train_step(state, real, None, key, config))
    norms = []
    for index in range(2):
        # Keys of updates have purpose 1; the key of an update is folded with its step.
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 1), index)
        pixels = (split[batches[index]].astype(np.float64) / 127.5 - 1).astype(np.float32)
        expected, metrics = step(expected, pixels, key)
        norms.append(float(metrics['generator/gradient_norm']))
    state = parallel.initial_state(create, abstract_state)
    before = state.generator.params['project']['kernel']
    call = parallel.train_call(config, mesh, abstract_state, (8, 8, 3))
    state, metrics = call(state, image_source.Examples(split.reshape(40, -1)), batches, None)
    assert_close_states(state, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics['generator/gradient_norm'], norms, rtol=1e-4)
    assert before.is_deleted()  # The state is donated.


def test_seeds_and_purposes_have_distinct_keys():
    """The values of `Purpose` must not change, so that runs remain reproducible."""
    numbers = {
        'INIT': 0,
        'STEP': 1,
        'STANDING_STATISTICS': 2,
        'SAMPLES': 3,
        'LATENT_OPTIMIZATION': 4,
    }
    assert {purpose.name: int(purpose) for purpose in Purpose} == numbers
    found = {
        jax.random.key_data(purpose_key(seed, purpose)).tobytes()
        for seed in range(10)
        for purpose in Purpose
    }
    assert len(found) == 50
    expected = jax.random.fold_in(jax.random.key(7), 3)
    assert purpose_key(7, Purpose.SAMPLES) == expected


def small(name, config):
    """Return the config `name` with narrow networks and the data of `config`."""
    published = importlib.import_module(f'dcgan_jax.configs.{name}').get_config()
    for name in ('dataset', 'data_dir', 'batch_size', 'log_every', 'sample_every', 'conv_impl'):
        published[name] = config[name]
    published.num_steps, published.ema.standing_batches = 2, 1
    published.discriminator_steps = min(published.discriminator_steps, 2)  # Compiles faster.
    published.generator.update(width=0.02, base_size=published.generator.base_size // 4)
    published.discriminator.width = 0.02
    if published.text.embedder:
        published.text.embedder = 'trigrams'  # Needs no package.
    return published


@pytest.mark.parametrize(
    'name', slow_except(CONFIGS, 'cifar10', 'cifar10_tutorial', 'inpainting_cifar10')
)
def test_every_config_trains(name, config, tmp_path):
    published = small(name, config)
    if published.distill.teacher:
        published.distill.teacher = str(tmp_path / 'teacher')
        training.train_and_evaluate(small('cifar10_cpu', config), tmp_path / 'teacher')
    state = training.train_and_evaluate(published, tmp_path / 'run')
    assert int(state.step) == 2


@pytest.mark.parametrize('name', CONFIGS)
def test_update_of_every_config_keeps_the_shapes_of_the_state(name, config):
    config = small(name, config)
    shape = (config.data.image_size or 8,) * 2 + (3,)
    networks = models.build(config, shape, num_classes=3)
    state = jax.eval_shape(lambda: train_state.create(config, networks, shape))
    size = input_pipeline.images_per_step(config)
    real = jax.ShapeDtypeStruct((size, *shape), np.float32)
    labels = jax.ShapeDtypeStruct((size,), np.int32) if config.conditional else None
    key = jax.eval_shape(lambda: jax.random.key(0))
    update = functools.partial(train_step, config=config)
    after, metrics = jax.eval_shape(update, state, real, labels, key)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert {value.shape for value in metrics.values()} == {()}


@pytest.mark.slow
def test_profile_is_written(config, tmp_path):
    config.profile = True
    training.train_and_evaluate(config, tmp_path)
    assert list(tmp_path.rglob('*.xplane.pb'))


def test_run_that_lost_its_checkpoints_is_not_restarted(config, finished_copy):
    tmp_path = finished_copy
    shutil.rmtree(tmp_path / 'checkpoints')
    with pytest.raises(UserError, match='contains no checkpoints'):
        training.train_and_evaluate(config, tmp_path)
    (tmp_path / 'checkpoints').mkdir()
    with pytest.raises(UserError, match='contains no checkpoints'):
        training.train_and_evaluate(config, tmp_path)


@pytest.mark.parametrize(
    ('name', 'make'),
    [
        ('checkpoints', lambda path: path.write_text('')),
        ('checkpoints', lambda path: path.symlink_to('nowhere')),
        ('samples', lambda path: path.symlink_to(path)),
        ('evaluation', lambda path: path.write_text('')),
        ('.lock', lambda path: path.mkdir()),
        ('.lock', os.mkfifo),
        ('rollbacks.json', lambda path: path.mkdir()),
    ],
)
def test_wrong_types_of_files_in_a_workdir_are_rejected(name, make, config, tmp_path):
    make(tmp_path / name)
    with pytest.raises(UserError, match=f'{name} is not a (folder|file)'):
        training.train_and_evaluate(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_run_without_steps_can_be_continued(config, tmp_path):
    config.num_steps = 0
    training.train_and_evaluate(config, tmp_path)
    assert (tmp_path / 'samples' / '00000000.png').exists()
    config.num_steps = 2
    assert int(training.train_and_evaluate(config, tmp_path).step) == 2


def test_infinite_parameters_are_not_saved(config, tmp_path):
    config.generator.norm = config.discriminator.norm = 'none'
    config.optimizer.generator.learning_rate = 3e38
    config.log_every = config.checkpoint_every = 1
    with pytest.raises(TrainingError, match='generator/parameter_norm is inf at step 1'):
        training.train_and_evaluate(config, tmp_path)
    assert list((tmp_path / 'checkpoints').iterdir()) == []


def test_grid_shows_the_ema_and_latest_checkpoints_are_kept(config, tmp_path):
    config.keep_checkpoints = 2
    # Images are distinct, depend only on the parameters, and change at every step.
    config.generator.update(norm='none', weight_init='he_normal')
    config.optimizer.generator.learning_rate, config.ema.rampup_ratio = 0.03, 1.0
    state = training.train_and_evaluate(config, tmp_path)
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == [4, 6]
    generator = models.build(config, (8, 8, 3)).generator
    latents = Sampler(generator, config).latents(config.seed, 64)
    average, live = (
        127.5 * np.asarray(generator.apply({'params': p}, latents, train=False), np.float64) + 127.5
        for p in (state.ema_params, state.generator.params)
    )
    with Image.open(tmp_path / 'samples' / '00000006.png') as picture:
        # The grid has eight rows of eight images with gaps of two pixels.
        grid_images = np.asarray(picture, np.float64)[2:, 2:].reshape(8, 10, 8, 10, 3)[:, :8, :, :8]
    grid_images = grid_images.swapaxes(1, 2).reshape(64, 8, 8, 3)
    assert np.abs(grid_images - average).max() < 0.51
    assert np.abs(grid_images - live).max() > 1


def test_rerunning_a_finished_run_changes_nothing(config, finished, finished_copy):
    tmp_path, state = finished_copy, finished[1]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / 'samples').iterdir()}
    assert_equal_states(training.train_and_evaluate(config, tmp_path), state)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / 'samples').iterdir()} == before


def test_another_config_in_a_workdir_is_rejected(config, finished_copy):
    tmp_path = finished_copy
    before = (tmp_path / 'config.json').read_text()
    config.optimizer.generator.learning_rate = 0.5
    with pytest.raises(UserError, match=r'optimizer.generator.learning_rate: 0.001 -> 0.5'):
        training.train_and_evaluate(config, tmp_path)
    assert (tmp_path / 'config.json').read_text() == before


def test_config_written_by_another_process_is_detected(config, tmp_path, monkeypatch):
    other = config.copy_and_resolve_references()
    other.batch_size, config.num_steps = 16, 0
    prepared = training.prepare(other, tmp_path)
    training.train_and_evaluate(config, tmp_path)
    before = (tmp_path / 'config.json').read_bytes()
    monkeypatch.setattr(training, 'prepare', lambda *_: prepared)
    with pytest.raises(UserError, match=r'a different config.*batch_size'):
        training.train_and_evaluate(other, tmp_path)
    assert (tmp_path / 'config.json').read_bytes() == before


def test_non_finite_loss_stops_the_run_and_keeps_checkpoints(config, tmp_path):
    config.num_steps = 2
    training.train_and_evaluate(config, tmp_path)
    config.num_steps = 6

    def poisoned(*arguments):
        real_call = original(*arguments)

        def call(state, split, batches, teacher):
            state, metrics = real_call(state, split, batches, teacher)
            if int(state.step) == 4:
                metrics['generator/loss'] = metrics['generator/loss'] * np.float32('nan')
            return state, metrics

        return call

    original = parallel.train_call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, 'train_call', poisoned)
        message = r'generator/loss is nan at step 4'
        with pytest.raises(TrainingError, match=message):
            training.train_and_evaluate(config, tmp_path)
    assert [int(p.name) for p in (tmp_path / 'checkpoints').iterdir()] == [2]


def test_batch_size_must_be_divisible_by_devices(config, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, 'devices', lambda: [None] * 3)
    with pytest.raises(UserError, match=r'batch_size=8 is not divisible by the 3 devices: use 9'):
        training.train_and_evaluate(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_unreachable_image_size_leaves_the_workdir_empty(config, tmp_path):
    config.generator.base_size = 4
    with pytest.raises(UserError, match='16x16'):
        training.train_and_evaluate(config, tmp_path)
    assert not (tmp_path / 'config.json').exists()


def test_constant_networks_are_rejected_before_the_workdir_is_created(config, tmp_path):
    config.discriminator.update(norm='instance', features=(8, 8, 8), strides=(2, 2, 2))
    with pytest.raises(UserError, match='1x1 pixels'):
        training.train_and_evaluate(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_penalty_with_batch_norm_in_d_causes_a_warning(config, caplog, tmp_path):
    config.penalty.r1, config.num_steps = 1.0, 0
    training.train_and_evaluate(config, tmp_path / 'run')
    assert "config.penalty.r1 with config.discriminator.norm='batch'" in caplog.text
    caplog.clear()
    config.discriminator.norm = 'none'
    training.train_and_evaluate(config, tmp_path / 'other')
    assert 'config.penalty' not in caplog.text


def test_workdir_that_is_a_file_is_rejected(config, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='not writable'):
        training.train_and_evaluate(config, tmp_path / 'file')


@pytest.mark.slow
def test_corrupt_record_is_rejected_or_skipped_in_both_placements(config, data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / 'data')
    (path,) = (tmp_path / 'data').rglob('*.array_record*')
    content = bytearray(path.read_bytes())
    content[content.index(b'IDAT', 1000) + 8] ^= 255
    path.write_bytes(content)
    config.data_dir = str(tmp_path / 'data')
    config.data.placement = 'stream'
    with pytest.raises(UserError, match=r'record \d+ is corrupt.*config.data.on_corrupt=skip'):
        training.train_and_evaluate(config, tmp_path / 'stream')
    config.data.on_corrupt = 'skip'  # The field may be changed when a run is resumed.
    streamed = training.train_and_evaluate(config, tmp_path / 'stream')
    config.data.placement = 'device'
    assert_equal_states(streamed, training.train_and_evaluate(config, tmp_path / 'device'))
