"""Initialization of a new run from a checkpoint of another run (`config.init_from`)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import logging
from flax import traverse_util
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcgan_jax import parallel, run_dir
from dcgan_jax.data import identity
from dcgan_jax.run_description import Run
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.train_state import NETWORKS, GANState, NetworkState

_COPIED = ('params', 'batch_stats', 'spectral_stats')


def check(run: Run, abstract_state: GANState, mesh: Mesh) -> None:
    """Check that `config.init_from` has the new run's architecture, without reading arrays.

    Args:
        run: The new run.
        abstract_state: Abstract state of the new run.
        mesh: Mesh of the new run.

    Raises:
        UserError: If `config.init_from` contains no run, or its networks, its classes (if the new
            run is conditional) or its optimizers (with `config.init_optimizer`) differ, if a class
            folder contains the images of another class of that run, or if features of an untrained
            discriminator would be matched.
    """
    source = _read(run.config)
    if run.config.conditional and source.class_names != run.class_names:
        raise UserError(
            f'config.init_from={run.config.init_from} was trained on the classes '
            f'{", ".join(source.class_names)}, but this run has {", ".join(run.class_names)}: use '
            'the same classes'
        )
    setting = f'config.init_from={run.config.init_from}'
    if run.config.conditional:
        identity.check_related(setting, run.class_names, source.data, run.data)
    uses_fixed_features = (
        run.config.loss.feature_matching_weight > 0.0
        and not run.config.discriminator_steps
        and run.config.distill.discriminator == 'random'
    )
    if uses_fixed_features and not is_discriminator_trained(source.config):
        raise UserError(
            f'{setting}: the discriminator of that run was not trained (its '
            'config.discriminator_steps is 0), but config.loss.feature_matching_weight uses it: '
            'set the weight to 0.0, or use another run'
        )
    _check_arrays(run.config, parallel.abstract_state_of(source, mesh), abstract_state)


def is_discriminator_trained(config: ConfigDict) -> bool:
    """Return whether D of a run was trained, in that run or in a run that it was copied from."""
    seen = set()
    while not (config.discriminator_steps or config.distill.discriminator == 'teacher'):
        path = config.init_from
        if not path or path in seen:
            return False
        seen.add(path)
        try:
            config = _read(config).config
        except UserError as error:
            logging.warning(
                'cannot check whether the discriminator of %s was trained (%s); it is assumed to '
                'be trained',
                *(path, error),
            )
            return True
    return True


def initialize(state: GANState, config: ConfigDict, mesh: Mesh) -> GANState:
    """Return the initial state with networks from the last checkpoint in `config.init_from`.

    The parameters and statistics of both networks, the EMA and, with `config.init_optimizer`, the
    optimizers' moments are copied. The step is 0, and learning rate schedules restart.

    Args:
        state: The initial state of the new run.
        config: Config of the new run.
        mesh: Mesh of the new run.

    Raises:
        UserError: See `check`; also if the run has no intact checkpoint.
    """
    run = _read(config)
    abstract_state = parallel.abstract_state_of(run, mesh)
    _check_arrays(config, abstract_state, state)
    try:
        source, _ = run_dir.restore(config.init_from, run, abstract_state)
    except UserError as error:
        raise UserError(f'config.init_from: {error}') from error
    if source is None:
        raise UserError(
            f'config.init_from={config.init_from} has no checkpoint: train that run first'
        )
    networks = {
        name: _copy(getattr(source, name), getattr(state, name), config) for name in NETWORKS
    }
    logging.info(
        'initialized from %s at step %d: networks%s',
        config.init_from,
        int(source.step),
        ' and optimizers' if config.init_optimizer else '',
    )
    averaged = {}
    if state.ema_batch_stats:  # The copy is needed because the state is donated.
        averaged = source.ema_batch_stats or jax.tree.map(jnp.copy, source.generator.batch_stats)
    return state.replace(**networks, ema_params=source.ema_params, ema_batch_stats=averaged)


def _read(config: ConfigDict) -> Run:
    return run_dir.read(run_dir.folder(config.init_from, 'config.init_from'))


def _check_arrays(config: ConfigDict, source: GANState, state: GANState) -> None:
    for name in NETWORKS:
        check_network(f'config.init_from={config.init_from}', name, source, state)
        if config.init_optimizer:
            old, new = (_moments(getattr(each, name).opt_state) for each in (source, state))
            if old.keys() != new.keys():
                raise UserError(
                    f'config.init_from={config.init_from} has a different optimizer of the {name}: '
                    'set config.init_optimizer=False, or use the same optimizer'
                )


def check_network(setting: str, name: str, source: GANState, state: GANState) -> None:
    """Check that a network of two states has the same arrays.

    Args:
        setting: The setting that selects `source`, in error messages.
        name: 'generator' or 'discriminator'.
        source: State of another run.
        state: State of this run.

    Raises:
        UserError: If an array is missing or has another shape.
    """
    old, new = (_shapes(getattr(each, name)) for each in (source, state))
    for array in sorted(old.keys() | new.keys()):
        if old.get(array) != new.get(array):
            raise UserError(
                f'{setting} has a different {name}: {array} is {old.get(array, "absent")} instead '
                f'of {new.get(array, "absent")}; use the same architecture'
            )


def copy_network(source: NetworkState, target: NetworkState) -> NetworkState:
    """Return `target` with the parameters and statistics of `source`."""
    return target.replace(**{name: getattr(source, name) for name in _COPIED})


def _shapes(network: NetworkState) -> dict[str, tuple[int, ...]]:
    collections = {name: getattr(network, name) for name in _COPIED}
    arrays = traverse_util.flatten_dict(collections, sep='/')
    return {name: tuple(array.shape) for name, array in arrays.items() if array is not None}


def _copy(source: NetworkState, target: NetworkState, config: ConfigDict) -> NetworkState:
    target = copy_network(source, target)
    if not config.init_optimizer:
        return target
    moments = _moments(source.opt_state)
    return target.replace(
        opt_state=jax.tree.map(
            lambda state: moments.get(type(state), state), target.opt_state, is_leaf=_is_state
        )
    )


def _moments(opt_state: Any) -> dict[type, Any]:
    """Return the states of an optimizer's transformations by type, except those of schedules."""
    states = jax.tree.leaves(opt_state, is_leaf=_is_state)
    return {
        type(state): state
        for state in states
        if _is_state(state) and not isinstance(state, optax.ScaleByScheduleState)
    }


def _is_state(node: Any) -> bool:
    return hasattr(node, '_fields') and bool(node)
