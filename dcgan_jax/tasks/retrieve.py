"""`--mode=retrieve`: do samples show what they were asked for? Classes told from images."""

import json

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import run_dir
from dcgan_jax.data import captions, images, sources
from dcgan_jax.data.sources import Examples
from dcgan_jax.metrics import extractors
from dcgan_jax.models import Networks
from dcgan_jax.runtime.batching import map_batches
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic
from dcgan_jax.sampling import Sampler, read_labeled_images
from dcgan_jax.tasks import discriminator_features, linear_probe
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import merge_config, restore
from dcgan_jax.train_state import GANState

_COLUMNS = 10  # samples of a class in the picture


def run(options: TaskOptions) -> str:
    """Returns what the command line prints, see `TaskOptions`."""
    path, figures = retrieve(
        options.workdir, options.config, options.out, options.num, options.seed,
        options.checkpoint,
    )  # fmt: skip
    return '\n'.join(filter(None, [figures, f'pictures: {path}']))


def retrieve(
    workdir: epath.PathLike,
    overrides: ConfigDict | None,
    out: epath.PathLike | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
) -> tuple[epath.Path, str]:
    """Measures how often a sample's class (or caption) is found again among all classes.

    By a judge that knows real images alone: a linear SVM on the features of
    `config.evaluation.extractor`, fitted to `config.evaluation.num_real` training images; its
    accuracy on as many other real images, of `config.evaluation.split`, says what can be had at
    most. And by the run's own discriminator: the class whose (first) caption fits a sample best.
    Classes are those of `config.data.classes`, where the run learnt some alone.

    Args:
        workdir: of a conditional training run.
        overrides: see `merge_config`.
        out: folder for `retrieval.json` and `retrieval.png`, a row for each class;
            `workdir/retrieval` when None.
        num: samples; 1,000 when None.
        seed: of the latents, and of the real images.
        which: checkpoint, see `restore`.

    Returns:
        The folder, and the figures in a line.

    Raises:
        UserError: there is no such run, or extractor and data set don't go together.
    """
    run, networks, state = restore(workdir, which, require_latents=True)
    if not run.config.conditional:
        raise UserError(
            f'{workdir} holds a run without classes or captions, so nothing was asked of a sample: '
            'train one with config.conditional'
        )
    config, num = merge_config(run.config, overrides), num or 1_000
    fields = config.evaluation
    extractor = extractors.load(fields.extractor, fields.inception_weights, fields.batch_size)
    extractor.check(run.image_shape)
    sampler = Sampler(networks.generator, config)
    classes, labels = sampler.classes, sampler.labels(num)
    known, judged = _real(config, num, seed)
    out = run_dir.check_writable(out or epath.Path(workdir).expanduser() / 'retrieval', '--out')

    pixels = sampler(state, sampler.latents(seed, num), labels)
    svm, _ = linear_probe.fit(_features(extractor, known.images), known.labels, run.num_classes)
    found = svm(_features(extractor, pixels))
    real = svm(_features(extractor, judged.images))
    own = classify_by_discriminator(networks, state, pixels, classes, captions.num_captions(config))
    content = {
        'figures': {
            'samples': float(np.mean(found == labels)),
            'samples, by D': float(np.mean(own == labels)),
            'real images': float(np.mean(real == judged.labels)),
        },
        'by class': {
            run.class_names[index]: float(np.mean(found[labels == index] == index))
            for index in np.unique(labels)
        },
        'extractor': extractor.name, 'num': num, 'seed': seed, 'step': int(state.step),
        'num_real': len(known.images), 'split': fields.split,
    }  # fmt: skip
    write_atomic(out / 'retrieval.json', f'{json.dumps(content, indent=2)}\n'.encode())
    rows = [pixels[labels == index] for index in np.unique(labels)]
    columns = min(_COLUMNS, *map(len, rows))
    picture = images.grid(np.concatenate([row[:columns] for row in rows]), columns)
    images.write_png(out / 'retrieval.png', picture)
    line = ', '.join(f'{name} {share:.2%}' for name, share in content['figures'].items())
    return out, f'class found again ({extractor.name}): {line}'


def classify_by_discriminator(
    networks: Networks,
    state: GANState,
    pixels: np.ndarray,
    classes: np.ndarray,
    captions_per_class: int,
) -> np.ndarray:
    """The class, int32 `[N]`, that D holds most likely for each image uint8 `[N, H, W, C]`.

    Args:
        networks: of the run.
        state: of the run.
        pixels: the images.
        classes: to choose from, int32.
        captions_per_class: captions of a class, of which the first speaks for it.
    """
    scores = [
        discriminator_features.logits(
            networks, state, pixels, np.full(len(pixels), label * captions_per_class, np.int32)
        )
        for label in classes
    ]
    return classes[np.argmax(np.stack(scores), axis=0)]


def _real(config: ConfigDict, num: int, seed: int) -> tuple[Examples, Examples]:
    """(what a judge is fitted to, what it is tried on), none of which is in both."""
    fields = config.evaluation
    splits = (config.data.split, fields.split)
    if splits[0] != splits[1]:
        return tuple(
            _labelled(config, split, count, seed)
            for split, count in zip(splits, (fields.num_real, num), strict=True)
        )
    drawn = _labelled(config, fields.split, fields.num_real + num, seed)
    count = min(num, len(drawn.images) // 2)
    return (
        Examples(drawn.images[count:], drawn.labels[count:]),
        Examples(drawn.images[:count], drawn.labels[:count]),
    )


def _labelled(config: ConfigDict, split: str, count: int, seed: int) -> Examples:
    source = sources.open_split(config, split)
    return read_labeled_images(seed, min(count, len(source)), source)


def _features(extractor: extractors.Extractor, pixels: np.ndarray) -> np.ndarray:
    return map_batches(
        lambda part: extractor(part)[0], extractor.preferred_batch_size, 'Features', pixels
    )
