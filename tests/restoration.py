"""Restoration runs by kind of degradation, for small images."""

from dcgan_jax.configs import colorization_cifar10, inpainting_cifar10, super_resolution_cifar10
from dcgan_jax.tasks import inpaint, super_resolve, translate
from dcgan_jax.tasks.options import TaskOptions
from tests.conftest import slow_except, tiny_config
from tests.extractors import write_artifact

KINDS = {
    'low_resolution': super_resolution_cifar10,
    'masked': inpainting_cifar10,
    'gray': colorization_cifar10,
}
BY_KIND = slow_except(KINDS, 'masked', 'gray')
TASKS = {'low_resolution': super_resolve, 'masked': inpaint, 'gray': translate}


def restoration_config(data_dir, kind, **changes):
    """Return a restoration config for 16x16 images that trains in seconds."""
    config = tiny_config(data_dir)
    recipe = KINDS[kind].get_config()
    config.input, config.loss, config.ema = recipe.input, recipe.loss, recipe.ema
    config.generator = recipe.generator
    config.generator.update(features=(8, 8), strides=(2, 1, 1), kernel_sizes=(4, 3, 3))
    config.data.image_size = 16
    config.update_from_flattened_dict(changes)
    return config


def given_config(data_dir, tmp_path, kind):
    """Return a config with a small extractor, to be passed to a task."""
    given = restoration_config(data_dir, kind)
    given.evaluation.extractor = str(
        write_artifact(tmp_path / 'tiny.jaxexport', shape='b, 16, 16, 3')
    )
    given.evaluation.update(split='train', num_samples=40, batch_size=16)
    return given


def run_task(kind, workdir, given, out, pictures=None, num=8, mask=None):
    """Run the restoration task of a kind."""
    options = TaskOptions(
        workdir=workdir,
        config=given,
        out=out,
        images=pictures,
        mask=mask,
        num=num if pictures is None else None,
    )
    return TASKS[kind].run(options)
