"""Image files of all formats, written by Pillow or from bytes."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, features

from dcgan_jax.configs import default
from dcgan_jax.data import image_files, sources
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks.image_to_image import read_user_images

FORMATS = [
    'jpg', 'jfif', 'png', 'webp', 'tif', 'gif', 'bmp', 'ppm', 'jp2',
    pytest.param(
        'avif', marks=pytest.mark.skipif(not features.check('avif'), reason='Pillow has no AVIF')
    ),
]  # fmt: skip


def halves(left, right, width=16, height=8):
    pixels = np.full((height, width, 3), right, np.uint8)
    pixels[:, : width // 2] = left
    return Image.fromarray(pixels)


def oriented(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize('suffix', FORMATS)
def test_formats(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    halves(200, 40).save(path)
    assert image_files.read_header(path).size == (16, 8)
    assert f'.{suffix}' in image_files.supported_formats()
    pixels = image_files.read_image(path, 'RGB').astype(int)
    expected = np.asarray(halves(200, 40)).astype(int)
    assert abs(pixels - expected)[:, [0, 5, 10, 15]].max() <= 8  # Some formats are lossy.


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_sizes_and_pixels_are_those_of_the_upright_image(tmp_path, suffix, orientation):
    """In the EXIF specification, row 0 and column 0 are the (top, left), (top, right), ..."""
    path = tmp_path / f'a.{suffix}'
    stored = halves(200, 40)
    stored.save(path, exif=oriented(orientation))
    stored = np.asarray(stored)[..., 0].astype(int)
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.T,
        6: stored[::-1].T, 7: stored[::-1, ::-1].T, 8: stored[:, ::-1].T,
    }[orientation]  # fmt: skip
    assert image_files.read_header(path).size == upright.shape[::-1]
    pixels = image_files.read_image(path, 'RGB')[..., 0].astype(int)
    assert pixels.shape == upright.shape
    assert np.median(abs(pixels - upright)) <= 4


def test_orientation_after_the_pixels_of_a_png_is_read(tmp_path):
    path = tmp_path / 'a.png'
    halves(200, 40).save(path)
    body = oriented(6).tobytes().removeprefix(b'Exif\0\0')
    chunk = b'eXIf' + body
    chunk = struct.pack('>I', len(body)) + chunk + struct.pack('>I', zlib.crc32(chunk))
    content = path.read_bytes()
    path.write_bytes(content[:-12] + chunk + content[-12:])
    assert image_files.read_header(path).size == (8, 16)
    assert image_files.read_image(path, 'RGB').shape == (16, 8, 3)


def test_bytes_after_the_end_of_a_png_are_not_searched(tmp_path):
    path = tmp_path / 'a.png'
    halves(200, 40).save(path)
    size = image_files.read_header(path).size
    with path.open('ab') as file:
        file.write(b'\0\0\0\0eXIf\0\0\0\0')
        file.truncate(2**36)  # A sparse file.
    assert not image_files._has_exif_chunk(path)
    assert image_files.read_header(path).size == size


def test_upright_images_of_different_sizes_are_rejected(tmp_path):
    halves(200, 40).save(tmp_path / 'a.jpg')
    halves(200, 40).save(tmp_path / 'b.jpg', exif=oriented(6))
    with pytest.raises(UserError, match=r'b\.jpg has 8x16 pixels, .*a\.jpg 16x8'):
        read_user_images(str(tmp_path), 3, default.get_config().data, None)


def test_images_of_equal_upright_size_are_accepted(tmp_path):
    halves(200, 40).save(tmp_path / 'a.png')
    halves(200, 40, 8, 16).save(tmp_path / 'b.png', exif=oriented(6))
    assert read_user_images(str(tmp_path), 3, default.get_config().data, None).pixels.shape == (
        2,
        8,
        16,
        3,
    )


@pytest.mark.parametrize('suffix', ['png', 'tif', 'pgm'])
def test_16_bit_gray_is_scaled_to_8_bits(tmp_path, suffix, caplog):
    caplog.set_level('INFO')
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / f'a.{suffix}')
    source = sources.open_source('folder', data_dir=str(tmp_path))
    assert source.image_shape == (8, 8, 1)
    pixels = source.read(np.zeros(1, int)).images[0, ..., 0]
    np.testing.assert_array_equal(pixels, np.round(values / 65535 * 255))
    assert '1 with 16 bits, scaled to 8' in caplog.text


def tiff(values, bits, photometric):
    """Return an uncompressed little-endian TIFF file with one strip of bytes `values`."""
    side = 8
    tags = {256: side, 257: side, 258: bits, 259: 1, 262: photometric, 277: 1, 278: side}
    offset = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags |= {273: offset, 279: len(values)}
    entries = b''.join(struct.pack('<HHIHH', tag, 3, 1, tags[tag], 0) for tag in sorted(tags))
    return b'II*\0' + struct.pack('<IH', 8, len(tags)) + entries + bytes(4) + values


def test_tiff_with_white_as_zero_is_inverted(tmp_path):
    values = np.linspace(0, 65535, 64).astype('<u2').reshape(8, 8)
    (tmp_path / 'a.tif').write_bytes(tiff(values.tobytes(), 16, 0))
    pixels = image_files.read_image(tmp_path / 'a.tif', 'L')[..., 0]
    np.testing.assert_array_equal(pixels, 255 - np.round(values / 65535 * 255))


def test_12_bit_tiff_uses_the_whole_range(tmp_path):
    values = np.linspace(0, 4095, 64).astype(int)
    bits = ''.join(f'{value:012b}' for value in values)
    packed = bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8))
    (tmp_path / 'a.tif').write_bytes(tiff(packed, 12, 1))
    pixels = image_files.read_image(tmp_path / 'a.tif', 'L')[..., 0]
    np.testing.assert_array_equal(pixels.ravel(), np.round(values / 4095 * 255))


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_pixels_of_unknown_range_are_rejected(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / 'a.tif')
    with pytest.raises(UserError, match=rf'a\.tif .*mode {mode} of Pillow'):
        image_files.read_image(tmp_path / 'a.tif', 'L')


def test_read_image_registers_the_formats_of_pillow(tmp_path):
    """The mask of --mode=inpaint is read without scanning a folder."""
    Image.new('RGB', (4, 4)).save(tmp_path / 'a.tif')
    code = (
        'import sys; from dcgan_jax.data.image_files import read_image; '
        'print(read_image(sys.argv[1], "RGB").shape)'
    )
    command = [sys.executable, '-c', code, str(tmp_path / 'a.tif')]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == '(4, 4, 3)\n'


def test_16_bit_color_is_reduced_to_its_higher_bits(tmp_path):
    values = np.arange(0, 65536, 683).reshape(4, 8, 3)

    def chunk(kind, body):
        return (
            struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
        )

    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    (tmp_path / 'a.png').write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', 8, 4, 16, 2, 0, 0, 0))
        + chunk(b'IDAT', zlib.compress(rows))
        + chunk(b'IEND', b'')
    )
    np.testing.assert_array_equal(image_files.read_image(tmp_path / 'a.png', 'RGB'), values >> 8)


def test_first_frame_of_a_gif_is_read(tmp_path):
    frames = [Image.new('RGB', (4, 4), (value, 0, 0)) for value in (50, 100)]
    frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
    assert image_files.read_image(tmp_path / 'a.gif', 'RGB')[0, 0].tolist() == [50, 0, 0]


def test_formats_of_installed_plugins_are_read(tmp_path, monkeypatch):
    """HEIF needs a plugin, which BMP's decoder replaces here."""
    factory, _ = Image.OPEN['BMP']
    assert '.heic' not in image_files.supported_formats() or 'HEIF' in Image.OPEN
    monkeypatch.setitem(Image.OPEN, 'HEIF', (factory, lambda start: start[:2] == b'BM'))
    monkeypatch.setattr(Image, 'ID', [*Image.ID, 'HEIF'])
    monkeypatch.setitem(Image.EXTENSION, '.heic', 'HEIF')
    halves(200, 40).save(tmp_path / 'a.heic', 'BMP')
    assert sources.open_source('folder', data_dir=str(tmp_path), image_size=8).image_shape == (
        8,
        8,
        3,
    )


def test_transparent_value_of_16_bit_gray_becomes_white(tmp_path):
    values = np.asarray([[0, 1000], [65535, 30000]], np.uint16)
    Image.fromarray(values).save(tmp_path / 'a.png', transparency=1000)
    pixels = image_files.read_image(tmp_path / 'a.png', 'L')[..., 0]
    assert pixels.tolist() == [[0, 255], [255, 117]]
