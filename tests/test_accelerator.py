import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from tests import extractors

ROOT = Path(__file__).resolve().parents[1]


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = 'cifar10'
    VERSION = tfds.core.Version('3.0.2')

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                'image': tfds.features.Image(shape=(32, 32, 3)),
                'label': tfds.features.ClassLabel(num_classes=10),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        rng = np.random.default_rng(0)
        for index in range(40):
            image = PIL.Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
            yield index, {'image': image, 'label': index % 10}


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """Flags for forty images that replace CIFAR-10, and for a tiny extractor."""
    data_dir, features = tmp_path_factory.mktemp('data'), tmp_path_factory.mktemp('features')
    Cifar10(data_dir=data_dir, file_format='array_record').download_and_prepare()
    artifact = extractors.write_artifact(features / 'tiny.jaxexport', shape='b, 32, 32, 3')
    digest, size = hashlib.sha256(artifact.read_bytes()).hexdigest(), extractors.DIMENSION
    np.savez(
        features / 'tiny.npz', mu=np.zeros(size), sigma=np.eye(size), n=40,
        extractor_sha256=digest,
    )  # fmt: skip
    return [f'--data_dir={data_dir}', f'--features={features}']


def accelerator(out, *flags):
    """Run the benchmark and return its JSON lines."""
    finished = subprocess.run(
        [sys.executable, '-m', 'benchmarks.accelerator', f'--out={out}', *flags],
        cwd=ROOT, env=os.environ | {'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true'},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    lines = [json.loads(line) for line in (out / 'results.jsonl').read_text().splitlines()]
    assert [json.loads(line) for line in finished.stdout.splitlines()] == lines
    return lines


@pytest.mark.slow
def test_every_stage_reports_results(tmp_path, inputs):
    lines = accelerator(
        tmp_path, *inputs, '--rehearse', '--configs=cifar10', '--minutes=10',
        '--stages=rates,train_step,large_batch,throughput,determinism,quality',
    )  # fmt: skip
    assert [line for line in lines if line['benchmark'] == 'accelerator_skipped'] == []
    found = [(line['benchmark'], line.get('dtype'), line.get('steps_per_call')) for line in lines]
    assert found == [
        ('accelerator_rates', None, None),
        *(('accelerator_train_step', 'float32', steps) for steps in (1, 2, 3)),
        ('accelerator_host_overhead', 'float32', 3),
        *(('accelerator_train_step', 'bfloat16', steps) for steps in (1, 2, 3)),
        ('accelerator_host_overhead', 'bfloat16', 3),
        ('accelerator_large_batch', 'bfloat16', 10),
        ('accelerator_sampler', None, None),
        ('accelerator_extractor', None, None),
        ('accelerator_determinism', None, None),
        ('accelerator_quality', None, None),
        ('accelerator_quality', None, None),
    ]
    for line in lines[1:4]:
        assert line['batch_size'] == 4
        assert line['images_per_s'] * line['seconds_per_step']['median_s'] == pytest.approx(
            4, rel=1e-2
        )
    assert lines[-3]['equal_bits'] is True
    assert [0.0 < line['minutes'] < 5 for line in lines[-2:]] == [True, True]
    assert lines[-2]['step'] < lines[-1]['step']
    assert np.isfinite([line['frechet_distance'] for line in lines[-2:]]).all()
    assert len(list(tmp_path.glob('cifar10_*.png'))) == 2


@pytest.mark.slow
def test_failed_stage_is_reported_and_next_stage_runs(tmp_path, inputs):
    empty = tmp_path / 'empty'
    empty.mkdir()
    lines = accelerator(
        tmp_path, inputs[0], f'--features={empty}', '--rehearse', '--stages=quality,rates'
    )
    assert [line['benchmark'] for line in lines] == ['accelerator_skipped', 'accelerator_rates']
    assert lines[0]['stage'] == 'quality'
    assert '0 files *.jaxexport' in lines[0]['reason']


@pytest.mark.slow
def test_all_stages_are_skipped_after_the_deadline(tmp_path, inputs):
    lines = accelerator(tmp_path, *inputs, '--minutes=0', '--stages=rates,peers')
    skipped = [(line['benchmark'], line['stage'], line['reason']) for line in lines]
    assert skipped == [
        ('accelerator_skipped', 'rates', "TimeoutError('no time left')"),
        ('accelerator_skipped', 'peers', "TimeoutError('no time left')"),
    ]
