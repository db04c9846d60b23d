import pickle

import numpy as np
import pytest

from dcgan_jax.metrics import torch_weights
from tests.peers import peer


@pytest.mark.slow
def test_state_dict_is_read(tmp_path):
    """The file contains `_metadata`, parameters and BatchNorm's counter."""
    torch = peer('torch')
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 5), torch.nn.BatchNorm2d(3))
    torch.save(module.state_dict(), tmp_path / 'w.pth', _use_new_zipfile_serialization=False)
    result = torch_weights.read(tmp_path / 'w.pth')
    assert list(result) == list(module.state_dict())
    for name, tensor in module.state_dict().items():
        assert result[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(result[name], tensor.numpy())


@pytest.mark.parametrize('function', [print, np.float64])
def test_other_names_are_not_unpickled(tmp_path, function):
    (tmp_path / 'w.pth').write_bytes(pickle.dumps(function, 2))
    with pytest.raises(KeyError):
        torch_weights.read(tmp_path / 'w.pth')
