import builtins
import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from dcgan_jax.metrics import torch_weights
from dcgan_jax.runtime.errors import UserError
from tests.peers import peer

MAGIC = 0x1950A86A20F9469CFC6C


@pytest.fixture
def tensors():
    torch = peer('torch')
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    return collections.OrderedDict(
        conv=base.permute(2, 0, 1),  # strided
        part=base[1, 1:],  # with an offset, in a storage that is shared
        double=torch.tensor([1.5, -2.5], dtype=torch.float64),
        half=torch.tensor([0.5, 7], dtype=torch.float16),
        steps=torch.tensor(17),
        empty=torch.zeros(0, 3),
    )


@pytest.mark.parametrize('zipped', [True, False])
def test_both_formats(tensors, tmp_path, zipped):
    peer('torch').save(tensors, tmp_path / 'w.pth', _use_new_zipfile_serialization=zipped)
    result = torch_weights.read(tmp_path / 'w.pth')
    assert list(result) == list(tensors)
    for name, tensor in tensors.items():
        assert result[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(result[name], tensor.numpy())


@pytest.mark.parametrize('zipped', [True, False])
def test_a_modules_state_dict(tmp_path, zipped):
    """It has `_metadata`, parameters and BatchNorm's counter."""
    torch = peer('torch')
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    path = tmp_path / 'w.pth'
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=zipped)
    result = torch_weights.read(path)
    np.testing.assert_array_equal(result['0.weight'], module[0].weight.detach().numpy())
    assert result['1.num_batches_tracked'] == 0


class Command:
    """Runs a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


class Evaluated:
    def __reduce__(self):
        return builtins.eval, ('1',)


def write(path, pickled, zipped):
    if zipped:
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('w/data.pkl', pickled)
            archive.writestr('w/data/0', bytes(16))
    else:
        start = [pickle.dumps(part, 2) for part in (MAGIC, 1001, {'little_endian': True})]
        path.write_bytes(b''.join([*start, pickled, pickle.dumps([], 2)]))
    return path


@pytest.mark.parametrize('zipped', [True, False])
def test_nothing_is_executed(tmp_path, zipped):
    touched = tmp_path / 'touched'
    pickle.loads(pickle.dumps(Command(touched)))  # such a file is a danger indeed
    touched.unlink()
    for attack in (Command(touched), Evaluated(), {'a': Command(touched)}, np.float64):
        path = write(tmp_path / 'evil.pth', pickle.dumps(attack, 2), zipped)
        with pytest.raises(UserError, match=r'evil.pth .* asks for \S+, which no state_dict needs'):
            torch_weights.read(path)
    assert not touched.exists()


def tensor_pickle(offset=b'K\x00', size=b'K\x02', stride=b'K\x01', storage=b'X\x01\x00\x00\x000'):
    """The pickle of {'a': tensor of one dimension}; its storage has 4 floats."""
    pid = (
        b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\n'
        + storage
        + b'X\x03\x00\x00\x00cpuK\x04tQ'
    )
    call = (
        b'ctorch._utils\n_rebuild_tensor_v2\n(' + pid + offset + size + b'\x85' + stride + b'\x85'
    )
    return b'\x80\x02}X\x01\x00\x00\x00a' + call + b'\x89}tRs.'


def test_tensors_must_lie_within_their_storages(tmp_path):
    path = write(tmp_path / 'w.pth', tensor_pickle(), zipped=True)
    np.testing.assert_array_equal(torch_weights.read(path)['a'], [0, 0])
    beyond = {
        'size': tensor_pickle(size=b'K\x05'),
        'offset': tensor_pickle(offset=b'K\x03'),
        'stride': tensor_pickle(stride=b'K\x04'),
        'negative offset': tensor_pickle(offset=b'J\xff\xff\xff\xff'),
        'negative stride': tensor_pickle(stride=b'J\xff\xff\xff\xff'),
        'repeated': tensor_pickle(size=b'J\xff\xff\xff\x7f', stride=b'K\x00'),
        'no storage': tensor_pickle(storage=b'X\x01\x00\x00\x007'),
    }
    for content in beyond.values():
        write(path, content, zipped=True)
        with pytest.raises(UserError, match=r'w.pth can not be read as a PyTorch state_dict'):
            torch_weights.read(path)


def test_damaged_and_other_files_are_refused(tensors, tmp_path):
    torch = peer('torch')
    contents = [b'', b'text', pickle.dumps({'a': 1})]
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
        contents += [file.getvalue()[:size] for size in (5, 300, len(file.getvalue()) - 3)]
    file = io.BytesIO()
    torch.save({'weights': tensors}, file)  # not a flat one
    contents.append(file.getvalue())
    for content in contents:
        (tmp_path / 'w.pth').write_bytes(content)
        with pytest.raises(UserError, match=r'w.pth can not be read') as error:
            torch_weights.read(tmp_path / 'w.pth')
        assert '\n' not in str(error.value)
    with pytest.raises(UserError, match=r'none.pth can not be read .*FileNotFoundError'):
        torch_weights.read(tmp_path / 'none.pth')


def test_compressed_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / 'w.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('w/data.pkl', bytes(1000))
    with pytest.raises(UserError, match='compressed'):
        torch_weights.read(tmp_path / 'w.pth')
