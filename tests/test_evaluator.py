import functools
import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import training
from dcgan_jax.data import image_source, input_pipeline, sources
from dcgan_jax.metrics import evaluator as evaluator_lib
from dcgan_jax.metrics import kernel_distance as kernel_distance_lib
from dcgan_jax.metrics import statistics as statistics_lib
from dcgan_jax.metrics.evaluator import Evaluator
from dcgan_jax.metrics.frechet_distance import frechet_distance
from dcgan_jax.metrics.inception_score import inception_score
from dcgan_jax.metrics.kernel_distance import kernel_distance
from dcgan_jax.metrics.precision_recall import precision_recall
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import evaluate, sample
from dcgan_jax.tasks.options import TaskOptions
from tests.extractors import reference as extract
from tests.extractors import write_artifact

NOT_KERNEL = ('frechet_distance', 'inception_score', 'precision_recall')


class Source:
    """In-memory `image_source.ImageSource` of 1,100 images."""

    name, split, image_shape, read_settings = 'random/1.0.0', 'train', (8, 8, 3), {}

    def __init__(self):
        self.images = np.random.default_rng(3).integers(0, 200, (1100, 8, 8, 3), np.uint8)

    def __len__(self):
        return len(self.images)

    @property
    def digest(self):
        return self.compute_digest()

    def compute_digest(self):
        return hashlib.sha256(self.images.tobytes()).hexdigest()

    def read(self, indices):
        return image_source.Examples(self.images[indices])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('DCGAN_JAX_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def config(config, tmp_path):
    config.evaluation.extractor = str(write_artifact(tmp_path / 'tiny.jaxexport'))
    config.evaluation.metrics = NOT_KERNEL
    config.evaluation.num_samples = 40
    config.evaluation.batch_size = 16
    return config


def only(folder, pattern):
    (path,) = folder.glob(f'{pattern}.json')
    return path


def expected_metrics(fake, real, chosen):
    """Return the metrics of images with the features of `tests.extractors.reference`."""
    (fake_features, logits), (features, _) = extract(fake), extract(real)
    two = statistics_lib.statistics(fake_features)[:2], statistics_lib.statistics(features)[:2]
    kept = features[chosen]
    kernel = kernel_distance(fake_features, kept, subsets=3) if len(kept) >= 1000 else None
    return {
        'frechet_distance': frechet_distance(*two[0], *two[1]),
        'kernel_distance': kernel and kernel[0],
        'inception_score': inception_score(logits)[0],
        **precision_recall(kept, fake_features)._asdict(),
    }


def test_all_metrics_of_images_in_uneven_batches(config, monkeypatch):
    three = functools.partial(kernel_distance, subsets=3)  # 100 subsets would take seconds.
    monkeypatch.setattr(kernel_distance_lib, 'kernel_distance', three)
    source = Source()
    config.evaluation.metrics = (*NOT_KERNEL, 'kernel_distance')
    config.evaluation.num_real = 1000
    fake = np.random.default_rng(4).integers(20, 256, (1001, 8, 8, 3), np.uint8)
    batches = iter([fake[:1], fake[1:400], fake[400:405], fake[405:]])
    values, labels, protocol = Evaluator(config.evaluation, source)(batches, 1001, {'step': 5})
    expected = expected_metrics(fake, source.images, np.arange(1000) * 1100 // 1000)
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert labels['frechet_distance'] == 'FD (tiny)'
    assert labels['kernel_distance_std'] == 'KD (tiny) std'
    assert labels.keys() == values.keys()
    assert protocol['extractor_sha256']
    counts = {'num_samples': 1001, 'num_real': 1100, 'num_real_features': 1000, 'step': 5}
    assert counts.items() <= protocol.items()
    assert (protocol['data_set'], protocol['split']) == ('random/1.0.0', 'train')


def test_protocol_identifies_the_data(config, tmp_path, caplog):
    """The protocol shows other pixels, image sizes, and too few real images."""

    def mean_color(images):
        mean = images.astype(jnp.float32).mean((1, 2))
        return jnp.concatenate([mean, mean**2], axis=1), mean

    path = write_artifact(tmp_path / 'any.jaxexport', function=mean_color, shape='b, h, w, 3')
    config.evaluation.extractor = str(path)
    config.evaluation.metrics = ('frechet_distance',)
    one, other = Source(), Source()
    other.images = 255 - other.images
    small = Source()
    small.images = small.images[:5]
    fake = np.zeros((40, 8, 8, 3), np.uint8)
    first, second, third = (
        Evaluator(config.evaluation, source)([fake], 40, {}).protocol
        for source in (one, other, small)
    )
    assert first.pop('data_sha256') != second.pop('data_sha256')
    assert first == second
    assert not first['singular_covariance']
    assert third['singular_covariance']
    assert '5 real images' in caplog.text
    large = Evaluator(config.evaluation, one)([np.tile(fake, (1, 2, 2, 1))], 40, {}).protocol
    assert (large['image_shape'], large['real_image_shape']) == ([16, 16, 3], [8, 8, 3])
    assert '16x16' in caplog.text


def test_only_requested_metrics_are_computed(config):
    config.evaluation.metrics = ('inception_score',)
    evaluator = Evaluator(config.evaluation, Source())
    result = evaluator([np.zeros((10, 8, 8, 3), np.uint8)], 10, {})
    assert result.values == pytest.approx({'inception_score': 1, 'inception_score_std': 0})
    assert 'num_real' not in result.protocol


def test_user_supplied_statistics_are_used_for_the_frechet_distance(config, tmp_path):
    source = Source()
    fake = source.images[::2] // 2
    config.evaluation.metrics = ('frechet_distance', 'precision_recall')
    config.evaluation.num_real = 30
    evaluator = Evaluator(config.evaluation, source)
    full = evaluator([fake], len(fake), {})
    mu, sigma, n = statistics_lib.statistics(extract(source.images)[0])
    sha256 = full.protocol['extractor_sha256']
    np.savez(tmp_path / 's.npz', mu=mu, sigma=sigma, n=n, extractor_sha256=sha256)
    config.evaluation.reference = str(tmp_path / 's.npz')
    result = Evaluator(config.evaluation, source)([fake], len(fake), {})
    assert result.values == pytest.approx(full.values, rel=1e-3)
    assert result.protocol['reference'] == 's.npz'
    assert len(result.protocol['reference_sha256']) == 64
    assert result.protocol['num_real'] == 1100


def test_too_few_images_are_rejected_before_sampling(config):
    def never():
        pytest.fail('an image was drawn')
        yield

    with pytest.raises(UserError, match='number of samples is 9, and inception_score needs'):
        Evaluator(config.evaluation, Source())(never(), 9, {})
    config.evaluation.metrics = ('kernel_distance',)
    config.evaluation.num_real = 999
    with pytest.raises(UserError, match=r'num_real is 999, and kernel_distance needs .* 1000'):
        Evaluator(config.evaluation, Source())


def test_protocol_has_the_settings_with_which_images_are_read(config):
    source = Source()
    source.read_settings = {'on_corrupt': 'skip', 'max_pixels': 100}
    result = Evaluator(config.evaluation, source)([source.images[:40]], 40, {})
    assert {'on_corrupt': 'skip', 'max_pixels': 100}.items() <= result.protocol.items()


def test_extractor_of_another_image_size_is_rejected(config, tmp_path):
    path = write_artifact(tmp_path / 'large.jaxexport', shape='b, 16, 16, 3')
    config.evaluation.extractor = str(path)
    with pytest.raises(UserError, match=r'16x16.*8x8'):
        Evaluator(config.evaluation, Source())


def test_evaluate_run_equals_evaluating_its_samples(config, tmp_path):
    run = tmp_path / 'run'
    training.train_and_evaluate(config, run)
    options = TaskOptions(workdir=run, seed=7)
    result, path = evaluate.evaluate_run(options)
    assert path == only(run / 'evaluation', '00000006_seed7_tiny_40_*')
    written = json.loads(path.read_text())
    assert written == result.values | {'labels': result.labels, 'protocol': result.protocol}
    assert (written['protocol']['step'], written['protocol']['seed']) == (6, 7)

    sample.run(TaskOptions(workdir=run, out=tmp_path / 'out', num=40, seed=7))
    with np.load(tmp_path / 'out' / 'samples.npz') as arrays:
        real = input_pipeline.load_split(
            sources.open_source('tiny_images', 'train', config.data_dir)
        ).images
        images = arrays['images']
        expected = expected_metrics(images, real, np.arange(40))
    del expected['kernel_distance']
    actual = {name: result.values[name] for name in expected}
    assert actual == pytest.approx(expected, rel=1e-3, abs=1e-6)
    scored, _ = evaluate.evaluate_images(
        TaskOptions(workdir=run, images=tmp_path / 'out' / 'samples.npz')
    )
    assert scored.values == pytest.approx(result.values, rel=1e-6)
    content = hashlib.sha256(images.tobytes()).hexdigest()
    assert scored.protocol['images_sha256'] == content
    only(run / 'evaluation', 'images_samples_tiny_40_*')

    config.evaluation.metrics = ('inception_score',)
    config.data_dir = ''
    config.batch_size = 3  # Has no effect: only `evaluation` and `data_dir` are used.
    fewer, _ = evaluate.evaluate_run(
        TaskOptions(workdir=run, config=config, out=tmp_path / 'other', num=12)
    )
    assert set(fewer.values) == {'inception_score', 'inception_score_std'}
    assert fewer.protocol['num_samples'] == 12
    only(tmp_path / 'other', '00000006_seed0_tiny_12_*')

    text = evaluator_lib.summary(result)
    assert text.startswith(f'FD (tiny): {result.values["frechet_distance"]:.4g} | IS (tiny): ')
    assert text.endswith('(40 images against 40 of tiny_images/1.0.0 train)')


def test_training_images_have_distance_0(config, tmp_path):
    real = input_pipeline.load_split(
        sources.open_source('tiny_images', 'train', config.data_dir)
    ).images
    np.savez(tmp_path / 'real.npz', images=real)
    result, path = evaluate.evaluate_images(
        TaskOptions(workdir=None, config=config, images=tmp_path / 'real.npz')
    )
    assert path is None
    assert result.values['frechet_distance'] == pytest.approx(0, abs=1e-5)
    assert result.values['precision'] == result.values['recall'] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'cache', 'real.npz', 'tiny.jaxexport'
    ]  # fmt: skip


def test_user_file_names_are_escaped_in_results(config, tmp_path):
    with open(tmp_path / 'x\udce9\n.npz', 'wb') as file:
        np.savez(file, images=np.zeros((4, 8, 8, 3), np.uint8))
    config.evaluation.metrics = ('frechet_distance',)
    images = tmp_path / 'x\udce9\n.npz'
    result = evaluate.run(
        TaskOptions(workdir=None, config=config, images=images, out=tmp_path / 'out')
    )
    (path,) = (tmp_path / 'out').iterdir()
    assert result.path == path
    assert path.name.startswith('images_x\\udce9\\n')
    protocol = json.loads(path.read_text())['protocol']
    assert protocol['images'] == str(tmp_path / 'x\\udce9\\n.npz')


def test_long_user_file_names_are_accepted(tmp_path):
    protocol = {'num_samples': 10, 'extractor': 'ü' * 120}
    path = evaluator_lib.write(
        tmp_path, f'images_{"é" * 120}', evaluator_lib.Evaluation({}, {}, protocol)
    )
    assert json.loads(path.read_text())['protocol'] == protocol
