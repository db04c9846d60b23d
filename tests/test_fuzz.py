"""Random flags, configs, images and damaged files are accepted, or rejected with a UserError."""

import functools
import shutil
import types
from typing import Annotated

import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from dcgan_jax import config as config_lib
from dcgan_jax import models, parallel, train_state, training
from dcgan_jax.config_types import INT32_MAX, Group
from dcgan_jax.configs import default
from dcgan_jax.data import image_source, sources
from dcgan_jax.runtime import download, multihost, sharding
from dcgan_jax.runtime.errors import UserError
from tests.command_line import call_main
from tests.conftest import tiny_config
from tests.fuzzing import (
    FLOATS,
    INTEGERS,
    TEXTS,
    fuzz,
    guarded,
    is_convertible,
    user_error_message,
)
from tests.test_main import ROOT, TINY

QUICKSTART = f'--config={ROOT}/configs/quickstart.py'
TINY_RUN = [QUICKSTART, *TINY[1:], '--workdir=w']
FLAGS = (
    *('mode', 'workdir', 'out', 'num', 'seed', 'images', 'config', 'checkpoint', 'distributed'),
    *('coordinator_address', 'num_processes', 'process_id', 'flagfile', 'undefok'),
    *('mask', 'classes', 'arithmetic', 'prompt'),
)
# Arguments contain no NUL, and no paths outside of the temporary folder.
VALUES = st.one_of(
    TEXTS.filter(lambda text: '\0' not in text and not text.startswith(('/', '..'))),
    st.one_of(INTEGERS, FLOATS).filter(is_convertible).map(str),
    st.sampled_from(['w', 'file', 'file/x', 'broken', 'none', 'w/../x', '.']),
    st.sampled_from(['train', 'sample', 'evaluate', 'export', 'best', 'latest', 'true', 'false']),
    st.sampled_from(['super_resolve', 'inpaint', 'translate', 'explore', 'explain', '1,2-3+4']),
    st.sampled_from(['report', 'classify_samples', 'detect_anomalies', 'a cat']),
)
# Valid values of some fields.
WORDS = (
    *('batch', 'none', 'layer', 'group', 'residual', 'conv', 'hinge', 'relativistic', 'adamw'),
    *('masked', 'gray', 'low_resolution', 'free_form', 'skip', 'l1', "('latent_optimization',)"),
    *('cosine', 'stream', 'bfloat16', 'average', 'sum', 'mode_coverage', 'folder'),
    *('trigrams', "('{}',)", "('a',)"),
    *('True', 'False', "('color',)", "('mode_coverage',)", '(0,)', '(8,)', '(2, 2)', '1e-3'),
)


@pytest.fixture
def command_line(tmp_path, data_dir, monkeypatch):
    """Function that runs main.py in this process, without compilation and network."""

    def prepare(config, workdir):
        run = training.prepare(config, workdir).run
        networks = models.build(config, run.image_shape, run.num_classes)
        create = functools.partial(train_state.create, config, networks, run.image_shape)
        jax.eval_shape(create)
        return types.SimpleNamespace(step=0)

    def refuse(*_):
        raise UserError('this test has a single process')

    def fail(*_):
        raise OSError('this test has no network')

    here = tmp_path / 'here'
    (here / 'broken').mkdir(parents=True)
    (here / 'broken' / 'config.json').write_text('{"config": 3')
    (here / 'file').write_text('')
    monkeypatch.chdir(here)
    monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
    monkeypatch.setenv('DCGAN_JAX_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(training, 'train_and_evaluate', prepare)
    monkeypatch.setattr(multihost, 'initialize', refuse)
    monkeypatch.setattr(download, '_download', fail)
    sources.open_source('tiny_images')  # Imports libraries that define flags.

    def run(*arguments):
        """Return the exit code and the lines of stderr."""
        with guarded(tmp_path):
            result = call_main(*arguments)
        code, lines = result.returncode, result.stderr.splitlines()
        if code:
            assert code == 2
            assert len(lines) == 1, lines
            assert lines[0].startswith('error: '), lines
        shutil.rmtree(here / 'w', ignore_errors=True)
        return code, lines

    return run


def test_random_command_lines_are_accepted_or_rejected(command_line, fraction):
    assert command_line(*TINY_RUN)[0] == 0
    data = [*TINY_RUN, '--config.dataset=folder']
    for path in ('~no-such-user/x', 'x' * 300, 'gs://b/x', 'ftp://h/x', '\udcff', 'a\nb', ''):
        for flags in (
            [*TINY_RUN, f'--workdir={path}', '--config.dataset=none'],
            ['--mode=sample', f'--workdir={path}'],
            [*TINY_RUN[:-1], '--mode=evaluate', f'--images={path}/x'],
            [f'--config={path}', '--config.seed=1', '--workdir=w'],
            [*data, f'--config.data_dir={path}'],
            [*TINY_RUN, f'--config.data_dir={path}/x'],
            [*TINY_RUN, '--config.evaluation.every=1', f'--config.evaluation.extractor={path}'],
        ):
            assert command_line(*flags)[0] == 2
    flag = st.builds('--{}={}'.format, st.sampled_from(FLAGS), VALUES)
    unknown = st.builds('--{}={}'.format, st.text(max_size=5), VALUES)
    random_flag = st.one_of(flag, flag, flag, unknown, VALUES)
    starts = st.sampled_from([[], TINY_RUN[-1:], TINY_RUN, [*TINY_RUN, '--mode=evaluate']])

    def check(start, rest):
        command_line(*start, *rest)

    fuzz(check, 300 * fraction, start=starts, rest=st.lists(random_flag, min_size=1, max_size=3))


def test_random_overrides_are_accepted_or_rejected(command_line, fraction):
    fields = sorted(config_lib.FIELDS)
    numbers = st.one_of(INTEGERS, FLOATS).filter(is_convertible)
    tuples = st.lists(st.one_of(st.integers(-1, 9), numbers, TEXTS), max_size=4).map(tuple)
    values = st.one_of(numbers.map(str), tuples.map(repr), VALUES, st.sampled_from(WORDS))
    values = values.filter(lambda text: '\0' not in text)

    def check(changes):
        command_line(*TINY_RUN, *(f'--config.{name}={value}' for name, value in changes))

    for index, field in enumerate(fields):
        check([(field, ('-1', 'nan', '1e999', '()', '9' * 400)[index % 5])])
    change = st.tuples(st.sampled_from(fields), values)
    fuzz(check, 400 * fraction, changes=st.lists(change, min_size=1, max_size=3))


def valid_values(group=default.Config, prefix=''):
    """Return a strategy for valid values of each field, by name."""
    strategies = {}
    for name, field in group.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            strategies |= valid_values(field.annotation, f'{prefix}{name}.')
        else:
            strategies[prefix + name] = st.from_type(
                Annotated[field.annotation, *field.metadata, 0]
            )
    return strategies


def test_valid_field_values_can_be_traced_or_are_rejected(tmp_path, fraction):
    values = valid_values()
    assert set(values) == set(config_lib.FIELDS)
    shape, mesh = (8, 8, 3), sharding.create_mesh()

    def trace(config):
        config_lib.validate(config)
        networks = models.build(config, shape, 3)
        create = functools.partial(train_state.create, config, networks, shape)
        abstract_state = parallel.create_abstract_state(create, mesh)
        count = 1, config.batch_size * config.discriminator_steps
        images = jax.ShapeDtypeStruct((*count, *shape), np.uint8)
        batch = image_source.Examples(images, jax.ShapeDtypeStruct(count, np.int32))
        jax.eval_shape(
            parallel.train_call(config, mesh, abstract_state, shape),
            abstract_state,
            None,
            batch,
            None,
        )

    def check(changes):
        config = tiny_config('').unlock()
        with config.ignore_type():
            config.update_from_flattened_dict(dict(changes))
        errors.append(user_error_message(trace, config, folder=tmp_path))

    errors = []

    high = INT32_MAX
    rate = {'schedule': 'cosine', 'decay_start': high - 1, 'decay_end': high, 'warmup_steps': high}
    largest = {f'optimizer.generator.{name}': value for name, value in rate.items()}
    largest |= {'augment.instance_noise': 0.1, 'augment.instance_noise_steps': high}
    check([*largest.items(), ('penalty.r1', 1.0), ('penalty.interval', high)])
    assert not errors[0]
    change = st.sampled_from(sorted(values)).flatmap(
        lambda name: st.tuples(st.just(name), values[name])
    )
    fuzz(check, 20 * fraction, changes=st.lists(change, min_size=1, max_size=8))
