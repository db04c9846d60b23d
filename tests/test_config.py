import importlib

import pytest
from ml_collections import ConfigDict

from benchmarks import program
from dcgan_jax import config as config_lib
from dcgan_jax.configs import cifar10
from dcgan_jax.runtime.errors import UserError

CONFIGS = program.config_names()

# Configs whose warnings are meant: the method of shapes_stable has both.
WARNED = {'shapes_stable': ['config.penalty.r1, config.penalty.r2 with config.discriminator.mini']}


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_is_valid(name):
    config = importlib.import_module(f'dcgan_jax.configs.{name}').get_config()
    config_lib.validate(config)
    doubts, expected = config_lib.doubts(config), WARNED.get(name, [])
    assert len(doubts) == len(expected)
    assert all(doubt.startswith(start) for doubt, start in zip(doubts, expected, strict=True))


def groups_of(config):
    yield config
    for value in config.values():
        if isinstance(value, ConfigDict):
            yield from groups_of(value)


@pytest.mark.parametrize('name', CONFIGS)
def test_no_field_is_hidden_by_an_attribute_of_config_dict(name):
    """`config.update`, say, would be the method, whatever the field's value."""
    config = importlib.import_module(f'dcgan_jax.configs.{name}').get_config()
    fields = {field for group in groups_of(config) for field in group}
    assert {'update_order', 'width', 'learning_rate'} <= fields  # Groups in groups too.
    assert fields & set(dir(ConfigDict)) == set()


@pytest.mark.parametrize(
    ('field', 'value', 'words'),
    [
        ('batch_size', 0, 'integer from 1 to'),
        ('batch_size', 12.5, 'integer'),
        ('batch_size', True, 'integer'),
        ('seed', -1, 'from 0 to 4294967295'),
        ('dtype', 'float16', "one of 'float32', 'bfloat16'"),
        ('loss.name', 'hinged', 'non_saturating'),
        ('optimizer.generator.learning_rate', float('nan'), 'number of at least 0'),
        ('optimizer.generator.learning_rate', float('inf'), 'number of at least 0'),
        ('num_steps', 2**31, 'from 0 to 2147483647'),
        ('optimizer.generator.b1', 1.0, 'from 0 to 1'),
        ('generator.strides', (2, 3, 2), 'one of 1, 2'),
        ('generator.strides', (2, 2), '3 in all'),
        ('generator.norm', 'bach', "one of 'batch', 'layer'"),
        ('discriminator.dropout_rate', 1.0, 'not included'),
        ('dataset', '', 'non-empty'),
        ('data.placement', 'gpu', "one of 'auto', 'device', 'stream'"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field, value, words):
    config = cifar10.get_config()
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f'config.{field}') as error:
        config_lib.validate(config)
    assert words in str(error.value)


def test_an_unknown_field_is_refused_with_the_likely_one():
    config = cifar10.get_config()
    config.optimizer.generator.learning_rat = 1.0
    with pytest.raises(UserError, match=r'did you mean config.optimizer.generator.learning_rate\?'):
        config_lib.validate(config)


def test_a_missing_field_is_refused():
    config = cifar10.get_config()
    del config.ema.halflife_images
    with pytest.raises(UserError, match=r'config.ema.halflife_images is missing'):
        config_lib.validate(config)


def test_differences_lists_what_a_run_may_not_change():
    old, new = cifar10.get_config(), cifar10.get_config()
    new.num_steps, new.data_dir, new.log_every = 7, '/elsewhere', 3
    assert config_lib.differences(old, new) == []
    new.generator.width = 0.5
    assert config_lib.differences(old, new) == ['generator.width: 1.0 -> 0.5']
    lists = ConfigDict(old.to_dict())
    lists.generator = dict(old.generator, features=list(old.generator.features))
    assert config_lib.differences(old, lists) == []


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({}, []),
        ({'loss.name': 'wasserstein'}, ['nothing bounds them']),
        ({'loss.name': 'wasserstein', 'discriminator.spectral_norm': True}, []),
        ({'loss.name': 'wasserstein', 'penalty.dragan': 1.0}, ['config.penalty.dragan with']),
        ({'penalty.r1': 1.0, 'penalty.r2': 1.0}, ['config.penalty.r1, config.penalty.r2 with']),
        ({'penalty.r1': 1.0, 'discriminator.norm': 'layer'}, []),
        (
            {
                'penalty.r2': 1.0,
                'discriminator.norm': 'none',
                'discriminator.minibatch_stddev': 4,
            },
            ['config.penalty.r2 with config.discriminator.minibatch_stddev'],
        ),
        ({'discriminator.norm': 'none', 'discriminator.minibatch_stddev': 4}, []),
    ],
    ids=str,
)
def test_what_may_not_be_meant(changes, words):
    config = cifar10.get_config()
    config.update_from_flattened_dict(changes)
    config_lib.validate(config)
    doubts = config_lib.doubts(config)
    assert len(doubts) == len(words)
    assert all(word in doubt for word, doubt in zip(words, doubts, strict=True))
