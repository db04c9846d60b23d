"""What is strange beside one class of CIFAR-10: a small GAN whose D also guesses turns.

    python main.py --config=configs/anomaly_cifar10.py --config.data.classes='(1,)' --workdir=/tmp/1
    python main.py --mode=detect_anomalies --workdir=/tmp/1

To guess by how much an image was turned, D has to know what things look like (SSGAN: Chen et al.
2019); of what it never saw it guesses wrong (Golan & El-Yaniv 2018): the score 'rotation'. A
quarter of the width of `cifar10_cpu.py`, and a third of its steps: three minutes on one CPU core,
scoring the 10,000 test images four. AUROC of 'rotation' over the ten classes: mean 0.754.
"""

from ml_collections import ConfigDict

from configs import cifar10_cpu


def get_config() -> ConfigDict:
    """Planes, unless `data.classes` says otherwise."""
    config = cifar10_cpu.get_config()
    config.data.classes = (0,)
    config.num_steps = 2_000
    config.generator.width = 0.25
    config.discriminator.width = 0.25
    for optimizer in config.optimizer.values():
        optimizer.decay_start, optimizer.decay_end = 1_000, 2_000
    config.loss.rotation = 1.0
    config.loss.rotation_generator = 0.2
    config.anomaly.scores = (*config.anomaly.scores, 'rotation')
    return config
