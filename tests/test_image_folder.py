"""Files written by Pillow, their pixels known; headers of bad ones are written by hand."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dcgan_jax.data import input_pipeline, sources
from dcgan_jax.runtime.errors import UserError


def flat(value, size=(4, 4), mode='RGB'):
    return Image.new(mode, size, value)


def write(root, name, picture=None, **options):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture or flat((1, 2, 3))).save(path, **options)
    return path


def read(root, split='train', labels=False, **options):
    return input_pipeline.load_split(
        sources.open_source('folder', split, str(root), **options), labels
    )


def png_header(width, height, bits, color):
    """A PNG file that ends after its header chunk and an empty chunk of pixels."""

    def chunk(kind, body):
        return (
            struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
        )

    header = struct.pack('>IIBBBBB', width, height, bits, color, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', b'') + chunk(b'IEND', b'')


def test_files_come_in_the_order_of_their_names(tmp_path):
    for value, name in enumerate(['b.png', 'a.png', 'deep/er/c.bmp', 'C.PNG', 'a b.WebP']):
        write(tmp_path, name, flat((value, 10, 20)), lossless=True)
    (tmp_path / 'notes.txt').write_text('no picture')
    (tmp_path / '._a.png').write_bytes(b'left by a Mac')
    (tmp_path / '.cache').mkdir()
    (tmp_path / '.cache' / 'd.png').write_bytes(b'not looked at')
    source = sources.open_source('folder', 'train', str(tmp_path))
    images, labels = input_pipeline.load_split(source)
    assert source.image_shape == (4, 4, 3)
    assert source.num_classes == 0
    assert labels is None
    # 'C' < 'a b' < 'a.' < 'b' < 'deep' in code points.
    np.testing.assert_array_equal(images[:, 0, 0], [[v, 10, 20] for v in (3, 4, 1, 0, 2)])
    np.testing.assert_array_equal(read(tmp_path, 'train[1:3]+train[-1:]').images, images[[1, 2, 4]])


def test_subfolders_are_classes_only_if_all_files_are_in_them(tmp_path):
    for value, name in enumerate(['dog/1.png', 'cat/2.png', 'dog/0.png', 'eel/x.png']):
        write(tmp_path, name, flat((value, 0, 0)))
    images, labels = read(tmp_path, labels=True)
    np.testing.assert_array_equal(images[:, 0, 0, 0], [1, 2, 0, 3])
    np.testing.assert_array_equal(labels, [0, 1, 1, 2])
    assert sources.open_source('folder', 'train[:1]', str(tmp_path)).num_classes == 3
    write(tmp_path, 'top.png')
    with pytest.raises(UserError, match=r'folder/.* has no labels'):
        read(tmp_path, labels=True)


def test_the_name_tells_contents_apart(tmp_path):
    def name():
        return sources.open_source('folder', 'train', str(tmp_path / 'set')).name

    path = write(tmp_path, 'set/a.png')
    first = name()
    assert first.startswith('folder/set-')
    (tmp_path / 'set' / 'notes.txt').write_text('')
    assert name() == first
    (tmp_path / 'set' / 'a.png').rename(tmp_path / 'set' / 'b.png')
    renamed = name()
    path.with_name('b.png').write_bytes(path.with_name('b.png').read_bytes() + b'\0')
    assert len({first, renamed, name()}) == 3


def test_gray_stays_gray_only_if_all_are(tmp_path):
    write(tmp_path, 'a.png', flat(7, mode='L'))
    write(tmp_path, 'b.png', flat(1, mode='1'))
    write(tmp_path, 'c.png', flat((9, 255), mode='LA'))
    images = read(tmp_path).images
    assert images.shape == (3, 4, 4, 1)
    np.testing.assert_array_equal(images[:, 0, 0, 0], [7, 255, 9])
    write(tmp_path, 'd.png', flat((1, 2, 3)))
    images = read(tmp_path).images
    np.testing.assert_array_equal(
        images[:, 0, 0], [[7, 7, 7], [255, 255, 255], [9, 9, 9], [1, 2, 3]]
    )


def test_palettes_become_colors_and_what_is_transparent_lies_on_white(tmp_path):
    palette = flat(1, mode='P')
    palette.putpalette([0, 0, 0, 50, 100, 150])
    write(tmp_path, 'a.png', palette)
    write(tmp_path, 'b.png', palette, transparency=1)
    write(tmp_path, 'c.png', flat((200, 100, 0, 51), mode='RGBA'))  # a fifth covers
    write(tmp_path, 'd.png', flat((200, 100, 0, 255), mode='RGBA'))
    expected = [[50, 100, 150], [255, 255, 255], [244, 224, 204], [200, 100, 0]]
    np.testing.assert_array_equal(read(tmp_path).images[:, 0, 0], expected)


@pytest.mark.parametrize('ending', ['jpg', 'png'])
def test_a_photograph_is_turned_upright(tmp_path, ending):
    """Orientation 6: the camera was turned; the stored left column is the top row."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path, f'a.{ending}', Image.fromarray(pixels), exif=exif)
    image = read(tmp_path).images[0].astype(int)
    assert image[:7].min() > 190
    assert image[9:].max() < 10


def test_sizes(tmp_path):
    write(tmp_path, 'a.png', flat((10, 0, 0), (6, 6)))
    write(tmp_path, 'b.jpg', flat((10, 0, 0), (6, 9)))
    with pytest.raises(UserError, match=r'b\.jpg has 6x9 pixels.*6x6: set config\.data\.image_siz'):
        read(tmp_path)
    source = sources.open_source('folder', 'train', str(tmp_path), image_size=3)
    assert source.image_shape == (3, 3, 3)
    assert input_pipeline.load_split(source).images.shape == (2, 3, 3, 3)
    (tmp_path / 'a.png').unlink()
    with pytest.raises(UserError, match=r'b\.jpg has 6x9 pixels, not a square: set config'):
        read(tmp_path)


def test_folders_without_pictures(tmp_path):
    with pytest.raises(UserError, match=r'config\.data_dir=.*/typo'):
        read(tmp_path / 'typo')
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(UserError, match=r'config\.data_dir'):
        read(tmp_path)
    with pytest.raises(UserError, match=r'needs config\.data_dir'):
        sources.open_source('folder')
    write(tmp_path, 'a.png')
    with pytest.raises(UserError, match=r"'test'.*\['train'\]"):
        read(tmp_path, 'test')
    with pytest.raises(UserError, match='has no images'):
        read(tmp_path, 'train[:0]')


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'', 'cannot be decoded'),
        (b'GIF89a' + bytes(50), 'cannot be decoded'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'cannot be decoded'),
        (png_header(8192, 8193, 8, 2), '8192x8193 pixels, more than 67108864'),
        (png_header(10_000, 10_000, 8, 2), '10000x10000 pixels, more than'),
        (png_header(60_000, 60_000, 8, 2), 'cannot be decoded .*decompression bomb'),
        (png_header(4, 4, 16, 0), r'I;16'),
        (png_header(4, 4, 8, 2), 'cannot be decoded'),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, words):
    write(tmp_path, 'a.png')
    (tmp_path / 'bad.png').write_bytes(content)
    with pytest.raises(UserError, match=rf'/bad\.png .*{words}'):
        read(tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    path = write(tmp_path, 'a.jpg', Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r'/a\.jpg cannot be decoded .*truncated'):
        read(tmp_path)


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / 'a.png').symlink_to(tmp_path / 'nothing')
    with pytest.raises(UserError, match=r'/a\.png cannot be decoded'):
        read(tmp_path)
