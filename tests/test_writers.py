"""Event files, read by TensorBoard."""

import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from dcgan_jax import training
from dcgan_jax.runtime import writers


@pytest.fixture
def events(config, tmp_path):
    """Events of a run of six steps."""
    training.train_and_evaluate(config, tmp_path)
    accumulator = EventAccumulator(str(tmp_path), size_guidance={'images': 0, 'tensors': 0})
    accumulator.Reload()
    return accumulator


def test_run_writes_scalars_images_and_texts(events, config):
    assert {
        'discriminator/loss',
        'generator/loss',
        'discriminator/real',
        'discriminator/fake',
        'discriminator/gradient_norm',
        'generator/gradient_norm',
        'images_per_second',
    } <= set(events.Tags()['scalars'])
    assert [event.step for event in events.Scalars('generator/loss')] == [2, 3, 4, 6]
    assert [event.step for event in events.Images('samples')] == [3, 6]
    assert (events.Images('samples')[0].width, events.Images('samples')[0].height) == (82, 82)
    text = events.Tensors('config/text_summary')[0].tensor_proto.string_val[0].decode()
    assert '"batch_size": 8' in text
    overview = events.Tensors('generator/text_summary')[0].tensor_proto.string_val[0].decode()
    assert 'conv_1/kernel' in overview


def test_hparams_are_readable_by_tensorboard(events, config):
    content = events.summary_metadata['_hparams_/session_start_info'].plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(content)
    hparams = data.session_start_info.hparams
    assert hparams['batch_size'].number_value == 8
    assert hparams['loss.name'].string_value == 'non_saturating'
    assert hparams['resample_latents'].bool_value is False


@pytest.mark.parametrize('second_start', [1_700_000_000, 1_600_000_000, 900_000_000])
def test_resumed_run_replaces_later_events(tmp_path, monkeypatch, second_start):
    """Later events are replaced even if the clock was set back before the run was resumed."""
    for first_step, value, now in ((0, 1.0, 1_700_000_000), (4, 2.0, second_start)):
        monkeypatch.setattr(time, 'time', lambda now=now: now)
        with writers.open_writer(tmp_path, first_step) as writer:
            for step in range(first_step + 1, 7):
                writer.write_scalars(step, {'loss': value})
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert [(e.step, e.value) for e in accumulator.Scalars('loss')] == [
        (1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0), (6, 2.0),
    ]  # fmt: skip


def test_histograms_keep_their_counts(tmp_path):
    with writers.open_writer(tmp_path, 0) as writer:
        writer.write_histograms(1, {'weights': np.arange(100.0)}, {'weights': 10})
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    histogram = accumulator.Histograms('weights')[0].histogram_value
    assert histogram.num == 100
    assert histogram.sum == pytest.approx(4950)
