"""Folders of images with three classes, and runs that are trained on them."""

import PIL.Image

from tests.conftest import tiny_config

COLORS = {'blue': (0, 0, 255), 'green': (0, 255, 0), 'red': (255, 0, 0)}


def write_images(folder, color, num=8):
    """Write 8x8 images of nearly one color."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num):
        PIL.Image.new('RGB', (8, 8), (*color[:2], max(color[2], index))).save(
            folder / f'{index}.png'
        )


def folder_config(root):
    """Return the config of a conditional run of two steps."""
    config = tiny_config(root)
    config.dataset, config.num_steps, config.conditional = 'folder', 2, True
    config.sample_every = config.evaluation.every = 0
    return config


def content(root):
    """Return the bytes of all files by name."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }
