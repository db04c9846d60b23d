"""Latent exploration and nearest neighbors."""

import json

import numpy as np
import pytest
from PIL import Image

from dcgan_jax import training
from dcgan_jax.data import sources
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import explore
from dcgan_jax.tasks.discriminator_features import DiscriminatorFeatures
from dcgan_jax.tasks.nearest_neighbors import nearest
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.outputs import OutputFolder
from dcgan_jax.tasks.trained_run import restore


@pytest.fixture(scope='module')
def workdir(data_dir, tmp_path_factory):
    from tests.conftest import tiny_config

    folder = tmp_path_factory.mktemp('run')
    training.train_and_evaluate(tiny_config(data_dir), folder)
    return folder


def test_explore_writes_all_pictures(workdir, config, tmp_path):
    config.evaluation.num_real = 30
    out, line = explore.run(
        TaskOptions(workdir=workdir, config=config, out=tmp_path, num=12, arithmetic='0,1,2-3,4+5')
    )
    sizes = {}
    for path in out.glob('*.png'):
        with Image.open(path) as picture:
            # Images of 8 pixels with gaps of 2.
            sizes[path.stem] = (picture.height // 10, picture.width // 10)
    assert sizes == {
        'interpolation': (8, 10), 'truncation': (6, 10), 'directions': (2 * 4, 7),
        'arithmetic': (4, 4), 'neighbors': (8, 11),
    }  # fmt: skip
    with Image.open(out / 'interpolation.gif') as picture:
        assert picture.n_frames > 300
        assert picture.size == (8, 8)
    found = json.loads((out / 'explore.json').read_text())
    assert set(found['median_distance_to_training_images']) == {'pixels', 'features'}
    assert found['num_training_images'] == {'pixels': 40, 'features': 30}
    assert found['num_test_images'] == 0  # The data set has no test split.
    assert 'samples (pixels)' in line


def test_test_images_are_not_repeated(workdir, config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sources, 'open_test_split', lambda config: sources.open_split(config, 'train[:9]')
    )
    out, _ = explore.run(TaskOptions(workdir=workdir, config=config, out=tmp_path, num=12))
    found = json.loads((out / 'explore.json').read_text())
    assert found['num'] == 12
    assert found['num_test_images'] == 9
    # They are training images here.
    assert found['median_distance_to_training_images']['pixels']['test_images'] < 1e-2


def test_slerp_interpolates_on_the_sphere():
    a, b = np.array([3.0, 0.0, 0.0]), np.array([0.0, 3.0, 0.0])
    np.testing.assert_allclose(explore.slerp(a, b, 0.5), [3 / 2**0.5, 3 / 2**0.5, 0])
    np.testing.assert_allclose(explore.slerp(a, b, 1 / 3), [3 * np.cos(np.pi / 6), 1.5, 0])
    np.testing.assert_allclose(explore.slerp(a, 2 * b, 1.0), 2 * b, atol=1e-12)
    np.testing.assert_allclose(explore.slerp(a, 2 * a, 0.5), 1.5 * a)


def test_directions_are_the_largest_singular_vectors():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(6, 40)) * np.array([1, 5, 1, 3, 1, 1])[:, None]
    found = explore.directions({'project': {'kernel': kernel}}, 2)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0)
    left, values, _ = np.linalg.svd(kernel)
    for index in range(2):
        assert abs(found[index] @ left[:, index]) == pytest.approx(1.0)
        assert np.linalg.norm(found[index] @ kernel) == pytest.approx(values[index])


def test_nearest_equals_brute_force():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(7, 5)).astype(np.float32)
    known = rng.normal(size=(9000, 5)).astype(np.float32)  # Processed in several blocks.
    distances, indices = nearest(queries, known, 4)
    distances_to_known = np.linalg.norm(queries[:, None].astype(np.float64) - known[None], axis=2)
    np.testing.assert_array_equal(indices, np.argsort(distances_to_known, axis=1)[:, :4])
    np.testing.assert_allclose(
        distances, np.sort(distances_to_known, axis=1)[:, :4], rtol=1e-3, atol=1e-3
    )


def test_image_is_its_own_nearest_neighbor(workdir):
    trained = restore(workdir)
    run, networks, state = trained.run, trained.networks, trained.state
    made = Sampler(networks.generator, run.config)
    pixels = made(state, made.latents(0, 5))
    extract_features = DiscriminatorFeatures(networks, state)
    features = extract_features(np.concatenate([pixels, pixels[::-1]]))
    distances, indices = nearest(features[5:], features[:5], 1)
    np.testing.assert_array_equal(indices[:, 0], [4, 3, 2, 1, 0])
    np.testing.assert_allclose(distances, 0, atol=1e-2)


def test_arithmetic_of_a_minus_a_plus_b_is_b(workdir, tmp_path):
    """A - A + B is B."""
    trained = restore(workdir)
    run, networks, state = trained.run, trained.networks, trained.state
    sampler = Sampler(networks.generator, run.config)
    made = explore.LatentExplorer(run, networks, state, sampler, 3)
    explore.draw_arithmetic(made, OutputFolder(tmp_path), [[1, 2], [1, 2], [7]])
    with Image.open(tmp_path / 'arithmetic.png') as picture:
        pixels = np.asarray(picture)
    expected = made.generate(sampler.latents(3, 8)[7:])
    got = pixels[-10:-2, -10:-2].reshape(1, 8, 8, 3)
    assert np.abs(got.astype(int) - expected).max() <= 1


class Recorder:
    """Test double of `LatentExplorer` with known latents that records the drawn latents."""

    seed = 3

    def __init__(self):
        self.sampler, self.drawn = self, []

    def latents(self, seed, count):
        """Latent i is ((2 i)^2, (2 i + 1)^2)."""
        assert seed == 3
        return np.arange(2.0 * count).reshape(count, 2) ** 2

    def generate(self, latents):
        self.drawn.append(np.asarray(latents))
        return np.zeros((len(latents), 8, 8, 3), np.uint8)


def test_arithmetic_is_first_mean_minus_second_plus_third(tmp_path):
    made = Recorder()
    explore.draw_arithmetic(made, OutputFolder(tmp_path), [[0, 2], [1], [3]])
    first, second, third, result = made.drawn
    np.testing.assert_array_equal(first, [[0, 1], [16, 25], [8, 13]])
    np.testing.assert_array_equal(second, [[4, 9], [4, 9]])
    np.testing.assert_array_equal(third, [[36, 49], [36, 49]])
    np.testing.assert_array_equal(result, [[8 - 4 + 36, 13 - 9 + 49]])


def test_truncation_scales_the_same_latents_row_by_row(tmp_path):
    made = Recorder()
    explore.draw_truncation(made, OutputFolder(tmp_path))
    (drawn,) = made.drawn
    assert drawn.shape == (60, 2)
    for row, scale in enumerate([0, 0.25, 0.5, 0.75, 1, 1.25]):
        expected = [[scale * (2 * i) ** 2, scale * (2 * i + 1) ** 2] for i in range(10)]
        np.testing.assert_allclose(drawn[10 * row : 10 * row + 10], expected)


def test_interpolation_visits_each_latent(tmp_path):
    made = Recorder()
    explore.draw_interpolation(made, OutputFolder(tmp_path))
    picture, animation = made.drawn
    assert (picture.shape, animation.shape) == ((80, 2), (360, 2))
    latents = np.asarray([[(2 * i) ** 2, (2 * i + 1) ** 2] for i in range(9)])
    np.testing.assert_allclose(picture[::10], latents[:8], atol=1e-9)
    np.testing.assert_allclose(picture[9::10], latents[1:], atol=1e-9)
    np.testing.assert_allclose(animation[::40], latents, atol=1e-9)
    # The last 40 frames return to the first latent, which is not repeated.
    lengths = np.linalg.norm(animation[320:], axis=1)
    expected = np.linspace(np.linalg.norm(latents[8]), 1, 41)[:40]
    np.testing.assert_allclose(lengths, expected, rtol=1e-6)


@pytest.mark.parametrize('text', ['', '1', '1-2', '1+2-3', '1,-2+3', 'a-b+c', '1-2+1000000'])
def test_invalid_arithmetic_is_rejected(text):
    with pytest.raises(UserError, match='--arithmetic='):
        explore.parse_arithmetic(text)
