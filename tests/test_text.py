"""Text conditioning: embeddings, captions, the matching-aware loss, prompts, classification."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image

from dcgan_jax import run_dir, training
from dcgan_jax.data import captions, degradations, input_pipeline, sources
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import classify_samples, explore, export, sample
from dcgan_jax.tasks.latent_optimization import LatentOptimizer
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import restore
from tests.conftest import tiny_config
from tests.extractors import write_artifact

TEMPLATES = ('a {}', 'one more {}')
NAMES = ('red_cat', 'dog', 'bird')


def text_config(data_dir):
    config = tiny_config(data_dir)
    config.conditional = True
    config.text.update(embedder='trigrams', templates=TEMPLATES)
    return config


@pytest.fixture(scope='module')
def workdir(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    training.train_and_evaluate(text_config(data_dir), folder)
    return folder


def test_restored_run_contains_its_caption_embeddings(workdir):
    trained = restore(workdir)
    run, state = trained.run, trained.state
    # The data set's classes are named '0', '1' and '2'.
    texts = ['a 0', 'one more 0', 'a 1', 'one more 1', 'a 2', 'one more 2']
    expected = captions.embed(run.config, texts)
    for network in (state.generator, state.discriminator):
        np.testing.assert_array_equal(network.captions['condition']['table'], expected)
    assert not {'captions'} & state.generator.params.keys()


def test_prompt_that_is_a_caption_generates_the_same_images(workdir, tmp_path):
    trained = restore(workdir)
    run, networks, state = trained.run, trained.networks, trained.state
    sampler = Sampler(networks.generator, run.config)
    sample.run(TaskOptions(workdir=workdir, out=tmp_path, num=6, prompt=['a 2', 'a 0']))
    with np.load(tmp_path / 'samples.npz', allow_pickle=False) as arrays:
        pixels, latents = arrays['images'], arrays['latents']
        assert arrays['labels'].tolist() == [0, 1] * 3
    # Samples of classes 2 and 0 cycle through their captions.
    by_class = sampler(state, latents, np.asarray([2, 0] * 3, np.int32))
    first = np.asarray([0, 1, 4, 5])
    np.testing.assert_array_equal(pixels[first], by_class[first])
    assert (pixels[[2, 3]] != by_class[[2, 3]]).any()  # These have the second captions.


def test_samples_of_a_class_cycle_through_its_captions(workdir):
    """Twelve images of one latent cycle through six captions."""
    trained = restore(workdir)
    run, networks, state = trained.run, trained.networks, trained.state
    sampler = Sampler(networks.generator, run.config)
    assert sampler.classes.tolist() == [0, 1, 2]
    pixels = sampler(state, np.ones((12, 4), np.float32))
    assert len(np.unique(pixels.reshape(12, -1), axis=0)) == 6
    np.testing.assert_array_equal(pixels[:6], pixels[6:])
    of_one = sampler(state, np.ones((4, 4), np.float32), np.full(4, 1, np.int32))
    assert len(np.unique(of_one.reshape(4, -1), axis=0)) == 2
    np.testing.assert_array_equal(of_one[:2], of_one[2:])


def test_interpolations_use_a_single_caption(workdir):
    trained = restore(workdir)
    run, networks, state = trained.run, trained.networks, trained.state
    sampler = Sampler(networks.generator, run.config)
    made = explore.LatentExplorer(run, networks, state, sampler, 0)
    pixels = made.generate(np.ones((9, 4)))
    np.testing.assert_array_equal(pixels, np.repeat(pixels[:1], 9, axis=0))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'prompt': ['x'], 'classes': ['0']}, '--classes'),
        ({'prompt': ['x', ' ']}, '--prompt is empty'),
        ({'prompt': ['a cat', 'a \udcff']}, '--prompt'),
    ],
)
def test_invalid_prompts_are_rejected(workdir, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        sample.run(TaskOptions(workdir=workdir, out=tmp_path / 'out', num=2, **options))
    assert not (tmp_path / 'out').exists()


def test_prompts_and_classification_need_a_conditional_run(config, tmp_path):
    config.num_steps = 1
    training.train_and_evaluate(config, tmp_path / 'run')
    with pytest.raises(UserError, match='--prompt'):
        sample.run(
            TaskOptions(workdir=tmp_path / 'run', out=tmp_path / 'out', num=2, prompt=['a cat'])
        )
    with pytest.raises(UserError, match='conditional'):
        classify_samples.run(TaskOptions(workdir=tmp_path / 'run', out=tmp_path / 'out', num=2))
    assert not (tmp_path / 'out').exists()


def test_classification_of_samples_of_one_class_is_rejected(data_dir, tmp_path):
    config = text_config(data_dir)
    config.data.classes, config.num_steps, config.text.mismatch_weight = (1,), 0, 0.0
    config.evaluation.extractor = str(write_artifact(tmp_path / 'tiny.jaxexport'))
    training.train_and_evaluate(config, tmp_path / 'run')
    options = TaskOptions(workdir=tmp_path / 'run', out=tmp_path / 'out', config=config, num=4)
    with pytest.raises(UserError, match='fewer than two classes'):
        classify_samples.run(options)
    assert not (tmp_path / 'out').exists()


def test_accuracies_of_samples_are_reported(workdir, tmp_path, monkeypatch):
    monkeypatch.setenv('DCGAN_JAX_CACHE', str(tmp_path / 'cache'))
    given = text_config(json.loads((workdir / 'config.json').read_text())['config']['data_dir'])
    given.evaluation.extractor = str(write_artifact(tmp_path / 'tiny.jaxexport'))
    given.evaluation.num_real = 40
    options = TaskOptions(workdir=workdir, config=given, out=tmp_path / 'out', num=12)
    out, line = classify_samples.run(options)
    found = json.loads((out / 'classification.json').read_text())
    # The classifier is fitted to other images of the same split; the classes differ in color.
    assert found['metrics']['real_images'] == 1.0
    assert found['metrics']['samples'] == np.mean(list(found['accuracy_by_class'].values()))
    assert 'real images 100.00%' in line
    assert found['num_real'] == 28  # The other 12 of 40 images are classified.
    assert 'SVM fitted to 28 images' in line
    with Image.open(out / 'classification.png') as picture:
        assert (picture.height // 10, picture.width // 10) == (3, 4)
    monkeypatch.setattr(classify_samples, '_NUM_SAMPLES', 10)
    monkeypatch.setattr(classify_samples, '_MAX_NUM_REAL', 15)
    _, line = classify_samples.run(dataclasses.replace(options, num=None))
    assert 'SVM fitted to 15 images' in line


def test_classifier_is_tested_on_other_images(data_dir):
    config = text_config(data_dir)
    source = sources.open_split(config, 'train')
    run = run_dir.Run(config, source.image_shape, source.class_names, source.identity)
    train_images, test_images = classify_samples._real_images(run, config, (20, 15), 0)
    assert (len(train_images.images), len(test_images.images)) == (20, 15)
    order = input_pipeline.batch_indices(0, 0, 35, len(source))[0]
    assert len(set(order.tolist())) == 35
    drawn = source.read(order).images
    np.testing.assert_array_equal(np.concatenate([test_images.images, train_images.images]), drawn)
    # If there are too few images, both sets have half of them.
    train_images, test_images = classify_samples._real_images(run, config, (1000, 1000), 0)
    assert abs(len(train_images.images) - len(test_images.images)) <= 1
    assert len(train_images.images) + len(test_images.images) == len(source)
    # With two disjoint splits, both numbers are as requested.
    config.data.split, config.evaluation.split = 'train[:20]', 'train[20:]'
    train_images, test_images = classify_samples._real_images(run, config, (1000, 5), 0)
    assert (len(train_images.images), len(test_images.images)) == (20, 5)
    config.data.split = config.evaluation.split = 'train[:20]+train[19:]'
    with pytest.raises(UserError, match='contains images more than once'):
        classify_samples._real_images(run, config, (20, 15), 0)
    config.data.split, config.evaluation.split = 'train[:20]', 'train[19:]'
    with pytest.raises(UserError, match=r"'train\[:20\]' and .* overlap"):
        classify_samples._real_images(run, config, (20, 15), 0)


def test_classify_by_discriminator_selects_the_largest_logit(workdir):
    trained = restore(workdir)
    networks, state = trained.networks, trained.state
    pixels = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    d = state.discriminator
    scores = np.stack(
        [
            networks.discriminator.apply(
                {'params': d.params, **d.statistics},
                jnp.asarray(pixels / 127.5 - 1, jnp.float32),
                jnp.full(7, 2 * label, jnp.int32),
                train=False,
            )[:, 0]
            for label in range(3)
        ]
    )
    got = classify_samples.classify_by_discriminator(
        networks, state, pixels, np.arange(3, dtype=np.int32)
    )
    np.testing.assert_array_equal(got, scores.argmax(axis=0))
    of_two = classify_samples.classify_by_discriminator(
        networks, state, pixels, np.asarray([0, 2], np.int32)
    )
    np.testing.assert_array_equal(of_two, 2 * scores[[0, 2]].argmax(axis=0))


@pytest.mark.slow
def test_captions_with_minibatch_stddev_and_several_updates_of_d(data_dir, tmp_path):
    config = text_config(data_dir)
    config.discriminator.minibatch_stddev, config.discriminator_steps = 4, 2
    config.num_steps = 2
    state = training.train_and_evaluate(config, tmp_path)
    assert int(state.discriminator.step) == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.generator.params))


@pytest.mark.slow
def test_latent_optimization_works_with_captions(workdir):
    """More steps reconstruct generated images better."""
    trained = restore(workdir)
    run, networks, state = trained.run, trained.networks, trained.state
    own = run.config.copy_and_resolve_references().unlock()
    own.input.kind, own.input.scale = 'low_resolution', 2
    own.latent_optimization.update(restarts=3, prior=0.0)  # One restart per class.
    sampler = Sampler(networks.generator, own)
    real = sampler(state, sampler.latents(0, 3))
    given = degradations.sample_inputs(
        jax.random.key(0), own, jnp.asarray(real / 127.5 - 1, jnp.float32)
    )
    errors = []
    for steps in (1, 100):
        own.latent_optimization.steps = steps
        made = LatentOptimizer(networks, own, sampler)(state, np.asarray(given))
        assert made.shape == real.shape
        errors.append(np.abs(made.astype(float) - real).mean())
    assert errors[1] < errors[0]


def test_exported_program_accepts_classes(workdir, tmp_path):
    trained = restore(workdir)
    run, networks, state = trained.run, trained.networks, trained.state
    export.run(TaskOptions(workdir=workdir, out=tmp_path))
    program = jax_export.deserialize(bytearray((tmp_path / 'generator.jaxexport').read_bytes()))
    sampler = Sampler(networks.generator, run.config)
    latents = sampler.latents(0, 3)
    labels = np.asarray([2, 0, 1], np.int32)
    # Three images of different classes have the first captions.
    expected = sampler(state, latents, labels)
    np.testing.assert_array_equal(program.call(latents, labels), expected)
