"""Folders of images with known pixels, and damaged image files."""

import logging
import os
import struct
import unicodedata
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
    """Return a PNG file with a header and an empty chunk of pixels."""

    def chunk(kind, body):
        return (
            struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
        )

    header = struct.pack('>IIBBBBB', width, height, bits, color, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', b'') + chunk(b'IEND', b'')


def test_files_are_sorted_by_name(tmp_path):
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


def test_source_name_depends_on_the_files(tmp_path):
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


def test_images_have_one_channel_only_if_all_are_grayscale(tmp_path):
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


def test_palettes_are_converted_and_transparency_is_composited_on_white(tmp_path):
    palette = flat(1, mode='P')
    palette.putpalette([0, 0, 0, 50, 100, 150])
    write(tmp_path, 'a.png', palette)
    write(tmp_path, 'b.png', palette, transparency=1)
    write(tmp_path, 'c.png', flat((200, 100, 0, 51), mode='RGBA'))  # The opacity is one fifth.
    write(tmp_path, 'd.png', flat((200, 100, 0, 255), mode='RGBA'))
    expected = [[50, 100, 150], [255, 255, 255], [244, 224, 204], [200, 100, 0]]
    np.testing.assert_array_equal(read(tmp_path).images[:, 0, 0], expected)


def test_image_sizes_must_be_equal_and_square_unless_resized(tmp_path):
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


def test_folders_and_splits_without_images_are_rejected(tmp_path):
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
    ('content', 'message'),
    [
        (b'', 'cannot be decoded'),
        (b'GIF89a' + bytes(50), 'cannot be decoded'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'cannot be decoded'),
        (png_header(8192, 8193, 8, 2), '8192x8193 pixels, more than 67108864'),
        (png_header(10_000, 10_000, 8, 2), '10000x10000 pixels, more than'),
        (png_header(60_000, 60_000, 8, 2), 'cannot be decoded .*decompression bomb'),
        (png_header(4, 4, 8, 2), 'cannot be decoded'),
    ],
)
def test_invalid_image_file_is_named(tmp_path, content, message):
    write(tmp_path, 'a.png')
    (tmp_path / 'bad.png').write_bytes(content)
    with pytest.raises(UserError, match=rf'/bad\.png .*{message}'):
        read(tmp_path)


def test_truncated_image_file_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    path = write(tmp_path, 'a.jpg', Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r'/a\.jpg cannot be decoded .*truncated'):
        read(tmp_path)


def test_dangling_link_is_named(tmp_path):
    (tmp_path / 'a.png').symlink_to(tmp_path / 'nothing')
    with pytest.raises(UserError, match=r'/a\.png cannot be decoded'):
        read(tmp_path)


def summary(caplog):
    """Return the log lines that summarize a folder."""
    return [line for line in caplog.messages if ' pixels, ' in line]


def test_links_are_followed_except_loops(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write(tmp_path, 'elsewhere/x.png', flat((5, 0, 0)))
    write(tmp_path, 'set/dog/y.png', flat((6, 0, 0)))
    (tmp_path / 'set' / 'cat').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'set' / 'dog' / 'up').symlink_to(tmp_path / 'set')
    (tmp_path / 'set' / 'dog' / 'self').symlink_to('self')
    (tmp_path / 'set' / 'eel').symlink_to(tmp_path / 'nothing')
    source = sources.open_source('folder', data_dir=str(tmp_path / 'set'))
    assert source.class_names == ('cat', 'dog')
    np.testing.assert_array_equal(input_pipeline.load_split(source).images[:, 0, 0, 0], [5, 6])
    (line,) = summary(caplog)
    assert '1 link to a parent folder' in line
    assert '2 dangling link' in line


def test_folders_that_link_to_each_other_are_read_once(tmp_path, caplog):
    """Without a check, the number of paths grows with the factorial of the number of folders."""
    names = [str(index) for index in range(12)]
    for name in names:
        write(tmp_path, f'{name}/a.png', flat((int(name), 0, 0)))
        for other in set(names) - {name}:
            (tmp_path / name / f'to_{other}').symlink_to(tmp_path / other)
    (tmp_path / 'latest').symlink_to(tmp_path / '3')
    caplog.set_level(logging.INFO)
    source = sources.open_source('folder', data_dir=str(tmp_path))
    assert sorted(input_pipeline.load_split(source).images[:, 0, 0, 0]) == list(range(12))
    assert list(source.class_names) == names
    (line,) = summary(caplog)
    assert '133 link to a read folder' in line
    assert f'{tmp_path}/latest is skipped: it is the same folder as {tmp_path}/3' in caplog.text


def test_log_summarizes_images_and_skipped_files(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for name in ('b/1.png', 'a/2.png', 'a/3.jfif'):
        write(tmp_path, name, flat((1, 2, 3), (4, 4)))
    write(tmp_path, 'a/4.png', flat((1, 2, 3), (8, 6)))
    for name in ('a.HEVC', 'b.hevc', 'notes', 'c.txt', '.hidden'):
        (tmp_path / name).write_bytes(b'')
    sources.open_source('folder', data_dir=str(tmp_path), image_size=4)
    (line,) = summary(caplog)
    assert line == (
        f'config.data_dir={tmp_path}: 4 images, 2 classes (a 3, b 1), 4x4 to 8x6 pixels, RGB; '
        'skipped: 2 .hevc, 1 .txt, 1 without suffix'
    )


def test_pipes_are_skipped_without_blocking(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write(tmp_path, 'a.png')
    os.mkfifo(tmp_path / 'b.png')
    (tmp_path / 'c.png').symlink_to('/dev/zero')
    assert len(read(tmp_path).images) == 1
    assert '1 image, no classes, 4x4 pixels, RGB; skipped: 2 pipe' in summary(caplog)[0]


def test_skipped_files_are_named_if_no_image_is_found(tmp_path):
    (tmp_path / 'a.xyz').write_bytes(b'')
    with pytest.raises(UserError, match=r'no image files \(skipped: 1 \.xyz\)'):
        read(tmp_path)


def test_sub_splits_have_the_same_fraction_of_every_class(tmp_path):
    for name, count in {'a': 30, 'b': 12, 'c': 3}.items():
        for index in range(count):
            write(tmp_path, f'{name}/{index}.png', flat((index, ord(name), 0)))

    def counts(split):
        return np.bincount(read(tmp_path, split, labels=True).labels, minlength=3).tolist()

    assert counts('train') == [30, 12, 3]
    assert counts('train[:67%]') == [20, 8, 2]
    assert counts('train[67%:]') == [10, 4, 1]
    parts = [read(tmp_path, split).images[:, 0, 0] for split in ('train[:67%]', 'train[67%:]')]
    whole = read(tmp_path).images[:, 0, 0]
    assert sorted(map(tuple, np.concatenate(parts))) == sorted(map(tuple, whole))
    first = sorted(index for index, letter, _ in parts[0].tolist() if letter == ord('a'))
    assert first != list(range(20)), 'The split is not shuffled.'
    np.testing.assert_array_equal(read(tmp_path, 'train[:67%]').images[:, 0, 0], parts[0])


def test_limited_number_of_images_covers_all_classes(tmp_path):
    for name, count in {'a': 6, 'b': 3}.items():
        for index in range(count):
            write(tmp_path, f'{name}/{index}.png', flat((index, 0, 0)))
    source = sources.open_source('folder', data_dir=str(tmp_path))
    some = input_pipeline.load_split(source, labels=True, num=3)
    assert some.labels.tolist() == [0, 0, 1]
    assert some.images[:, 0, 0, 0].tolist() == [0, 3, 0]
    assert len(input_pipeline.load_split(source, num=100).images) == 9


def test_class_folders_with_numbers_are_in_natural_order(tmp_path):
    for name in ('10', '2', '1', 'x10', 'x9'):
        write(tmp_path, f'{name}/a.png')
    source = sources.open_source('folder', data_dir=str(tmp_path))
    assert source.class_names == ('1', '2', '10', 'x9', 'x10')


def test_names_do_not_depend_on_unicode_normalization(tmp_path):
    decomposed = unicodedata.normalize('NFD', 'caf\u00e9')
    write(tmp_path, f'one/set/{decomposed}/a.png')
    write(tmp_path, 'two/set/caf\u00e9/a.png')
    one, two = (
        sources.open_source('folder', data_dir=str(tmp_path / name / 'set'))
        for name in ('one', 'two')
    )
    assert one.class_names == two.class_names == ('caf\u00e9',)
    assert one.name == two.name
    assert len(sources.select_classes(one, (decomposed,))) == 1


def test_folders_with_equivalent_names_log_a_warning(tmp_path, caplog):
    write(tmp_path, unicodedata.normalize('NFD', 'caf\u00e9/a.png'))
    with caplog.at_level(logging.WARNING, 'absl'):
        read(tmp_path)
        assert caplog.text == ''
        write(tmp_path, 'caf\u00e9/b.png')
        assert len(read(tmp_path).images) == 2
    assert '2 folders are named caf\u00e9' in caplog.text


@pytest.mark.parametrize('name', [b'caf\xe9', b'a\nb', b'\x1b[31m'])
def test_class_names_that_cannot_be_stored_are_rejected(tmp_path, name):
    write(tmp_path, 'x/a.png')
    os.rename(tmp_path / 'x', os.path.join(os.fsencode(tmp_path), name))
    with pytest.raises(UserError, match='name of the class folder') as error:
        read(tmp_path)
    str(error.value).encode()
    assert '\n' not in str(error.value)


def test_source_name_is_valid_utf_8(tmp_path):
    """The name is stored with the results of evaluations."""
    write(tmp_path, 'x/a.png')
    folder = os.path.join(os.fsencode(tmp_path), b'\xe9')
    os.rename(tmp_path / 'x', folder)
    source = sources.open_source('folder', data_dir=os.fsdecode(folder))
    assert source.name.startswith('folder/\\udce9-')
    assert len(input_pipeline.load_split(source).images) == 1


def test_max_pixels_limits_image_sizes(tmp_path):
    write(tmp_path, 'a.png', flat((1, 2, 3), (8, 8)))
    with pytest.raises(UserError, match=r'a\.png has 8x8 pixels, more than 63.*max_pixels'):
        read(tmp_path, max_pixels=63)
    assert read(tmp_path, max_pixels=64).images.shape == (1, 8, 8, 3)
