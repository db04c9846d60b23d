"""Scores of strangeness, and how they are measured."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dcgan_jax import training
from dcgan_jax.data import input_pipeline, sources
from dcgan_jax.metrics.roc import auroc
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import anomaly_scores, discriminator_features
from dcgan_jax.tasks import detect_anomalies as task
from dcgan_jax.tasks.trained_run import restore
from tests.conftest import tiny_config

SIX = {'discriminator', 'mahalanobis', 'neighbors', 'encoder', 'latent_optimization', 'rotation'}


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
def test_split_is_train(monkeypatch):
    """The tiny data set has no other split."""
    open_source = sources.open_source
    monkeypatch.setattr(
        sources, 'open_source', lambda name, split='train', *rest: open_source(name, 'train', *rest)
    )


def test_classes_are_chosen(config):
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


def test_images_of_other_classes_are_scored(workdir, data_dir, tmp_path, test_split_is_train):
    out, line = task.detect_anomalies(workdir, None, tmp_path / 'out', None, None, 0)
    result = json.loads((out / 'metrics.json').read_text())
    assert set(result['auroc']) == SIX
    assert result['num'] == 40
    assert result['fraction_of_anomalies'] == pytest.approx(27 / 40)
    # Kinds differ in color: what was learnt from is nearest to itself.
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
    shown = {path.stem for path in out.glob('*.png')}
    assert shown == SIX
    with Image.open(out / 'rotation.png') as picture:
        first = np.asarray(picture)[2:10, 2:10]
    strangest = max(rows, key=lambda row: float(row['rotation']))['image']
    source = sources.open_source('tiny_images', 'train', str(data_dir))
    np.testing.assert_array_equal(first, source.read(np.asarray([int(strangest)])).images[0])


def test_the_users_pictures_are_scored(workdir, data_dir, tmp_path):
    (tmp_path / 'own').mkdir()
    for index in range(3):
        Image.new('RGB', (8, 8), (80 * index, 10, 10)).save(tmp_path / 'own' / f'p{index}.png')
    given = one_class(data_dir)
    given.anomaly.scores = ('discriminator',)
    out, line = task.detect_anomalies(
        workdir, given, tmp_path / 'o', str(tmp_path / 'own'), None, 0
    )
    assert line == ''
    assert (out / 'scores.csv').read_text().splitlines()[0] == 'image,discriminator'
    assert [row.split(',')[0] for row in (out / 'scores.csv').read_text().splitlines()[1:]] == [
        'p0', 'p1', 'p2',
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_of_all_classes_has_no_anomalies(config, tmp_path):
    config.num_steps = 2
    training.train_and_evaluate(config, tmp_path)
    with pytest.raises(UserError, match=r'data\.classes'):
        task.detect_anomalies(tmp_path, None, tmp_path / 'out', None, None, 0)
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_scores_do_not_depend_on_the_images_beside(workdir, data_dir):
    trained = restore(workdir)
    run, networks, state = trained.run, trained.networks, trained.state
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    normal = input_pipeline.load_split(sources.open_split(run.config, 'train')).images
    trained = anomaly_scores.ScoringRun(run.config, networks, state, normal, 0)
    forwards = anomaly_scores.score(trained, pixels).scores
    backwards = anomaly_scores.score(trained, pixels[::-1]).scores
    for name, values in forwards.items():
        np.testing.assert_allclose(values, backwards[name][::-1], rtol=1e-3, atol=1e-4)


def test_turned_images_are_scored_by_the_guesses_of_one_at_a_time(workdir):
    trained = restore(workdir)
    networks, state = trained.networks, trained.state
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    d = state.discriminator
    expected = []
    for image in pixels / 127.5 - 1.0:
        shown = np.stack([np.rot90(image, turns) for turns in range(4)])
        _, seen = networks.discriminator.apply(
            {'params': d.params, 'batch_stats': d.batch_stats},
            jnp.asarray(shown, jnp.float32),
            train=False,
            mutable=['rotation'],
        )
        guesses = np.asarray(seen['rotation']['logits'][0], np.float64)
        chances = np.exp(guesses) / np.exp(guesses).sum(axis=1, keepdims=True)
        expected.append(-np.log(np.diag(chances)).mean())
    found = discriminator_features.rotation_losses(networks, state, pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_turns_are_not_asked_of_a_run_that_never_guessed_them(config, data_dir, tmp_path):
    config.data.classes, config.num_steps = (1,), 2
    training.train_and_evaluate(config, tmp_path)
    with pytest.raises(UserError, match=r'loss\.rotation'):
        task.detect_anomalies(tmp_path, one_class(data_dir), tmp_path / 'out', None, None, 0)
    assert not (tmp_path / 'out').exists()


def test_auroc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 8, 200).astype(float), rng.random(200) < 0.3
    pairs = scores[positive][:, None] - scores[~positive][None]
    assert auroc(scores, positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert auroc(np.asarray([1.0, 2.0]), np.asarray([False, True])) == 1.0
    with pytest.raises(ValueError, match='both classes'):
        auroc(scores, np.ones(200, bool))
    with pytest.raises(ValueError, match='finite'):
        auroc(np.asarray([np.nan, 1.0]), np.asarray([True, False]))


def test_mahalanobis_is_the_textbooks_with_a_shrunk_covariance():
    rng = np.random.default_rng(0)
    normal = (rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))).astype(np.float32)
    features = rng.normal(size=(6, 4)).astype(np.float32)
    covariance = np.cov(normal.astype(np.float64), rowvar=False)
    shrunk = 0.9 * covariance + 0.1 * np.eye(4) * np.trace(covariance) / 4
    apart = features - normal.astype(np.float64).mean(axis=0)
    expected = [np.sqrt(row @ np.linalg.inv(shrunk) @ row) for row in apart]
    np.testing.assert_allclose(
        anomaly_scores.mahalanobis_distances(normal, features), expected, rtol=1e-6
    )


def test_the_neighbors_score_is_a_mean_distance_between_standardized_features():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(50, 3)) * [1, 10, 0.1] + [0, 5, 0]
    normal = np.concatenate([normal, np.full((50, 1), 2.0)], axis=1).astype(np.float32)
    features = (rng.normal(size=(6, 4)) * [2, 20, 0.2, 0] + [0, 5, 0, 2]).astype(np.float32)
    expected = []
    for row in features.astype(np.float64)[:, :3]:  # The fourth is the same everywhere.
        apart = (normal.astype(np.float64)[:, :3] - row) / normal.astype(np.float64)[:, :3].std(0)
        expected.append(np.sort(np.sqrt((apart**2).sum(axis=1)))[:4].mean())
    np.testing.assert_allclose(
        anomaly_scores.neighbor_distances(normal, features, 4), expected, rtol=1e-4
    )


def test_scores_are_those_of_their_papers_image_by_image(workdir):
    """D's logit, negated; AnoGAN's 0.9 mean |x - G(z)| + 0.1 mean |f(x) - f(G(z))|."""
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
        # Stages of the tiny discriminator: 'stage_0', and the last, 'stage_1'.
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
        apart = np.abs(image / 127.5 - made / 127.5).mean()
        expected = 0.9 * apart + 0.1 * np.abs(features - apply(made)[1]).mean()
        # The image that is returned has been rounded to 256 levels.
        assert scored.scores['latent_optimization'][index] == pytest.approx(expected, abs=4e-3)


def test_the_distance_is_anogans():
    real, made = (jnp.full((2, 4, 4, 3), value) for value in (0.5, 0.0))
    found = anomaly_scores.distance(lambda x: x.reshape(2, -1) * 4.0, real, made)
    np.testing.assert_allclose(found, 0.9 * 0.5 + 0.1 * 2.0)


def test_heat_goes_from_black_over_red_and_yellow_to_white():
    shades = task.heat_map(np.asarray([[[0.0, 1 / 3, 2 / 3, 1.0]]]), 3)[0, 0]
    np.testing.assert_array_equal(shades, [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255] * 3])


def test_scores_that_need_more_training_images_are_refused(tmp_path):
    """A covariance of one image is NaN."""
    (tmp_path / 'set').mkdir()
    (tmp_path / 'own').mkdir()
    for folder in ('set', 'own'):
        Image.new('RGB', (8, 8), (80, 10, 10)).save(tmp_path / folder / 'a.png')
    config = tiny_config(tmp_path / 'set')
    config.dataset, config.num_steps = 'folder', 1
    training.train_and_evaluate(config, tmp_path / 'run')

    def detect(*scores):
        config.anomaly.scores = scores
        return task.detect_anomalies(
            tmp_path / 'run', config, tmp_path / 'out', str(tmp_path / 'own'), None, 0
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


def test_photos_with_odd_names_are_cropped_as_in_training_and_scored(data_dir, tmp_path, caplog):
    caplog.set_level('INFO')
    config = one_class(data_dir)
    config.data.image_size, config.num_steps = 8, 1
    training.train_and_evaluate(config, tmp_path / 'run')
    (tmp_path / 'own').mkdir()
    for name, size in {'x\udce9\n': (20, 10), 'e\u0301': (9, 12), 'a,"b': (8, 8)}.items():
        Image.new('RGB', size, (80, 10, 10)).save(tmp_path / 'own' / f'{name}.png')
    given = one_class(data_dir)
    given.anomaly.scores = ('discriminator',)
    out, _ = task.detect_anomalies(
        tmp_path / 'run', given, tmp_path / 'out', str(tmp_path / 'own'), None, 0
    )
    rows = read_scores(out)
    assert [row['image'] for row in rows] == ['a,"b', 'x\\udce9\\n', '\u00e9']
    assert len({row['discriminator'] for row in rows}) == 1
    assert caplog.text.count('resized to 8x8 pixels, as in training') == 1
