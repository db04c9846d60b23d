"""Worker of `benchmarks.deploy`: generates images with one runtime.

Prints a JSON line when the first image is ready. For each line COUNT on stdin, it generates COUNT
batches and prints the list of their durations in seconds.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Generate = Callable[[np.ndarray], np.ndarray]  # From latents [B, latent_dim] to uint8 images.


def sampler(run: Path, exported: Path) -> tuple[Generate, str]:
    """Return the jitted EMA generator of a run."""
    import functools

    import jax

    from dcgan_jax.sampling import generate
    from dcgan_jax.tasks.trained_run import restore

    trained = restore(run)
    variables = trained.sampler.variables(trained.state)
    function = jax.jit(functools.partial(generate, trained.networks.generator))
    return lambda z: np.asarray(function(variables, z, None)), f'jax {jax.__version__}'


def jax_export(run: Path, exported: Path) -> tuple[Generate, str]:
    """Return the program in `generator.jaxexport`."""
    import jax
    from jax import export

    program = export.deserialize(bytearray((exported / 'generator.jaxexport').read_bytes()))
    function = jax.jit(program.call)
    return lambda z: np.asarray(function(z)), f'jax {jax.__version__}'


def onnx(run: Path, exported: Path, name: str = 'generator.onnx') -> tuple[Generate, str]:
    """Return a function that runs an ONNX file of `exported` in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(
        exported / name, options, providers=['CPUExecutionProvider']
    )
    return (
        lambda z: session.run(None, {'latents': z})[0],
        f'onnxruntime {onnxruntime.__version__}',
    )


def onnx_int8(run: Path, exported: Path) -> tuple[Generate, str]:
    """Return a function that runs the ONNX file with int8 weights in ONNX Runtime."""
    return onnx(run, exported, 'generator_int8.onnx')


def torch_eager(run: Path, exported: Path, compiled: bool = False) -> tuple[Generate, str]:
    """Return the same generator in PyTorch, with the exported weights."""
    import torch

    from benchmarks.peer_workers.torch_worker import load_generator

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    module = load_generator(exported / 'generator.safetensors')
    if compiled:
        module = torch.compile(module.to(memory_format=torch.channels_last))

    @torch.inference_mode()
    def generate(latents: np.ndarray) -> np.ndarray:
        images = (module(torch.from_numpy(latents)) + 1.0) * 127.5
        return images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()

    return generate, f'torch {torch.__version__}'


def torch_compiled(run: Path, exported: Path) -> tuple[Generate, str]:
    """Return the same generator compiled by PyTorch, with channels last."""
    return torch_eager(run, exported, compiled=True)


RUNTIMES = {
    function.__name__: function
    for function in (sampler, jax_export, onnx, onnx_int8, torch_eager, torch_compiled)
}


def main() -> None:
    """Serve one runtime."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('runtime', choices=RUNTIMES)
    parser.add_argument('--workdir', type=Path, required=True)
    parser.add_argument('--exported', type=Path, required=True)
    parser.add_argument('--latent_dim', type=int, required=True)
    parser.add_argument('--batch_size', type=int, required=True)
    parser.add_argument('--cores', type=int, default=0, help='0 means all')
    flags = parser.parse_args()
    if flags.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: flags.cores])
    generate, version = RUNTIMES[flags.runtime](flags.workdir, flags.exported)
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(flags.batch_size, flags.latent_dim)).astype(np.float32)
    images = generate(latents)
    print(json.dumps({'version': version, 'mean': float(images.mean())}), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            generate(latents)
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == '__main__':
    main()
