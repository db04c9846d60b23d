"""Functions of the demo's tabs, which do not depend on Gradio."""

import functools
import os
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.data import captions, images
from dcgan_jax.data.image_files import read_header, read_image
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.sampling import generate
from dcgan_jax.tasks import (
    anomaly_scores,
    detect_anomalies,
    explore,
    image_to_image,
    inpaint,
    super_resolve,
    translate,
)
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import TrainedRun

MAX_SAMPLES = 64
MAX_PIXELS = 2**20  # Largest number of pixels of an uploaded image.
_SIDE = 320  # Approximate size in pixels to which small images are enlarged.


class Generation:
    """Image generation from latents.

    Attributes:
        classes: Names of the classes to choose from; empty if the generator is unconditional or
            conditioned on captions.
        default_prompt: A caption of the first class; empty if the generator is not conditioned on
            captions.
        num_directions: Number of SeFa directions, at most the size of a latent.
    """

    def __init__(self, trained: TrainedRun):
        """Compute the variables of the EMA generator."""
        self._trained = trained
        conditioner = trained.networks.conditioner
        self._labels = {trained.run.class_names[label]: label for label in conditioner.classes}
        self.classes, self.default_prompt = list(self._labels), ''
        self._variables = trained.sampler.variables(trained.state)
        self._generate = jax.jit(functools.partial(generate, trained.networks.generator))
        self._directions = explore.directions(trained.state.ema_params, explore.NUM_DIRECTIONS)
        self.num_directions = len(self._directions)
        if captions.is_used(trained.run.config):
            self.classes = []
            self.default_prompt = captions.class_captions(
                trained.run.config, trained.run.class_names
            )[0]
            self._captions(self.default_prompt)  # Loads the embedder before the page is opened.

    def sample(self, seed: int, num: int, truncation: float, condition: str = '') -> np.ndarray:
        """Return a grid of images, generated from latents multiplied by `truncation`."""
        latents = self._latents(seed, MAX_SAMPLES) * truncation  # One shape, compiled once.
        return enlarge(images.grid(self._generate_images(latents, condition)[: int(num)]), zoom=2)

    def interpolate(
        self, first: int, second: int, position: float, condition: str = ''
    ) -> np.ndarray:
        """Return the image at a position in [0, 1] between the latents of two seeds (slerp)."""
        ends = (self._latents(seed, 1)[0] for seed in (first, second))
        return self._generate_one(explore.slerp(*ends, position), condition)

    def move(self, seed: int, condition: str, *shifts: float) -> np.ndarray:
        """Return the image of a latent that is shifted along the SeFa directions."""
        latent = self._latents(seed, 1)[0] + np.asarray(shifts) @ self._directions
        return self._generate_one(latent, condition)

    def _latents(self, seed: int | None, count: int) -> np.ndarray:
        if seed is None or not 0 <= seed < 2**32:
            raise UserError('the seed must be an integer from 0 to 2**32 - 1')
        return self._trained.sampler.latents(int(seed), count)

    def _generate_one(self, latent: np.ndarray, condition: str) -> np.ndarray:
        return enlarge(self._generate_images(latent[None].astype(np.float32), condition)[0])

    def _generate_images(self, latents: np.ndarray, condition: str) -> np.ndarray:
        conditioner, variables = self._trained.networks.conditioner, self._variables
        label = conditioner.default
        if self.default_prompt:
            if not condition:
                raise UserError('the prompt is empty: describe an image')
            variables, label = variables | {'captions': self._captions(condition)}, 0
        elif condition:
            label = conditioner.first(self._labels[condition])
        return np.asarray(
            self._generate(variables, latents, np.full(len(latents), label, np.int32))
        )

    @functools.lru_cache(maxsize=1)  # noqa: B019 - one object, which lives as long as the page.
    def _captions(self, prompt: str) -> dict:
        return {'condition': {'table': captions.embed(self._trained.run.config, [prompt])}}


class Restoration:
    """Super-resolution, inpainting or colorization of uploaded images.

    Attributes:
        kind: `config.input.kind` of the task, one of `degradations.KINDS`.
        upload_note: Description of how uploaded images are cropped and resized.
    """

    def __init__(self, options: TaskOptions, kind: str):
        """Restore the networks of the run in `options.workdir` for the task `kind`."""
        self.kind = kind
        self._task = image_to_image.open_task(options, kind)
        size, _, self._channels = self._task.image_shape
        scale = self._task.config.input.scale if kind == 'low_resolution' else 1
        self._scale, self._size = scale, size // scale
        # Divisor of the height and width; None if images are resized to the training size.
        self._multiple = None
        if kind != 'masked' and self._task.method == 'trained':
            self._multiple = image_to_image.size_multiple(self._task.config, scale)
            self.upload_note = f'cropped to multiples of {self._multiple} pixels'
        else:
            self.upload_note = f'cropped to a square and resized to {self._size}x{self._size}'

    def upsample(self, path: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the bicubic baseline and the super-resolved image."""
        pixels = self._crop(read_upload(path, self._channels))
        return self._restore(super_resolve.upsampled_inputs(pixels[None], self._scale))

    def colorize(self, path: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the grayscale image and the colorized image."""
        pixels = self._crop(read_upload(path, self._channels))
        return self._restore(translate.gray_inputs(pixels[None]))

    @property
    def canvas_size(self) -> int:
        """Height and width of the images that `prepare` returns."""
        return self._size * _zoom(self._size)

    def prepare(self, path: str | None) -> np.ndarray:
        """Return an image to paint on, uint8 `[S, S, 3]`: cropped, resized and enlarged."""
        return enlarge(images.center_crop(read_upload(path, self._channels), self._size))

    def inpaint(self, canvas: np.ndarray, painted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the image with the painted region masked, and the inpainted image.

        Args:
            canvas: The image that `prepare` returned.
            painted: Mask of the painted region, bool `[S, S]`.
        """
        if not painted.any() or painted.all():
            raise UserError('paint over the part of the image to inpaint')
        zoom = len(canvas) // self._size
        middle = np.s_[zoom // 2 :: zoom, zoom // 2 :: zoom]
        pixels = canvas[middle][..., : self._channels]
        mask = painted[middle].astype(np.float32)[None, ..., None]
        return self._restore(inpaint.mask_images(pixels[None], mask))

    def _crop(self, pixels: np.ndarray) -> np.ndarray:
        """Crop an image as described by `upload_note`."""
        multiple = self._multiple
        if multiple is None:
            return images.center_crop(pixels, self._size)
        height, width = (side // multiple * multiple for side in pixels.shape[:2])
        if not height or not width:
            raise UserError(f'the image must have at least {multiple} rows and columns')
        return pixels[:height, :width]

    def _restore(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known, restored = image_to_image.known_pixels(inputs), self._task.restore(inputs)
        return enlarge(known[0]), enlarge(restored[0])


class AnomalyDetection:
    """Anomaly scores of an uploaded image.

    Attributes:
        upload_note: Description of how the uploaded image is cropped and resized.
    """

    def __init__(self, trained: TrainedRun, config: ConfigDict, seed: int):
        """Create the functions, which are compiled at the first call."""
        self._trained = trained
        size = trained.run.image_shape[0]
        self.upload_note = f'cropped to a square and resized to {size}x{size}'
        shape = (0, *trained.run.image_shape)
        run = anomaly_scores.ScoringRun(
            config, trained.networks, trained.state, np.zeros(shape, np.uint8), seed
        )
        self._reconstruct = anomaly_scores.reconstructor(run, anomaly_scores.latent_optimizer(run))
        self._score = functools.partial(anomaly_scores.discriminator_scores, run)

    def score(self, path: str | None) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
        """Return the scores as text, the cropped image, its reconstruction and a heat map."""
        size, _, channels = self._trained.run.image_shape
        pixels = images.center_crop(read_upload(path, channels), size)[None]
        distances, reconstructions = self._reconstruct(pixels)
        text = f'distance to the reconstruction: {distances[0]:.4f}, '
        text += f'score of the discriminator: {self._score(pixels)[0]:.4f} (larger: more anomalous)'
        heat = detect_anomalies.difference_map(pixels, reconstructions)
        return text, *(enlarge(each[0]) for each in (pixels, reconstructions, heat))


def read_upload(path: str | None, channels: int) -> np.ndarray:
    """Read an uploaded image, uint8 `[H, W, channels]`.

    Raises:
        UserError: If no image was uploaded, or it cannot be read or is larger than `MAX_PIXELS`.
    """
    if not path:
        raise UserError('there is no image: upload one')
    try:
        width, height = read_header(Path(path)).size
        if width * height > MAX_PIXELS:
            raise UserError(
                f'the image has {width}x{height} pixels, more than {MAX_PIXELS}: resize it'
            )
        return read_image(path, 'L' if channels == 1 else 'RGB')
    except UserError as error:
        raise UserError(str(error).replace(path, os.path.basename(path))) from error


def enlarge(image: np.ndarray, zoom: int = 0) -> np.ndarray:
    """Repeat the pixels of an image, uint8 `[H, W, C]`; grayscale becomes RGB.

    Args:
        image: The image.
        zoom: Factor; 0 enlarges small images to about 320 pixels.
    """
    zoom = zoom or _zoom(max(image.shape[:2]))
    large = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return np.broadcast_to(large, (*large.shape[:2], 3))


def _zoom(size: int) -> int:
    return max(1, _SIDE // size)
