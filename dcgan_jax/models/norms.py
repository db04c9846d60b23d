"""Normalization layers by config name, with optionally conditional scales and shifts."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import conditioning
from dcgan_jax.runtime.errors import UserError

NORMS = ('batch', 'layer', 'group', 'instance', 'none')
_GROUPS = (32, 16, 8, 4, 2)  # Numbers of groups for 'group', in order of preference.
_MIN_GROUP_CHANNELS = 4


def normalize(
    net: nn.Module, x: jax.Array, condition: jax.Array | None, *, train: bool, name: str
) -> jax.Array:
    """Apply the normalization `net.norm` with a scale and a shift of each channel.

    'batch' is BatchNorm (Ioffe & Szegedy 2015, arXiv:1502.03167); under `jit` over a mesh, its
    statistics are those of the global batch. The others normalize each image separately: 'layer'
    the whole map (Ba et al. 2016, arXiv:1607.06450), 'instance' each channel (Ulyanov et al. 2016,
    arXiv:1607.08022), and 'group' up to 32 groups of at least four channels (Wu & He 2018,
    arXiv:1803.08494). Scales and shifts depend on the condition, if there is one (Dumoulin et al.
    2017, arXiv:1610.07629).

    Args:
        net: The calling module, with fields norm, norm_momentum, norm_epsilon, weight_init,
            weight_stddev, dtype and, if conditional, num_conditions.
        x: Map [B, H, W, C].
        condition: See `conditioning.select`; None for unconditional scales and shifts.
        train: Whether BatchNorm uses the statistics of the batch.
        name: Name of the submodule.

    Returns:
        Map of the same shape and net's dtype; statistics are float32.

    Raises:
        UserError: If a group has a single value per image, whose normalized value would be zero.
    """
    if net.norm == 'none':
        return x
    # As in DCGAN implementations, scales are N(1, 0.02) where weights are N(0, 0.02).
    jitter = nn.initializers.normal(net.weight_stddev)
    around_one = lambda key, shape, dtype=jnp.float32: 1.0 + jitter(key, shape, dtype)  # noqa: E731
    scale_init = around_one if net.weight_init == 'normal' else nn.initializers.ones
    options = {
        'use_scale': condition is None,
        'use_bias': condition is None,
        'scale_init': scale_init,
        # The fast variance, E[x^2] - E[x]^2, makes a training step 2 to 3% faster on a CPU at full
        # width, but its result is off by 2.6% if a channel's mean is 1,000 standard deviations.
        'use_fast_variance': False,
    }
    channels = x.shape[-1]
    x = x.astype(jnp.float32)
    if net.norm == 'batch':
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=net.norm_momentum,
            epsilon=net.norm_epsilon,
            **options,
            name=name,
        )(x)
    else:
        groups = {'layer': 1, 'group': num_groups(channels), 'instance': channels}[net.norm]
        if x[0].size == groups:
            raise UserError(
                f'norm={net.norm!r} sets a map of {x.shape[1]}x{x.shape[2]} pixels and {channels} '
                f'channels to zero ({type(net).__name__}, {name}): use another norm or a larger '
                'map (base_size, strides, width)'
            )
        x = nn.GroupNorm(groups, epsilon=net.norm_epsilon, **options, name=name)(x)
    if condition is not None:
        is_caption = condition.ndim == 2  # The linear map of an embedding is added to 1.
        inits = {
            'scale': jitter if is_caption else scale_init,
            'shift': jitter if is_caption else nn.initializers.zeros,
        }
        scale, shift = (
            conditioning.embed(net, condition, channels, init, f'{name}_{part}')
            for part, init in inits.items()
        )
        scale = 1.0 + scale if is_caption else scale
        x = x * scale[:, None, None] + shift[:, None, None]
    return x.astype(net.dtype)


def num_groups(channels: int) -> int:
    """Return the number of groups of 'group': up to 32, with at least four channels each."""
    valid = (n for n in _GROUPS if channels % n == 0 and channels >= _MIN_GROUP_CHANNELS * n)
    return next(valid, 1)
