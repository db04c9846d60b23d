"""Short run for processes with simulated devices: `python -m tests.devices OUT DATA CASE`."""

import sys
from pathlib import Path

import tests.conftest as tiny  # Sets strict promotion and fast compilation.
from dcgan_jax import training
from dcgan_jax.configs import cifar10
from tests.extractors import write_artifact

CIFAR10 = Path(__file__).resolve().parents[2] / 'shared' / 'tfds'
_REAL = ('cifar10', 'cifar10_slow') if CIFAR10.is_dir() else ()
CASES = ('device', 'stream', 'recipe', *_REAL)


def config(case, data_dir, extractor):
    """Return the config of a case, for one device or eight."""
    if case in _REAL:
        config = cifar10.get_config()
        config.data_dir = str(CIFAR10)
        config.num_steps = 20
        config.generator.width = config.discriminator.width = 0.125
        if case == 'cifar10_slow':
            for optimizer in config.optimizer.values():
                optimizer.learning_rate = 1e-5
    else:
        config = tiny.tiny_config(data_dir)
        config.num_steps = 4
    config.log_every, config.sample_every, config.checkpoint_every = 1, 0, 100
    if case == 'stream':
        config.data.placement = 'stream'
    elif case == 'recipe':
        config.conditional, config.discriminator_steps = True, 2
        config.discriminator.update(
            spectral_norm=True, norm='none', minibatch_stddev=4, dropout_rate=0.3, use_bias=True
        )
        config.penalty.update(r1=0.1, dragan=0.1, interval=2)
        config.augment.update(
            horizontal_flip=True, policy=('color', 'translation', 'cutout'), ada_target=0.6,
            instance_noise=0.1,
        )  # fmt: skip
        config.ema.batch_stats = 'average'
        config.evaluation.update(
            every=4, extractor=str(extractor), num_samples=40, batch_size=2,
            metrics=('frechet_distance', 'precision_recall'),
        )  # fmt: skip
    return config


def main(out, data_dir, case):
    """Train a case in the folder `out`."""
    extractor = write_artifact(Path(out).with_suffix('.jaxexport'))
    training.train_and_evaluate(config(case, data_dir, extractor), out)


if __name__ == '__main__':
    main(*sys.argv[1:])
