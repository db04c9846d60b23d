"""`--mode=export`: export the EMA generator for use without this package."""

import functools
import json
from typing import Any

import flax
import jax
import numpy as np
import safetensors.numpy
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import run_dir
from dcgan_jax.data.conditioner import Conditioner
from dcgan_jax.runtime.files import write_atomic
from dcgan_jax.sampling import generate
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import output_folder, restore

PLATFORMS = ('cpu', 'cuda', 'tpu')
PROGRAM, TENSORS = 'generator.jaxexport', 'generator.safetensors'


def run(options: TaskOptions) -> str:
    """Run the task and return the text to print."""
    return f'exported: {export(options.workdir, options.out, options.checkpoint)}'


def export(
    workdir: epath.PathLike, out: epath.PathLike | None, which: str = 'latest'
) -> epath.Path:
    """Export the EMA generator of a run with `jax.export` and as safetensors; see docs/export.md.

    Args:
        workdir: Folder of a training run.
        out: Folder for `generator.jaxexport` (a program with its weights for all `PLATFORMS`, from
            latents float32 `[b, latent_dim]` and, for conditional runs, labels int32 `[b]` to
            images uint8 `[b, H, W, C]`) and `generator.safetensors` (float32 parameters and
            statistics by name, with the run's config as metadata); defaults to `workdir/export`.
        which: Checkpoint, 'latest' or 'best'.

    Returns:
        The folder.

    Raises:
        UserError: If there is no intact checkpoint in `workdir` or `out` is not writable.
    """
    trained = restore(workdir, which, require_latents=True)
    run, networks, state = trained.run, trained.networks, trained.state
    out = output_folder(out, workdir, 'export', run.config)
    variables = jax.device_get(trained.sampler.variables(state))
    program = functools.partial(generate, networks.generator, variables)
    write_atomic(out / PROGRAM, serialize(program, run.config, networks.conditioner))
    metadata = {
        'step': str(int(state.step)),
        **{name: json.dumps(value) for name, value in run_dir.describe(run).items()},
    }
    tensors = {
        name: np.ascontiguousarray(value)
        for name, value in flax.traverse_util.flatten_dict(variables, sep='/').items()
    }
    write_atomic(out / TENSORS, safetensors.numpy.save(tensors, metadata))
    return out


def serialize(program: Any, config: ConfigDict, conditioner: Conditioner) -> bytes:
    """Serialize `program(latents, labels)`, without labels for unconditional runs."""
    from jax import export

    (batch,) = export.symbolic_shape('b')
    arguments = [jax.ShapeDtypeStruct((batch, config.latent_dim), np.float32)]
    if config.conditional:
        program = functools.partial(_with_first_condition, program, conditioner)
        arguments.append(jax.ShapeDtypeStruct((batch,), np.int32))
    else:
        program = functools.partial(program, labels=None)
    exported = export.export(jax.jit(program), platforms=PLATFORMS)(*arguments)
    return bytes(exported.serialize())


def _with_first_condition(
    program: Any, conditioner: Conditioner, latents: jax.Array, labels: jax.Array
) -> Any:
    return program(latents, conditioner.first(labels))
