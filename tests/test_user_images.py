import io
import os
import zlib

import numpy as np
import pytest
from PIL import Image

from dcgan_jax.configs import default
from dcgan_jax.data import user_images
from dcgan_jax.data.images import center_crop
from dcgan_jax.runtime.errors import UserError


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (70, 5, 7, 3), np.uint8)


def read(path, image_size=0):
    fields = default.get_config().data
    fields.image_size = image_size
    batches, count = user_images.open_images(path, fields)
    pixels = np.concatenate(list(batches))
    assert len(pixels) == count
    return pixels


def test_npz_files(images, tmp_path):
    np.savez_compressed(tmp_path / 'a.npz', images=images, latents=np.zeros(3))
    np.savez(tmp_path / 'b.npz', anything=images)
    for name in ('a.npz', 'b.npz'):
        np.testing.assert_array_equal(read(tmp_path / name), images)


def test_folders_are_read_in_order_with_their_subfolders(images, tmp_path):
    (tmp_path / 'sub').mkdir()
    for index, image in enumerate(images):
        folder = tmp_path / 'sub' if index >= 40 else tmp_path
        Image.fromarray(image).save(folder / f'{index:03d}.{"PNG" if index % 2 else "png"}')
    (tmp_path / 'notes.txt').write_text('no image')
    np.testing.assert_array_equal(read(tmp_path), images)


def test_jpeg_and_gray_files(tmp_path):
    gray = np.full((8, 8), 100, np.uint8)
    Image.fromarray(gray).save(tmp_path / 'a.jpeg')
    Image.fromarray(gray).save(tmp_path / 'b.png')
    np.testing.assert_array_equal(read(tmp_path), np.full((2, 8, 8, 1), 100))


def header_of_a_huge_png():
    content = io.BytesIO()
    Image.new('L', (1, 1)).save(content, 'PNG')
    png = bytearray(content.getvalue())
    png[16:24] = (9000).to_bytes(4, 'big') * 2  # width and height
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, 'big')
    return bytes(png)


def test_invalid_image_files_are_rejected(images, tmp_path):
    def png(image):
        content = io.BytesIO()
        Image.fromarray(image).save(content, 'PNG')
        return content.getvalue()

    wrong = {
        'has 7x4 pixels': png(images[0, :4]),
        'cannot be decoded': png(images[0])[:60],
        r'9000x9000 pixels': header_of_a_huge_png(),
        'cannot identify image file': b'GIF89a',
    }
    (tmp_path / 'a.png').write_bytes(png(images[0]))
    for message, content in wrong.items():
        (tmp_path / 'b.png').write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            read(tmp_path)
        assert 'b.png' in str(error.value)


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'images': np.zeros((2, 4, 4, 3))}, r'float64 \[2, 4, 4, 3\]'),
        ({'images': np.zeros((2, 4, 4), np.uint8)}, r'uint8 \[2, 4, 4\]'),
        ({'images': np.zeros((0, 4, 4, 3), np.uint8)}, r'uint8 \[0, 4, 4, 3\]'),
        ({'a': np.zeros(1), 'b': np.zeros(1)}, r"has arrays \['a', 'b'\]"),
        ({'images': np.zeros((2, 4, 4, 2), np.uint8)}, r'uint8 \[2, 4, 4, 2\]'),
        ({'images': np.array([{}])}, '--images='),
        ({}, 'has arrays'),
    ],
)
def test_invalid_npz_files_are_rejected(tmp_path, arrays, message):
    np.savez(tmp_path / 'x.npz', **arrays)
    with pytest.raises(UserError, match=message):
        read(tmp_path / 'x.npz')


def test_npz_files_are_limited_in_size(images, tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / 'x.npz', images=np.zeros_like(images))
    monkeypatch.setattr(user_images, 'MAX_BYTES', images.nbytes - 1)
    with pytest.raises(UserError, match='more than 7,349'):
        read(tmp_path / 'x.npz')
    (tmp_path / 'x.npz').write_bytes(b'PK')
    with pytest.raises(UserError, match='not a zip file'):
        read(tmp_path / 'x.npz')


def test_user_images_are_resized_if_the_training_images_are(images, tmp_path, caplog):
    caplog.set_level('INFO')
    np.savez(tmp_path / 'a.npz', images=images)
    (tmp_path / 'set').mkdir()
    Image.fromarray(images[0]).save(tmp_path / 'set' / 'a.png')
    Image.fromarray(images[1].transpose(1, 0, 2)).save(tmp_path / 'set' / 'b.png')
    expected = np.stack([center_crop(image, 4) for image in images])
    np.testing.assert_array_equal(read(tmp_path / 'a.npz', 4), expected)
    found = read(tmp_path / 'set', 4)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], center_crop(images[1].transpose(1, 0, 2), 4))
    lines = [line for line in caplog.messages if 'resized to 4x4 pixels, as in training' in line]
    assert len(lines) == 2, 'Each call logs one line.'


def test_pipe_is_rejected_without_blocking(tmp_path):
    os.mkfifo(tmp_path / 'a.npz')
    with pytest.raises(UserError, match='a pipe, socket or device'):
        read(tmp_path / 'a.npz')
