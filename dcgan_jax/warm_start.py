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
from dcgan_jax.run_dir import Run
from dcgan_jax.runtime import checkpoint
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
            run is conditional) or its optimizers (with `config.init_optimizer`) differ, or if the
            images of a class were those of another class.
    """
    source = _read(run.config)
    if run.config.conditional and source.class_names != run.class_names:
        raise UserError(
            f'config.init_from={run.config.init_from} was trained on the classes '
            f'{", ".join(source.class_names)}, but this run has {", ".join(run.class_names)}: use '
            'the same classes'
        )
    if run.config.conditional:
        check_not_exchanged(f'config.init_from={run.config.init_from}', source, run)
    _check_arrays(run.config, parallel.abstract_state_of(source, mesh), abstract_state)


def check_not_exchanged(setting: str, source: Run, run: Run) -> None:
    """Raise `UserError` if a class has the images of another class of the run `source`.

    Args:
        setting: The setting that selects `source`, in error messages.
        source: Another run with the same names of classes.
        run: This run.
    """
    if exchanged := identity.find_exchanged(run.class_names, source.data, run.data):
        raise UserError(f'{setting}: {exchanged}: restore the folders')


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
    abstract_state = parallel.abstract_state_of(_read(config), mesh)
    _check_arrays(config, abstract_state, state)
    try:
        source, _ = checkpoint.restore_latest(config.init_from, abstract_state)
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
