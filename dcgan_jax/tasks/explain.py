"""`--mode=explain`: visualize the discriminator's filters and ablate the generator's channels."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from tqdm import tqdm

from dcgan_jax.data import images, sources
from dcgan_jax.data.image_source import ImageSource
from dcgan_jax.data.input_pipeline import load_split
from dcgan_jax.models import Networks
from dcgan_jax.models.layers import Activation
from dcgan_jax.runtime.batching import map_batches
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_json
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import linear_probe
from dcgan_jax.tasks.discriminator_features import (
    DiscriminatorFeatures,
    feature_maps,
    per_image_discriminator,
)
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import OutputFolder, output_folder
from dcgan_jax.tasks.trained_run import merge_config, open_split, restore
from dcgan_jax.train_state import GANState

_FILTERS = 8  # Number of filters of the last stage that are visualized.
_IMAGES_PER_FILTER = 8
_GROUPS = 8  # Number of groups of channels that are ablated, one group at a time.
# A group has 1/32 of the channels. Ablating a single one of 512 channels has no visible effect.
_GROUP_DIVISOR = 32
_NUM = 2_000  # Default number of training images of the linear probe.
_CANDIDATES = 5_000  # Number of training images searched for maximally activating ones.
_BATCH_SIZE = 100
_FIRST_STAGE = re.compile(r'(conv_0|block_0/(conv_0|shortcut))(/branch_\d+)?/kernel')


def run(options: TaskOptions) -> TaskResult:
    """Visualize filters, ablate channels, and fit a linear classifier to D's features.

    Files: `filters.png`, `ablated_channels.png` and `explain.json`, which has the accuracy of the
    classifier if the data set has labels and a test split, and the images have several classes.

    Args:
        options: Uses `workdir`, `config`, `out` (defaults to `workdir/explain`), `num` (number of
            training images for the linear classifier, by default 2,000), `seed` (of the latents)
            and `checkpoint`.

    Returns:
        The folder and the classifier's accuracy, if it was computed.

    Raises:
        UserError: If `workdir` contains no run, or `num` is 1.
    """
    trained = restore(options.workdir, options.checkpoint, require_latents=True)
    networks, state = trained.networks, trained.state
    config = merge_config(trained.run.config, options.config)
    if options.num == 1:
        raise UserError('--num=1 leaves no held-out image for the linear probe: use 2 or more')
    out = output_folder(options, 'explain', config, trained.check_workdir)
    source = open_split(trained.run, config, config.data.split)
    pixels = load_split(source, num=_CANDIDATES).images
    draw_filters(networks, state, pixels, out)
    draw_ablated_channels(trained.sampler, state, options.seed, out)
    content: dict[str, Any] = {'step': int(state.step)}
    test = sources.open_test_split(config)
    result = None
    if source.num_classes and test is not None:
        result = classify(source, test, networks, state, options.num or _NUM)
    if result is not None:
        content['linear_probe'] = result
    write_json(out.file('explain.json'), content)
    if result is None:
        return TaskResult(out.path)
    return TaskResult(
        out.path,
        f'linear SVM on {result["num_features"]:,} features of D, {result["num_train"]:,} images: '
        f'{result["accuracy"]:.2%} accuracy on {result["num_test"]:,} test images',
    )


def classify(
    source: ImageSource, test: ImageSource, networks: Networks, state: GANState, num: int
) -> dict[str, Any] | None:
    """Classify images by an L2-SVM on D's pooled features (Radford et al. 2015, section 5.1).

    Returns:
        The results, or None if the images have fewer than two classes.
    """
    train, test = load_split(source, labels=True, num=num), load_split(test, labels=True)
    if not all(map(linear_probe.has_several_classes, (train.labels, test.labels))):
        logging.info('the linear probe is skipped: the images have fewer than two classes')
        return None
    extract = DiscriminatorFeatures(networks, state)
    features = extract(train.images, 'Features')
    svm, penalty = linear_probe.fit(features, train.labels, source.num_classes)
    return {
        'accuracy': float(np.mean(svm(extract(test.images, 'Features')) == test.labels)),
        'penalty': penalty,
        'num_features': features.shape[1],
        'num_train': len(features),
        'num_test': len(test.images),
    }


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def guided(act: Activation, x: jax.Array) -> jax.Array:
    """Apply an activation with guided backpropagation (Springenberg et al. 2014, arXiv:1412.6806).

    Only positive gradients pass, and only through units with positive inputs.
    """
    return act(x)


def _guided_forward(act: Activation, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return act(x), x


def _guided_backward(act: Activation, x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where((x > 0) & (gradient > 0), gradient, jnp.zeros_like(gradient)),)


guided.defvjp(_guided_forward, _guided_backward)


def draw_filters(
    networks: Networks, state: GANState, pixels: np.ndarray, out: OutputFolder
) -> None:
    """Write `filters.png`: images that maximally activate filters of D's last stage.

    Below each row of images are their gradients by guided backpropagation (Radford et al. 2015,
    figure 5).

    Args:
        networks: Networks of the run.
        state: State of the run.
        pixels: Candidate images, uint8 `[N, H, W, C]`.
        out: Folder of the results.
    """
    discriminator = per_image_discriminator(networks.discriminator)
    module = discriminator.clone(act=functools.partial(guided, discriminator.act))
    variables = state.discriminator.variables

    def last_map(real: jax.Array) -> jax.Array:
        return feature_maps(module, variables, real)[-1]

    @jax.jit
    def max_activations(batch: jax.Array) -> jax.Array:
        return jnp.max(last_map(images.to_float(batch)), axis=(1, 2))

    @jax.jit
    def gradients(batch: jax.Array, index: jax.Array) -> jax.Array:
        def activation(real: jax.Array) -> jax.Array:
            return jnp.sum(jnp.max(last_map(real)[..., index], axis=(1, 2)))

        return jax.grad(activation)(images.to_float(batch))

    activations = map_batches(max_activations, _BATCH_SIZE, 'Filters', pixels)
    rows = []
    for index in np.argsort(-activations.std(axis=0))[:_FILTERS]:  # Excludes dead filters.
        best = pixels[np.argsort(-activations[:, index])[:_IMAGES_PER_FILTER]]
        grads = np.asarray(gradients(best, jnp.int32(index)))
        scale = np.abs(grads).max(axis=(1, 2, 3), keepdims=True)
        rows += [best, np.asarray(images.to_uint8(grads / np.maximum(scale, 1e-12)))]
    picture = images.grid(np.concatenate(rows), columns=len(rows[0]))
    images.write_png(out.file('filters.png'), picture)


def draw_ablated_channels(sampler: Sampler, state: GANState, seed: int, out: OutputFolder) -> None:
    """Write `ablated_channels.png`: samples, and the same samples with ablated channels.

    Each row ablates one group of input channels of G's first stage, in order of decreasing weight
    norm. Radford et al. 2015 (section 6.3.1) remove windows from images of bedrooms in this way.
    """
    latents = sampler.latents(seed, _IMAGES_PER_FILTER)
    rows = [sampler(state, latents)]
    order = strongest_channels(state.ema_params)
    size = max(1, len(order) // _GROUP_DIVISOR)
    starts = range(0, min(_GROUPS * size, len(order)), size)
    for start in tqdm(starts, 'Ablation', unit='group', delay=3, disable=None):
        params = ablate_channels(state.ema_params, order[start : start + size])
        rows.append(sampler(state.replace(ema_params=params), latents))
    picture = images.grid(np.concatenate(rows), columns=_IMAGES_PER_FILTER)
    images.write_png(out.file('ablated_channels.png'), picture)


def strongest_channels(params: Any) -> np.ndarray:
    """Return the stem's channels in order of decreasing weight norm in the first stage."""
    weights = [
        np.square(np.asarray(leaf, np.float64)).sum(axis=(0, 1, 3))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if _is_first_stage_kernel(path)
    ]
    return np.argsort(-np.sum(weights, axis=0))


def ablate_channels(params: Any, channels: np.ndarray) -> Any:
    """Return the parameters with zero weights for some of the stem's channels."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            leaf.at[:, :, channels].set(0.0) if _is_first_stage_kernel(path) else leaf
        ),
        params,
    )


def _is_first_stage_kernel(path: tuple[Any, ...]) -> bool:
    """Return whether a parameter is a kernel `[k, k, C_in, C_out]` of G's first stage."""
    return _FIRST_STAGE.fullmatch('/'.join(part.key for part in path)) is not None
