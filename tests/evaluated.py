"""Runs that are evaluated during training."""

import json

from tests.extractors import write_artifact


def evaluation_config(config, tmp_path, monkeypatch):
    """Change `config` to evaluate every two steps with a small extractor and an empty cache."""
    monkeypatch.setenv('DCGAN_JAX_CACHE', str(tmp_path / 'cache'))
    config.evaluation.extractor = str(write_artifact(tmp_path / 'tiny.jaxexport'))
    config.evaluation.update(
        every=2, metrics=('frechet_distance', 'precision_recall'), num_samples=40, batch_size=16
    )
    return config


def results(workdir, name='frechet_distance'):
    """Return a result of each evaluation by step."""
    paths = sorted((workdir / 'evaluation').glob('*.json'))
    return {int(path.stem[:8]): json.loads(path.read_text())[name] for path in paths}


def best_step(workdir):
    """Return the step of the best checkpoint."""
    (path,) = (workdir / 'best_checkpoint').iterdir()
    return int(path.name)
