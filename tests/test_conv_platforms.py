import importlib.util

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from benchmarks import program
from dcgan_jax.runtime import sharding
from tests.conftest import slow, slow_except

DEFAULT = 'cifar10', 'cifar10_tutorial'


@pytest.mark.parametrize('name', slow_except(program.config_names(), *DEFAULT))
def test_every_update_lowers_for_cuda_and_tpu(name):
    mesh = Mesh(np.asarray(jax.devices('cpu')[:1]), (sharding.AXIS,))
    config = program.load_config(name, ['batch_size=16'])
    text = program.lower(config, mesh, platforms=('cuda', 'tpu')).as_text()
    assert 'mhlo.num_partitions = 1' in text
    assert 'stablehlo.convolution' in text  # On CPUs there would be only matrix products.


@pytest.mark.parametrize('platform', [slow('cuda'), 'tpu'])
def test_accelerators_use_convolutions(platform):
    mesh = Mesh(np.asarray(jax.devices('cpu')[:1]), (sharding.AXIS,))
    config = program.load_config('quickstart')
    lowered = program.lower(config, mesh, platforms=(platform,))
    assert 'stablehlo.convolution' in lowered.as_text()


@pytest.mark.tpu
@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason='needs libtpu')
def test_update_compiles_for_tpus():
    from benchmarks import tpu_compile

    config = program.load_config('quickstart', ['dtype=bfloat16'])
    one, eight = (tpu_compile.compile_update(config, 'v5e:2x4', count) for count in (1, 8))
    # Each of eight chips has an eighth of the batch.
    assert one['gflops'] / 10 < eight['gflops'] < one['gflops'] / 6
