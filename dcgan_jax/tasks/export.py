"""`--mode=export`: the averaged generator, for programs that do not have this code."""

import functools
import json
from typing import Any

import flax
import jax
import numpy as np
import safetensors.numpy
from etils import epath

from dcgan_jax import run_dir
from dcgan_jax.data import captions
from dcgan_jax.runtime.files import write_atomic
from dcgan_jax.sampling import Sampler, generate
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import restore

PLATFORMS = ('cpu', 'cuda', 'tpu')
PROGRAM, TENSORS = 'generator.jaxexport', 'generator.safetensors'


def run(options: TaskOptions) -> str:
    """Returns what the command line prints, see `TaskOptions`."""
    return f'exported: {export(options.workdir, options.out, options.checkpoint)}'


def export(
    workdir: epath.PathLike, out: epath.PathLike | None, which: str = 'latest'
) -> epath.Path:
    """Writes the average of the run in `workdir` in two forms; docs/export.md reads them.

    Args:
        workdir: of a training run.
        out: folder for `generator.jaxexport` (a program with its weights: latents float32 [b,
            latent_dim], with classes also labels int32 [b], to images uint8 [b, H, W, C], for
            `PLATFORMS`) and `generator.safetensors` (its parameters and statistics by name,
            float32, and the run's config as metadata); `workdir/export` when None.
        which: checkpoint, see `restore`.

    Returns:
        The folder.

    Raises:
        UserError: no run or no whole checkpoint in `workdir`, or `out` isn't writable.
    """
    run, networks, state = restore(workdir, which, require_latents=True)
    out = run_dir.check_writable(out or epath.Path(workdir).expanduser() / 'export', '--out')
    variables = jax.device_get(Sampler(networks.generator, run.config).variables(state))
    program = functools.partial(generate, networks.generator, variables)
    write_atomic(out / PROGRAM, serialized(program, run))
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


def serialized(program: Any, run: run_dir.Run) -> bytes:
    """`program(latents, labels)`, or of latents alone without classes, as `jax.export` has it."""
    from jax import export

    (batch,) = export.symbolic_shape('b')
    arguments = [jax.ShapeDtypeStruct((batch, run.config.latent_dim), np.float32)]
    if run.config.conditional:
        program = functools.partial(_by_first_caption, program, captions.num_captions(run.config))
        arguments.append(jax.ShapeDtypeStruct((batch,), np.int32))
    else:
        program = functools.partial(program, labels=None)
    exported = export.export(jax.jit(program), platforms=PLATFORMS)(*arguments)
    return bytes(exported.serialize())


def _by_first_caption(
    program: Any, captions_per_class: int, latents: jax.Array, labels: jax.Array
) -> Any:
    """Programs take classes, be they told to the generator by number or by caption."""
    return program(latents, labels * captions_per_class)
