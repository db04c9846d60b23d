"""Fixtures and settings of all tests: strict dtype promotion, no rank promotion, tiny runs."""

import atexit
import functools
import os
import shutil
import signal
import sys
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# The processes of a test run share compiled programs.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='dcgan_jax_tests_')
    atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
# Compiling tiny programs takes longer than running them, also in child processes. Compilation is
# faster without most optimizations, with the old code generator and one LLVM module per program.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
if '--xla_cpu_use_fusion_emitters' not in os.environ.get('XLA_FLAGS', ''):
    os.environ['XLA_FLAGS'] = (
        os.environ.get('XLA_FLAGS', '')
        + ' --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
    )

from tests import trigrams  # noqa: F401, before `dcgan_jax.configs` is imported

# isort: split
import jax
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from dcgan_jax import training
from dcgan_jax.configs import quickstart

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
tfds.disable_progress_bar()


def slow(*values, **options):
    """Return a `pytest.param` that is only tested with `-m slow`."""
    return pytest.param(*values, marks=pytest.mark.slow, **options)


def slow_except(values, *default):
    """Return the values as parameters; all except `default` are `slow`."""
    assert set(default) <= set(values)
    return [value if value in default else slow(value) for value in values]


class TinyImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Forty 8x8 images of three classes, which differ in color."""

    name = 'tiny_images'
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                'image': tfds.features.Image(shape=(8, 8, 3)),
                'label': tfds.features.ClassLabel(num_classes=3),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        rng = np.random.default_rng(0)
        for index in range(40):
            image = rng.integers(0, 64, (8, 8, 3), np.uint8)
            image[2:6, 2:6, index % 3] += 150
            yield index, {'image': PIL.Image.fromarray(image), 'label': index % 3}


@pytest.fixture(scope='session', autouse=True)
def no_buckets():
    """Disable gcsfs in this process; tests/test_bucket.py starts its own processes."""
    sys.modules['gcsfs'] = None


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
    """A TFDS directory with the data set `tiny_images`."""
    folder = tmp_path_factory.mktemp('data')
    TinyImages(data_dir=folder, file_format='array_record').download_and_prepare()
    return folder


@pytest.fixture(scope='session')
def finished(data_dir, tmp_path_factory):
    """(workdir, state) of a run of `tiny_config`; use `finished_copy` to modify the workdir."""
    workdir = tmp_path_factory.mktemp('finished') / 'run'
    return workdir, training.train_and_evaluate(tiny_config(data_dir), workdir)


@pytest.fixture
def finished_copy(finished, tmp_path):
    """A copy of the workdir of `finished`."""
    return shutil.copytree(finished[0], tmp_path / 'finished')


@pytest.fixture
def default_signals():
    """Reset the handlers of SIGHUP and SIGINT, which `nohup` and background jobs ignore."""
    handlers = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def config(data_dir):
    """The config of `tiny_config`."""
    return tiny_config(data_dir)


@pytest.fixture(scope='session')
def class_folder_run(tmp_path_factory):
    """(folder of images, workdir): three class folders and a conditional run of two steps."""
    from tests import class_folders

    root = tmp_path_factory.mktemp('folder_run')
    for name, color in class_folders.COLORS.items():
        class_folders.write_images(root / 'images' / name, color)
    training.train_and_evaluate(class_folders.folder_config(root / 'images'), root / 'run')
    return root / 'images', root / 'run'


@pytest.fixture
def class_folder_copy(class_folder_run, tmp_path):
    """Copies of the folders of `class_folder_run`, at another path."""
    return tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in class_folder_run)


@pytest.fixture(scope='session')
def restoration_run(data_dir, tmp_path_factory):
    """Function from a kind to the workdir of its run, which is trained once."""
    from tests.restoration import restoration_config

    @functools.cache
    def train_once(kind):
        workdir = tmp_path_factory.mktemp(kind)
        training.train_and_evaluate(restoration_config(data_dir, kind), workdir)
        return workdir

    return train_once


@pytest.fixture(params=[pytest.param(0.1, id='some'), slow(1, id='all')])
def fraction(request):
    """Fraction of the cases that are tested; there are about 2,000 cases."""
    return request.param


def tiny_config(data_dir):
    """Return a config with tiny networks and images that trains in seconds."""
    config = quickstart.get_config()
    config.dataset, config.data_dir = 'tiny_images', str(data_dir)
    config.conv_impl = 'xla'  # Compiles faster.
    config.batch_size, config.num_steps, config.latent_dim = 8, 6, 4
    config.log_every, config.sample_every, config.checkpoint_every = 2, 3, 2
    config.generator.update(base_size=2, base_features=8, features=(8,), strides=(2, 2), width=1.0)
    config.discriminator.update(features=(8, 8), strides=(2, 2), width=1.0)
    return config
