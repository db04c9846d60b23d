"""`--mode=export`: export the networks of a run for use without this package."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from dcgan_jax import models, quantization, run_description, weights
from dcgan_jax.data import degradations
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic
from dcgan_jax.sampling import generate
from dcgan_jax.tasks.discriminator_features import score
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import output_folder
from dcgan_jax.tasks.trained_run import TrainedRun, restore

_FILES = re.compile(r'(generator|discriminator)(_int8)?\.(jaxexport|safetensors|onnx)')
PLATFORMS = ('cpu', 'cuda', 'tpu')


class Program(NamedTuple):
    """A network to export.

    Attributes:
        name: Name of the file without suffix.
        function: Function of (variables, *inputs).
        variables: All collections of the network.
        inputs: Shapes and data types of the inputs by name; strings are symbolic sizes.
        output: Name of the output.
    """

    name: str
    function: Callable[..., jax.Array]
    variables: Any
    inputs: dict[str, tuple[tuple[int | str, ...], Any]]
    output: str


def run(options: TaskOptions) -> TaskResult:
    """Export the EMA generator and, to ONNX, also the discriminator; see docs/export.md.

    Files of the format 'jax': `generator.jaxexport` (a program with its weights for all
    `PLATFORMS`) and `generator.safetensors` (parameters and statistics by name, with the run's
    description as metadata). Files of 'onnx': `generator.onnx` and `discriminator.onnx`. The names
    of files with int8 weights end in '_int8'. Files of an earlier export that are not replaced are
    listed in a warning.

    Args:
        options: Uses `workdir`, `out` (defaults to `workdir/export`), `checkpoint`, `format` and
            `weights`.

    Returns:
        The folder.

    Raises:
        UserError: If there is no intact checkpoint, the folder is not writable, or a package is
            missing.
    """
    trained = restore(options.workdir, options.checkpoint)
    out = output_folder(options, 'export', trained.run.config, trained.check_workdir)
    written = set()
    for name, content in _serialize(trained, options):
        written.add(write_atomic(out.file(name), content).name)
    names = {path.name for path in out.path.iterdir() if _FILES.fullmatch(path.name)}
    if others := sorted(names - written):
        logging.warning(
            '%s also has files of an earlier export, which were not written now: %s',
            *(out.path, ', '.join(others)),
        )
    return TaskResult(out.path)


def _serialize(trained: TrainedRun, options: TaskOptions) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file."""
    suffix = '_int8' if options.weights == 'int8' else ''
    if options.format in ('onnx', 'all'):
        source = with_xla_convolutions(trained)
        for create in (generator, discriminator):
            program = _quantized(create(source), options.weights)
            yield f'{program.name}{suffix}.onnx', to_onnx(program)
    if options.format in ('jax', 'all'):
        # The CPU implementation of convolutions needs static heights and widths.
        takes_images = degradations.takes_images(trained.run.config)
        source = with_xla_convolutions(trained) if takes_images else trained
        program = _quantized(generator(source), options.weights)
        yield f'{program.name}{suffix}.jaxexport', to_jax(program)
        metadata = {'step': int(trained.state.step), **run_description.describe(trained.run)}
        content = weights.serialize(program.variables, metadata)
        yield f'{program.name}{suffix}.safetensors', content


def generator(trained: TrainedRun) -> Program:
    """Return the EMA generator, a function from latents or degraded images to uint8 images."""
    config, networks = trained.run.config, trained.networks
    variables = jax.device_get(trained.sampler.variables(trained.state))

    def function(variables: Any, inputs: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        if labels is not None:
            labels = networks.conditioner.first(labels)
        return generate(networks.generator, variables, inputs, labels)

    if degradations.takes_images(config):
        stride = int(np.prod(config.generator.strides))
        height, width = (f'{stride}*{name}' for name in 'hw')
        shape = ('b', height, width, trained.run.image_shape[-1] + 1)
        return Program('generator', function, variables, {'inputs': (shape, np.float32)}, 'images')
    inputs = {'latents': (('b', config.latent_dim), np.float32)}
    if config.conditional:
        inputs['labels'] = ('b',), np.int32
    return Program('generator', function, variables, inputs, 'images')


def discriminator(trained: TrainedRun) -> Program:
    """Return the discriminator, a function from uint8 images to logits, float32 `[b]`."""
    networks = trained.networks
    variables = jax.device_get(trained.state.discriminator.variables)

    def function(variables: Any, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        labels = np.zeros(1, np.int32) if labels is None else networks.conditioner.first(labels)
        return score(networks.discriminator, variables, images, labels)

    inputs = {'images': (('b', *trained.run.image_shape), np.uint8)}
    if trained.run.config.conditional:
        inputs['labels'] = ('b',), np.int32
    return Program('discriminator', function, variables, inputs, 'logits')


def with_xla_convolutions(trained: TrainedRun) -> TrainedRun:
    """Return a run whose networks compute in float32 with XLA's convolutions.

    jax2onnx converts these to ONNX convolutions. The variables are the same.
    """
    run = trained.run
    config = run.config.copy_and_resolve_references().unlock()
    config.update(conv_impl='xla', dtype='float32')
    run = run._replace(config=config.lock())
    networks = models.build(run.config, run.image_shape, run.num_classes)
    return TrainedRun(run, networks, trained.state)


def to_jax(program: Program) -> bytes:
    """Serialize a program with `jax.export`; symbolic sizes may have any value."""
    from jax import export as jax_export

    scope = jax_export.SymbolicScope()
    arguments = [
        jax.ShapeDtypeStruct(
            jax_export.symbolic_shape(', '.join(map(str, shape)), scope=scope), dtype
        )
        for shape, dtype in program.inputs.values()
    ]
    function = jax.jit(functools.partial(program.function, program.variables))
    return bytes(jax_export.export(function, platforms=PLATFORMS)(*arguments).serialize())


def to_onnx(program: Program) -> bytes:
    """Convert a program to ONNX with jax2onnx.

    Raises:
        UserError: If jax2onnx is not installed.
    """
    try:
        import jax2onnx
    except ImportError as error:
        raise UserError(
            f'--format=onnx needs jax2onnx ({error}): pip install -r requirements-export.txt'
        ) from error
    model = jax2onnx.to_onnx(
        functools.partial(program.function, program.variables),
        [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in program.inputs.values()],
        model_name=program.name,
        input_names=list(program.inputs),
        output_names=[program.output],
    )
    # Shapes of intermediate results are optional; ONNX Runtime warns that some are transposed.
    model.graph.ClearField('value_info')
    return model.SerializeToString()


def _quantized(program: Program, weights_type: str) -> Program:
    if weights_type == 'float32':
        return program

    def function(quantized: Any, *inputs: jax.Array) -> jax.Array:
        return program.function(quantization.dequantize(quantized), *inputs)

    return program._replace(function=function, variables=quantization.quantize(program.variables))
