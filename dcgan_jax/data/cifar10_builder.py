"""TFDS builder of CIFAR-10 that does not need TensorFlow.

The builder of TFDS 4.9.10 uses TensorFlow to extract and read the archive and to encode images.
This builder writes the same records in the same order to DATA_DIR/cifar10/3.0.2, which
`tfds.data_source('cifar10')` can read as well.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from dcgan_jax.runtime import download
from dcgan_jax.runtime.errors import UserError

ARCHIVE_URL = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'
ARCHIVE_SHA256 = 'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd'
CLASSES = (
    *('airplane', 'automobile', 'bird', 'cat', 'deer'),
    *('dog', 'frog', 'horse', 'ship', 'truck'),
)

_FILES = {
    'train': [f'cifar-10-batches-bin/data_batch_{i}.bin' for i in range(1, 6)],
    'test': ['cifar-10-batches-bin/test_batch.bin'],
}
_SIZE = 32  # Height and width in pixels.
_RECORD_BYTES = 1 + 3 * _SIZE * _SIZE  # The label, then the red, green and blue planes.


def fetch_archive(path: Path) -> None:
    """Download the archive to `path` unless it exists, and check its checksum.

    Raises:
      UserError: If the download fails or the checksum is wrong.
    """
    remedy = f'try again, put the archive at {path}, or set data_dir to a folder with CIFAR-10'
    download.fetch(ARCHIVE_URL, path, ARCHIVE_SHA256, remedy)


def read_archive(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the archive into memory.

    Returns:
      {split: (images uint8 [N, 32, 32, 3], labels uint8 [N])} in the order of the files.

    Raises:
      UserError: If the archive is damaged, or a file is missing or of the wrong size.
    """
    expected = {name for names in _FILES.values() for name in names}
    try:
        with tarfile.open(path, 'r:gz') as tar:
            contents = {
                member.name: tar.extractfile(member).read()
                for member in tar
                if member.name in expected and member.isfile()
            }
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UserError(f'cannot read {path} ({error}): delete it and try again') from error
    for name in sorted(expected):
        size = len(contents.get(name, b''))
        if size == 0 or size % _RECORD_BYTES:
            raise UserError(
                f'{path}: {name} has {size} bytes, not a positive multiple of {_RECORD_BYTES}: '
                'delete the archive and try again'
            )
    return {
        split: _parse(b''.join(contents[name] for name in names)) for split, names in _FILES.items()
    }


def _parse(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD_BYTES)
    planes = records[:, 1:].reshape(-1, 3, _SIZE, _SIZE)
    return planes.transpose(0, 2, 3, 1), records[:, 0]


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS builder; not registered, because TFDS has a builder of the same name."""

    VERSION = tfds.core.Version('3.0.2')

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description='CIFAR-10: 50,000 training and 10,000 test images of 10 classes, lossless.',
            features=tfds.features.FeaturesDict(
                {
                    'id': tfds.features.Text(),
                    'image': tfds.features.Image(shape=(_SIZE, _SIZE, 3)),
                    'label': tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            supervised_keys=('image', 'label'),
            homepage='https://www.cs.toronto.edu/~kriz/cifar.html',
            citation=(
                'A. Krizhevsky. Learning multiple layers of features from tiny images. '
                'Technical report, University of Toronto, 2009.'
            ),
        )

    def _split_generators(self, dl_manager):
        path = Path(dl_manager.download_dir) / ARCHIVE_URL.rsplit('/', 1)[-1]
        fetch_archive(path)
        return {
            split: self._generate_examples(split, images, labels)
            for split, (images, labels) in read_archive(path).items()
        }

    def _generate_examples(self, split, images, labels) -> Iterator[tuple[int, dict]]:
        # TFDS uses the same keys; their hash determines the order of the records.
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield (
                index,
                {
                    'id': f'{split}_{index:05d}',
                    'image': PIL.Image.fromarray(image),  # TFDS encodes arrays with TensorFlow.
                    'label': int(label),
                },
            )
