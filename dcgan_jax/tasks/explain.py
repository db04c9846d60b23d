"""`--mode=explain`: what a trained discriminator sees, and what a generator's units draw."""

import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import linen as nn
from ml_collections import ConfigDict
from tqdm import tqdm

from dcgan_jax import run_dir
from dcgan_jax.data import images, sources
from dcgan_jax.data.input_pipeline import load_split
from dcgan_jax.data.sources import ImageSource
from dcgan_jax.models import Discriminator, Networks
from dcgan_jax.runtime.batching import map_batches
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import linear_probe
from dcgan_jax.tasks.discriminator_features import DiscriminatorFeatures, unpacked
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import merge_config, restore
from dcgan_jax.train_state import GANState

_FILTERS = 8  # of the last stage
_PATCHES = 8  # images that excite a filter most
_GROUPS = 8  # of channels of G's first stage, ablate_channels one by one
_SHARE = 32  # of the channels, one in so many is a group: a single one of 512 is not missed
_LOOKED_AT = 5_000  # training images that filters choose from
_BATCH = 100
_FIRST_STAGE = re.compile(r'(conv_0|block_0_(conv_0|shortcut))(_branch_\d+)?')


def run(options: TaskOptions) -> str:
    """Returns what the command line prints, see `TaskOptions`."""
    path, figures = explain(
        options.workdir, options.out, options.num, options.seed, options.checkpoint, options.config
    )
    return '\n'.join(filter(None, [figures, f'pictures: {path}']))


def explain(
    workdir: epath.PathLike,
    out: epath.PathLike | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
    overrides: ConfigDict | None = None,
) -> tuple[epath.Path, str]:
    """Draws what filters and units do, and classifies by D's features.

    Args:
        workdir: of a training run.
        out: folder for the pictures and `explain.json`; `workdir/explain` when None.
        num: training images of the probe; all when None.
        seed: of the samples.
        which: checkpoint, see `restore`.
        overrides: see `merge_config`.

    Returns:
        The folder, and the probe's accuracy in a line (empty without classes or a test split).

    Raises:
        UserError: there is no such run, or `num` is 1.
    """
    run, networks, state = restore(workdir, which, require_latents=True)
    config = merge_config(run.config, overrides)
    if num == 1:
        raise UserError('--num=1: the probe chooses its penalty by held-out images, take 2 or more')
    out = run_dir.check_writable(out or epath.Path(workdir).expanduser() / 'explain', '--out')
    source = sources.open_split(config, config.data.split)
    pixels = load_split(source).images
    draw_filters(networks, state, pixels[:_LOOKED_AT], out)
    draw_ablated_channels(Sampler(networks.generator, run.config), state, seed, out)
    found: dict[str, Any] = {'step': int(state.step)}
    test = sources.open_test_split(config)
    if source.num_classes and test is not None:
        found['linear_probe'] = classify(source, test, networks, state, num)
    write_atomic(out / 'explain.json', f'{json.dumps(found, indent=2)}\n'.encode())
    if 'linear_probe' not in found:
        return out, ''
    result = found['linear_probe']
    return out, (
        f'linear SVM on {result["num_features"]:,} features of D, {result["num_train"]:,} images: '
        f'{result["accuracy"]:.2%} of {result["num_test"]:,} test images classified'
    )


def classify(
    source: ImageSource, held_out: ImageSource, networks: Networks, state: GANState, num: int | None
) -> dict[str, Any]:
    """Radford et al. 2015, section 5.1: an L2-SVM on all stages of D, max-pooled to 4x4."""
    see = DiscriminatorFeatures(networks, state)
    train, test = (load_split(split, labels=True) for split in (source, held_out))
    features = see(train.images[:num], 'Features')
    svm, penalty = linear_probe.fit(features, train.labels[:num], source.num_classes)
    return {
        'accuracy': float(np.mean(svm(see(test.images, 'Features')) == test.labels)),
        'penalty': penalty,
        'num_features': features.shape[1],
        'num_train': len(features),
        'num_test': len(test.images),
    }


@jax.custom_vjp
def guided_leaky_relu(x: jax.Array, slope: float) -> jax.Array:
    """LeakyReLU whose gradient passes where it is positive and the unit is on, else is 0."""
    return nn.leaky_relu(x, slope)


def _guided_forward(x: jax.Array, slope: float) -> tuple[jax.Array, jax.Array]:
    return guided_leaky_relu(x, slope), x


def _guided_backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
    return jnp.where((x > 0) & (gradient > 0), gradient, jnp.zeros_like(gradient)), None


guided_leaky_relu.defvjp(_guided_forward, _guided_backward)


class GuidedDiscriminator(Discriminator):
    """A discriminator through which gradients are guided (Springenberg et al. 2014, 1412.6806)."""

    def activate(self, x: jax.Array) -> jax.Array:
        """As in `Discriminator`, but for the gradient."""
        return guided_leaky_relu(x, self.leaky_slope)


def draw_filters(networks: Networks, state: GANState, pixels: np.ndarray, out: epath.Path) -> None:
    """`filters.png`: for each of some filters of D's last stage, what excites it, and why.

    A row of the images of `pixels` that excite it most, each at its strongest position, and below
    them the guided gradients (Radford et al. 2015, figure 5).
    """
    plain = unpacked(networks.discriminator)
    fields = {name: getattr(plain, name) for name in Discriminator.__annotations__}
    module = GuidedDiscriminator(**fields)
    variables = {'params': state.discriminator.params, **state.discriminator.statistics}

    def last_map(real: jax.Array) -> jax.Array:
        real = jnp.repeat(real, module.pack, axis=0)
        labels = jnp.zeros(len(real), jnp.int32)
        _, seen = module.apply(variables, real, labels, train=False, mutable=['intermediates'])
        stages = seen['intermediates']
        (x,) = stages[max(stages, key=lambda name: int(name.removeprefix('stage_')))]
        return x.astype(jnp.float32)

    @jax.jit
    def peaks(part: jax.Array) -> jax.Array:
        return jnp.max(last_map(images.to_float(part)), axis=(1, 2))

    @jax.jit
    def gradients(part: jax.Array, index: jax.Array) -> jax.Array:
        def strongest(real: jax.Array) -> jax.Array:
            return jnp.sum(jnp.max(last_map(real)[..., index], axis=(1, 2)))

        return jax.grad(strongest)(images.to_float(part))

    excited = map_batches(peaks, _BATCH, 'Filters', pixels)
    rows = []
    for index in np.argsort(-excited.std(axis=0))[:_FILTERS]:  # dead ones say nothing
        best = pixels[np.argsort(-excited[:, index])[:_PATCHES]]
        slopes = np.asarray(gradients(best, jnp.int32(index)))
        strongest = np.abs(slopes).max(axis=(1, 2, 3), keepdims=True)
        shown = np.asarray(images.to_uint8(slopes / np.maximum(strongest, 1e-12)))
        rows += [best, shown]
    picture = images.grid(np.concatenate(rows), columns=len(rows[0]))
    images.write_png(out / 'filters.png', picture)


def draw_ablated_channels(sampler: Sampler, state: GANState, seed: int, out: epath.Path) -> None:
    """`dropped_units.png`: samples, then the same with some channels of G's first stage ablated.

    Groups of those that weigh most, the strongest first (Radford et al. 2015, section 6.3.1, drop
    windows so).
    """
    latents = sampler.latents(seed, _PATCHES)
    rows = [sampler(state, latents)]
    order = strongest_channels(state.ema_params)
    size = max(1, len(order) // _SHARE)
    starts = range(0, min(_GROUPS * size, len(order)), size)
    for start in tqdm(starts, 'Silencing', unit='group', delay=3, disable=None):
        without = ablate_channels(state.ema_params, order[start : start + size])
        without = state.replace(ema_params=without)
        rows.append(sampler(without, latents))
    picture = images.grid(np.concatenate(rows), columns=_PATCHES)
    images.write_png(out / 'dropped_units.png', picture)


def strongest_channels(params: Any) -> np.ndarray:
    """The channels of the stem's map, those that what reads it weighs most first."""
    weights = [
        np.square(np.asarray(leaf, np.float64)).sum(axis=(0, 1, 3))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if _reads_the_stem(path)
    ]
    return np.argsort(-np.sum(weights, axis=0))


def ablate_channels(params: Any, units: np.ndarray) -> Any:
    """The parameters with some channels of the stem's map read by nothing."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.at[:, :, units].set(0.0) if _reads_the_stem(path) else leaf, params
    )


def _reads_the_stem(path: tuple[Any, ...]) -> bool:
    """Whether a leaf of G's parameters is a kernel of its first stage, `[k, k, C_in, C_out]`."""
    first, last = path[0].key, path[-1].key
    return last == 'kernel' and _FIRST_STAGE.fullmatch(first) is not None
