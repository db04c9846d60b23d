"""Initialization of G with the channels of a larger generator (`config.distill.init='pruned'`).

In each layer, pruning keeps the channels with the largest absolute BatchNorm scales (Liu et al.
2017, arXiv:1708.06519).
"""

import functools
from typing import Any

import jax
import numpy as np

from dcgan_jax.config_conflicts import NEEDED_BY_PRUNING
from dcgan_jax.runtime import sharding
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.train_state import GANState

# Fields of `config.generator` that must be equal in both generators.
EQUAL_FIELDS = (
    *NEEDED_BY_PRUNING, 'base_size', 'kernel_size', 'kernel_sizes', 'strides', 'use_bias',
)  # fmt: skip


def initialize(state: GANState, teacher: Any) -> GANState:
    """Initialize G and its EMA with channels of the teacher.

    Args:
        state: The initial state.
        teacher: Variables of the teacher.

    Raises:
        UserError: If a layer of G has more channels than the teacher's.
    """
    network = state.generator
    num_stages = len(network.batch_stats) - 1
    norms = ['project_norm', *(f'norm_{stage}' for stage in range(num_stages))]
    num_channels = {norm: len(network.params[norm]['scale']) for norm in norms}
    params, batch_stats = prune(
        jax.device_get(teacher['params']),
        jax.device_get(teacher['batch_stats']),
        num_channels,
    )

    def place(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: sharding.place(leaf, state.step.sharding), tree)

    return state.replace(
        generator=network.replace(params=place(params), batch_stats=place(batch_stats)),
        ema_params=place(params),
        ema_batch_stats=place(batch_stats) if state.ema_batch_stats else {},
    )


def prune(params: Any, batch_stats: Any, num_channels: dict[str, int]) -> tuple[Any, Any]:
    """Return the parameters and the statistics of the channels with the largest scales.

    Args:
        params: Parameters of a generator with `block='conv'`: the layer 'project' is followed by
            'project_norm', and 'conv_I' of each stage I by 'norm_I'.
        batch_stats: Its BatchNorm statistics.
        num_channels: Number of channels to keep, by the name of the norm, from input to output.

    Raises:
        UserError: If a layer has fewer channels than `num_channels` requires.
    """
    pruned, statistics = {}, {}
    inputs = slice(None)
    for norm, count in num_channels.items():
        layer = 'project' if norm == 'project_norm' else norm.replace('norm', 'conv')
        scale = np.abs(params[norm]['scale'])
        if count > len(scale):
            raise UserError(
                f"config.distill.init='pruned': {norm} has {count} channels, more than the "
                f"teacher's {len(scale)}: use fewer, or 'random'"
            )
        outputs = np.sort(np.argsort(-scale, kind='stable')[:count])
        select = functools.partial(_select, inputs=inputs, outputs=outputs, size=len(scale))
        pruned[layer] = jax.tree.map(select, params[layer])
        pruned[norm], statistics[norm] = jax.tree.map(
            lambda array, kept=outputs: array[kept], (params[norm], batch_stats[norm])
        )
        inputs = outputs
    (last,) = params.keys() - batch_stats.keys() - pruned.keys()
    pruned[last] = params[last] | {'kernel': params[last]['kernel'][:, :, inputs]}
    return pruned, statistics


def _select(array: np.ndarray, inputs: Any, outputs: np.ndarray, size: int) -> np.ndarray:
    """Select channels of a kernel `[..., C_in, C_out]` or of a bias `[C_out]`.

    Args:
        array: The kernel or bias; that of the dense layer has `C_out = positions * size`.
        inputs: Input channels.
        outputs: Output channels.
        size: Number of channels of the layer's output feature map, before pruning.
    """
    maps = array.reshape(*array.shape[:-1], -1, size)[..., outputs]
    selected = maps.reshape(*array.shape[:-1], -1)
    return selected if array.ndim == 1 else selected[..., inputs, :]
