import importlib

import pytest
from ml_collections import ConfigDict

from benchmarks import program
from dcgan_jax import config as config_lib
from dcgan_jax.configs import cifar10
from dcgan_jax.losses import LOSSES
from dcgan_jax.runtime.errors import ConfigError, UserError

CONFIGS = program.config_names()

# Configs that cause warnings on purpose.
WARNED = {'shapes_stable': ['config.penalty.r1, config.penalty.r2 with config.discriminator.mini']}


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_is_valid(name):
    config = importlib.import_module(f'dcgan_jax.configs.{name}').get_config()
    config_lib.validate(config)
    warnings, expected = config_lib.warnings(config), WARNED.get(name, [])
    assert len(warnings) == len(expected)
    assert all(warning.startswith(start) for warning, start in zip(warnings, expected, strict=True))


def groups_of(config):
    yield config
    for value in config.values():
        if isinstance(value, ConfigDict):
            yield from groups_of(value)


@pytest.mark.parametrize('name', CONFIGS)
def test_no_field_has_the_name_of_a_config_dict_attribute(name):
    """For example, `config.update` would be the method, whatever the value of a field `update`."""
    config = importlib.import_module(f'dcgan_jax.configs.{name}').get_config()
    fields = {field for group in groups_of(config) for field in group}
    assert {'update_order', 'width', 'learning_rate'} <= fields  # Includes nested groups.
    assert fields & set(dir(ConfigDict)) == set()


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('batch_size', 0),
        ('batch_size', 12.5),
        ('batch_size', True),
        ('seed', -1),
        ('seed', 2**32),
        ('dtype', 'float16'),
        ('loss.name', 'hinged'),
        ('optimizer.generator.learning_rate', float('nan')),
        ('optimizer.generator.learning_rate', float('inf')),
        ('optimizer.generator.learning_rate', 1e39),
        ('num_steps', 2**31),
        ('optimizer.generator.b1', 1.0),
        ('generator.strides', (2, 3, 2)),
        ('generator.strides', (2, True, 2)),
        ('generator.strides', ()),
        ('generator.norm', 'bach'),
        ('discriminator.dropout_rate', 1.0),
        ('dataset', ''),
        ('dataset', 'a\0b'),
        ('dataset', '\udc80'),
        ('data.placement', 'gpu'),
        ('anomaly.scores', ()),
    ],
)
def test_invalid_value_is_rejected_with_its_field(field, value):
    config = cifar10.get_config()
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError) as error:
        config_lib.validate(config)
    assert set(error.value.fields) == {field}
    assert str(error.value).startswith(f'config.{field}')


def test_all_invalid_fields_are_listed():
    config = cifar10.get_config()
    config.batch_size, config.ema.standing_batches = -1, 0
    with pytest.raises(ConfigError) as error:
        config_lib.validate(config)
    assert set(error.value.fields) == {'batch_size', 'ema.standing_batches'}


def test_number_of_strides_must_match_features():
    config = cifar10.get_config()
    config.generator.strides = (2, 2)
    with pytest.raises(UserError, match=r'config.generator.strides=\(2, 2\) must have 3'):
        config_lib.validate(config)


def test_unknown_field_is_rejected_with_a_suggestion():
    config = cifar10.get_config()
    config.optimizer.generator.learning_rat = 1.0
    with pytest.raises(ConfigError, match='learning_rate') as error:
        config_lib.validate(config)
    assert error.value.fields == ('optimizer.generator.learning_rat',)


def test_missing_field_is_rejected():
    config = cifar10.get_config()
    del config.ema.halflife_images
    with pytest.raises(ConfigError) as error:
        config_lib.validate(config)
    assert error.value.fields == ('ema.halflife_images',)


def test_differences_lists_fields_that_may_not_change():
    old, new = cifar10.get_config(), cifar10.get_config()
    new.num_steps, new.data_dir, new.log_every = 7, '/elsewhere', 3
    assert config_lib.differences(old, new) == []
    new.generator.width = 0.5
    assert config_lib.differences(old, new) == ['generator.width: 1.0 -> 0.5']
    lists = ConfigDict(old.to_dict())
    lists.generator = dict(old.generator, features=list(old.generator.features))
    assert config_lib.differences(old, lists) == []


@pytest.mark.parametrize(
    ('changes', 'messages'),
    [
        ({}, []),
        ({'loss.name': 'wasserstein'}, ['Lipschitz']),
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
def test_probable_mistakes_cause_warnings(changes, messages):
    config = cifar10.get_config()
    config.update_from_flattened_dict(changes)
    config_lib.validate(config)
    warnings = config_lib.warnings(config)
    assert len(warnings) == len(messages)
    assert all(text in warning for text, warning in zip(messages, warnings, strict=True))


def test_invalid_element_of_a_tuple_is_named_by_field_and_index():
    config = cifar10.get_config()
    with config.unlocked(), config.ignore_type():
        config.data.classes = ('cat', -1)
    with pytest.raises(ConfigError, match=r'^config.data.classes\[1\]=-1: [^<]*$') as error:
        config_lib.validate(config)
    assert set(error.value.fields) == {'data.classes'}


def test_missing_fields_of_stored_configs_have_their_defaults():
    config = cifar10.get_config()
    stored = config.to_dict()
    del stored['loss']['label_smoothing'], stored['distill'], stored['seed']
    stored = ConfigDict(stored)
    added = config_lib.add_missing_fields(stored)
    assert {'loss.label_smoothing', 'distill.teacher', 'seed'} <= set(added)
    assert stored.to_dict() == config.to_dict()
    assert not config_lib.add_missing_fields(stored)


@pytest.mark.parametrize('name', sorted(LOSSES))
def test_adaptive_augmentation_needs_a_loss_with_positive_logits_of_real_images(name):
    config = cifar10.get_config()
    config.loss.name = name
    config.augment.update(ada_target=0.6, policy=('color',))
    if name in ('non_saturating', 'hinge'):
        config_lib.validate(config)
    else:
        with pytest.raises(ConfigError, match="use 'non_saturating' or 'hinge'"):
            config_lib.validate(config)
