"""Compile a config's training step for TPUs with libtpu, on a machine without TPUs.

    pip install "libtpu==0.0.42.*"  # The release that jax[tpu] requires for the installed jax.
    python -m benchmarks.tpu_compile --config=cifar10 --set=dtype=bfloat16 --topology=v5e:2x4

Prints a JSON line for each config, topology and number of chips, with the duration of the
compilation and the compiler's analysis of one chip's program. Nothing runs on a TPU. The data set
consists of one batch, because the compiler's analysis counts a gather as a read of the whole data
set; the size of the real data set adds to `argument_bytes`. 'roofline_ms' is the larger of
FLOPs / peak rate (for bfloat16 operands) and bytes / bandwidth. If the compiler ends with a
segmentation fault, its stack is too small: run `ulimit -s unlimited` first.
"""

import argparse
import importlib.metadata
import os
import time

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks import measure, program
from dcgan_jax.runtime import sharding

# Peak FLOP/s in bfloat16 and bytes/s of one chip (https://cloud.google.com/tpu/docs/v6e).
_RATES = {'v5e': (197e12, 819e9), 'v6e': (918e12, 1640e9)}
_ACCELERATOR_TYPES = {'v5e': 'v5litepod-8', 'v6e': 'v6e-8'}


def tpu_mesh(topology: str, num_devices: int) -> Mesh:
    """Return a mesh over the first devices of a topology such as 'v5e:2x4'."""
    os.environ['TPU_SKIP_MDS_QUERY'] = '1'  # Avoids queries of the cloud metadata server.
    os.environ['TPU_WORKER_HOSTNAMES'] = 'localhost'
    os.environ['ALLOW_MULTIPLE_LIBTPU_LOAD'] = '1'  # No TPU is used, so no lock is needed.
    os.environ['TPU_ACCELERATOR_TYPE'] = _ACCELERATOR_TYPES[topology.split(':')[0]]
    devices = topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
    return Mesh(np.asarray(devices[:num_devices]), (sharding.AXIS,))


def compile_update(config: ConfigDict, topology: str, num_devices: int) -> dict[str, object]:
    """Compile one training step for `num_devices` chips.

    Returns:
        Compilation time in seconds and, for one chip, memory in bytes, GFLOPs, traffic in GB, and
        the roofline time in milliseconds.

    Raises:
        KeyError: If the TPU generation of the topology is not in `_RATES`.
    """
    mesh = tpu_mesh(topology, num_devices)
    lowered = program.lower(config, mesh, num_images=config.batch_size)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    flops_rate, bytes_rate = _RATES[topology.split(':')[0]]
    flops, accessed = cost['flops'], cost['bytes accessed']
    return {
        'compile_s': round(seconds, 1),
        'argument_bytes': memory.argument_size_in_bytes,
        'temporary_bytes': memory.temp_size_in_bytes,
        'gflops': round(flops / 1e9, 2),
        'gigabytes_accessed': round(accessed / 1e9, 3),
        'roofline_ms': round(1e3 * max(flops / flops_rate, accessed / bytes_rate), 3),
    }


def main() -> None:
    """Compile each config for each topology and number of chips."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', action='append', help='NAME or configs/NAME.py; default: all')
    parser.add_argument('--set', action='append', default=[], metavar='FIELD=VALUE')
    parser.add_argument('--topology', action='append', help="default: 'v5e:2x4' and 'v6e:2x4'")
    parser.add_argument('--num_devices', action='append', type=int, help='default: 1 and 8')
    flags = parser.parse_args()
    jax.config.update('jax_platforms', 'cpu')
    for name in flags.config or program.config_names():
        config = program.load_config(name, flags.set)
        for topology in flags.topology or ('v5e:2x4', 'v6e:2x4'):
            for num_devices in flags.num_devices or (1, 8):
                measure.report(
                    'tpu_compile',
                    config=name,
                    changes=flags.set,
                    dtype=config.dtype,
                    topology=topology,
                    num_devices=num_devices,
                    libtpu=importlib.metadata.version('libtpu'),
                    **compile_update(config, topology, num_devices),
                )


if __name__ == '__main__':
    main()
