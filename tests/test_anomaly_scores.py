"""Anomaly scores and AUROC."""

import csv
import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dcgan_jax import training
from dcgan_jax.data import input_pipeline, sources
from dcgan_jax.metrics.roc import auroc
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import anomaly_scores, detect_anomalies, discriminator_features
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import restore
from tests.conftest import tiny_config

ALL_SCORES = {
    'discriminator',
    'mahalanobis',
    'neighbors',
    'encoder',
    'latent_optimization',
    'rotation',
}


def one_class(data_dir):
    config = tiny_config(data_dir)
    config.data.classes = (1,)
    config.anomaly.update(
        scores=(
            'discriminator',
            'mahalanobis',
            'neighbors',
            'encoder',
            'latent_optimization',
            'rotation',
        ),
        encoder_steps=40,
    )
    config.loss.update(rotation_weight=1.0, generator_rotation_weight=0.2)
    config.latent_optimization.update(steps=3, restarts=2)
    return config


@pytest.fixture(scope='module')
def workdir(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    config = one_class(data_dir)
    config.num_steps = 40
    training.train_and_evaluate(config, folder)
    return folder


def read_scores(out):
    with (out / 'scores.csv').open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def train_as_test_split(monkeypatch):
    """Use the train split as the test split, because the tiny data set has no other split."""
    open_source = sources.open_source

    def open_train(name, split='train', *rest):
        return dataclasses.replace(open_source(name, 'train', *rest), ranges=())

    monkeypatch.setattr(sources, 'open_source', open_train)


def test_data_classes_select_images(config):
    config.data.classes = (2, 0)
    source = sources.open_split(config, 'train')
    whole = input_pipeline.load_split(
        sources.open_source('tiny_images', 'train', config.data_dir), True
    )
    some = input_pipeline.load_split(source, True)
    kept = whole.labels != 1
    np.testing.assert_array_equal(some.images, whole.images[kept])
    np.testing.assert_array_equal(some.labels, whole.labels[kept])
    assert source.split == 'train, classes 2, 0'
    config.data.classes = (3,)
    with pytest.raises(UserError, match=r'data\.classes: class 3 is unknown.* 2 \(2\)'):
        sources.open_split(config, 'train')


def test_test_split_is_scored_with_auroc(workdir, data_dir, tmp_path, train_as_test_split):
    out, line = detect_anomalies.run(TaskOptions(workdir=workdir, out=tmp_path / 'out'))
    result = json.loads((out / 'metrics.json').read_text())
    assert set(result['auroc']) == ALL_SCORES
    assert result['num'] == 40
    assert result['fraction_of_anomalies'] == pytest.approx(27 / 40)
    # The classes differ in color, so the training class is closest to its own images.
    assert result['auroc']['neighbors'] > 0.9
    assert result['auroc']['mahalanobis'] > 0.9
    assert f'neighbors {result["auroc"]["neighbors"]:.4f}' in line
    rows = read_scores(out)
    assert [row['image'] for row in rows] == [str(index) for index in range(40)]
    scores = np.asarray([float(row['encoder']) for row in rows])
    is_anomaly = np.asarray([row['anomaly'] == '1' for row in rows])
    assert auroc(scores, is_anomaly) == pytest.approx(result['auroc']['encoder'], abs=1e-3)
    with Image.open(out / 'encoder.png') as picture:
        assert picture.width == 6 * 10 + 2
    pictures = {path.stem for path in out.glob('*.png')}
    assert pictures == ALL_SCORES
    with Image.open(out / 'rotation.png') as picture:
        first = np.asarray(picture)[2:10, 2:10]
    most_anomalous = max(rows, key=lambda row: float(row['rotation']))['image']
    source = sources.open_source('tiny_images', 'train', str(data_dir))
    np.testing.assert_array_equal(first, source.read(np.asarray([int(most_anomalous)])).images[0])


def test_user_images_are_scored(workdir, data_dir, tmp_path):
    (tmp_path / 'own').mkdir()
    for index in range(3):
        Image.new('RGB', (8, 8), (80 * index, 10, 10)).save(tmp_path / 'own' / f'p{index}.png')
    given = one_class(data_dir)
    given.anomaly.scores = ('discriminator',)
    out, line = detect_anomalies.run(
        TaskOptions(workdir=workdir, config=given, out=tmp_path / 'o', images=tmp_path / 'own')
    )
    assert line == ''
    assert (out / 'scores.csv').read_text().splitlines()[0] == 'image,discriminator'
    assert [row.split(',')[0] for row in (out / 'scores.csv').read_text().splitlines()[1:]] == [
        'p0', 'p1', 'p2',
    ]  # fmt: skip


@pytest.mark.slow
def test_run_of_all_classes_is_rejected(config, tmp_path):
    config.num_steps = 2
    training.train_and_evaluate(config, tmp_path)
    with pytest.raises(UserError, match=r'data\.classes'):
        detect_anomalies.run(TaskOptions(workdir=tmp_path, out=tmp_path / 'out'))
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_scores_do_not_depend_on_other_images(workdir, data_dir):
    trained = restore(workdir)
    run, networks, state = trained.run, trained.networks, trained.state
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    normal = input_pipeline.load_split(sources.open_split(run.config, 'train')).images
    trained = anomaly_scores.ScoringRun(run.config, networks, state, normal, 0)
    forward = anomaly_scores.score(trained, pixels).scores
    backward = anomaly_scores.score(trained, pixels[::-1]).scores
    for name, values in forward.items():
        np.testing.assert_allclose(values, backward[name][::-1], rtol=1e-3, atol=1e-4)


def test_rotation_score_equals_cross_entropy_per_image(workdir):
    trained = restore(workdir)
    networks, state = trained.networks, trained.state
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    d = state.discriminator
    expected = []
    for image in pixels / 127.5 - 1.0:
        rotated = np.stack([np.rot90(image, num_rot90) for num_rot90 in range(4)])
        _, seen = networks.discriminator.apply(
            {'params': d.params, 'batch_stats': d.batch_stats},
            jnp.asarray(rotated, jnp.float32),
            train=False,
            mutable=['rotation'],
        )
        logits = np.asarray(seen['rotation']['logits'][0], np.float64)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected.append(-np.log(np.diag(probabilities)).mean())
    found = discriminator_features.rotation_losses(networks, state, pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_rotation_score_without_rotation_prediction_is_rejected(config, data_dir, tmp_path):
    config.data.classes, config.num_steps = (1,), 2
    training.train_and_evaluate(config, tmp_path)
    with pytest.raises(UserError, match=r'loss\.rotation'):
        detect_anomalies.run(
            TaskOptions(workdir=tmp_path, config=one_class(data_dir), out=tmp_path / 'out')
        )
    assert not (tmp_path / 'out').exists()


def test_auroc_is_the_fraction_of_ordered_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 8, 200).astype(float), rng.random(200) < 0.3
    pairs = scores[positive][:, None] - scores[~positive][None]
    assert auroc(scores, positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert auroc(np.asarray([1.0, 2.0]), np.asarray([False, True])) == 1.0
    with pytest.raises(ValueError, match='both classes'):
        auroc(scores, np.ones(200, bool))
    with pytest.raises(ValueError, match='finite'):
        auroc(np.asarray([np.nan, 1.0]), np.asarray([True, False]))


def test_mahalanobis_distance_uses_a_shrunk_covariance():
    rng = np.random.default_rng(0)
    normal = (rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))).astype(np.float32)
    features = rng.normal(size=(6, 4)).astype(np.float32)
    covariance = np.cov(normal.astype(np.float64), rowvar=False)
    shrunk = 0.9 * covariance + 0.1 * np.eye(4) * np.trace(covariance) / 4
    difference = features - normal.astype(np.float64).mean(axis=0)
    expected = [np.sqrt(row @ np.linalg.inv(shrunk) @ row) for row in difference]
    np.testing.assert_allclose(
        anomaly_scores.mahalanobis_distances(normal, features), expected, rtol=1e-6
    )


def test_neighbors_score_is_a_mean_distance_of_standardized_features():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(50, 3)) * [1, 10, 0.1] + [0, 5, 0]
    normal = np.concatenate([normal, np.full((50, 1), 2.0)], axis=1).astype(np.float32)
    features = (rng.normal(size=(6, 4)) * [2, 20, 0.2, 0] + [0, 5, 0, 2]).astype(np.float32)
    expected = []
    for row in features.astype(np.float64)[:, :3]:  # The fourth feature is constant.
        reference = normal.astype(np.float64)[:, :3]
        difference = (reference - row) / reference.std(0)
        expected.append(np.sort(np.sqrt((difference**2).sum(axis=1)))[:4].mean())
    np.testing.assert_allclose(
        anomaly_scores.neighbor_distances(normal, features, 4), expected, rtol=1e-4
    )


def test_scores_equal_the_published_formulas(workdir):
    """D's negative logit, and AnoGAN's 0.9 mean |x - G(z)| + 0.1 mean |f(x) - f(G(z))|."""
    trained = restore(workdir)
    run, networks, state = trained.run, trained.networks, trained.state
    config = run.config.copy_and_resolve_references().unlock()
    config.anomaly.scores = ('discriminator', 'latent_optimization')
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    scored = anomaly_scores.score(
        anomaly_scores.ScoringRun(config, networks, state, pixels, 0), pixels
    )
    d = state.discriminator

    def apply(image):
        # The tiny discriminator has the stages 'stage_0' and 'stage_1'; the last one is used.
        logits, seen = networks.discriminator.apply(
            {'params': d.params, 'batch_stats': d.batch_stats},
            jnp.asarray(image[None] / 127.5 - 1, jnp.float32),
            train=False,
            mutable=['intermediates'],
        )
        (features,) = seen['intermediates']['stage_1']
        return float(logits[0, 0]), np.asarray(features, np.float64)

    for index, image in enumerate(pixels):
        logit, features = apply(image)
        assert scored.scores['discriminator'][index] == pytest.approx(-logit, rel=1e-4, abs=1e-6)
        made = scored.reconstructions['latent_optimization'][index]
        difference = np.abs(image / 127.5 - made / 127.5).mean()
        expected = 0.9 * difference + 0.1 * np.abs(features - apply(made)[1]).mean()
        # The returned image is rounded to 256 levels.
        assert scored.scores['latent_optimization'][index] == pytest.approx(expected, abs=4e-3)


def test_distance_is_that_of_anogan():
    real, made = (jnp.full((2, 4, 4, 3), value) for value in (0.5, 0.0))
    found = anomaly_scores.distance(lambda x: x.reshape(2, -1) * 4.0, real, made)
    np.testing.assert_allclose(found, 0.9 * 0.5 + 0.1 * 2.0)


def test_heat_map_runs_from_black_through_red_and_yellow_to_white():
    shades = detect_anomalies.heat_map(np.asarray([[[0.0, 1 / 3, 2 / 3, 1.0]]]), 3)[0, 0]
    np.testing.assert_array_equal(shades, [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255] * 3])


def test_scores_that_need_more_training_images_are_rejected(tmp_path):
    """The covariance of a single image would be NaN."""
    (tmp_path / 'set').mkdir()
    (tmp_path / 'own').mkdir()
    for folder in ('set', 'own'):
        Image.new('RGB', (8, 8), (80, 10, 10)).save(tmp_path / folder / 'a.png')
    config = tiny_config(tmp_path / 'set')
    config.dataset, config.num_steps = 'folder', 1
    training.train_and_evaluate(config, tmp_path / 'run')

    def detect(*scores):
        config.anomaly.scores = scores
        return detect_anomalies.run(
            TaskOptions(
                workdir=tmp_path / 'run',
                config=config,
                out=tmp_path / 'out',
                images=tmp_path / 'own',
            )
        )

    with pytest.raises(UserError, match=r"'mahalanobis' needs at least 2 training images.* are 1"):
        detect('discriminator', 'mahalanobis')
    with pytest.raises(UserError, match=r"'neighbors' needs at least 5 .*num_neighbors"):
        detect('neighbors')
    assert not (tmp_path / 'out').exists()
    config.anomaly.num_neighbors = 1
    out, _ = detect('discriminator', 'neighbors')
    (row,) = read_scores(out)
    assert np.isfinite(float(row['discriminator']))
    assert float(row['neighbors']) == pytest.approx(0, abs=1e-2)


def test_images_with_unusual_names_are_cropped_as_in_training_and_scored(
    data_dir, tmp_path, caplog
):
    caplog.set_level('INFO')
    config = one_class(data_dir)
    config.data.image_size, config.num_steps = 8, 1
    training.train_and_evaluate(config, tmp_path / 'run')
    (tmp_path / 'own').mkdir()
    for name, size in {'x\udce9\n': (20, 10), 'e\u0301': (9, 12), 'a,"b': (8, 8)}.items():
        Image.new('RGB', size, (80, 10, 10)).save(tmp_path / 'own' / f'{name}.png')
    given = one_class(data_dir)
    given.anomaly.scores = ('discriminator',)
    out, _ = detect_anomalies.run(
        TaskOptions(
            workdir=tmp_path / 'run',
            config=given,
            out=tmp_path / 'out',
            images=tmp_path / 'own',
        )
    )
    rows = read_scores(out)
    assert [row['image'] for row in rows] == ['a,"b', 'x\\udce9\\n', '\u00e9']
    assert len({row['discriminator'] for row in rows}) == 1
    assert caplog.text.count('resized to 8x8 pixels, as in training') == 1
