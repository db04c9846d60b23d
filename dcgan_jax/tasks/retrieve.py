"""`--mode=retrieve`: classification accuracy of conditional samples."""

import json

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.data import images
from dcgan_jax.data.image_source import Examples
from dcgan_jax.metrics import extractors
from dcgan_jax.models import Networks
from dcgan_jax.run_dir import Run
from dcgan_jax.runtime.batching import map_batches
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic
from dcgan_jax.sampling import Sampler, read_labeled_images
from dcgan_jax.tasks import discriminator_features, linear_probe
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import merge_config, open_split, output_folder, restore
from dcgan_jax.train_state import GANState

_COLUMNS = 10  # Samples per class in the grid.


def run(options: TaskOptions) -> str:
    """Run the task and return the text to print."""
    path, summary = retrieve(
        options.workdir, options.config, options.out, options.num, options.seed,
        options.checkpoint,
    )  # fmt: skip
    return '\n'.join(filter(None, [summary, f'pictures: {path}']))


def retrieve(
    workdir: epath.PathLike,
    overrides: ConfigDict | None,
    out: epath.PathLike | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
) -> tuple[epath.Path, str]:
    """Measure how often samples are classified as the class that they were conditioned on.

    Two classifiers are used. The first is a linear SVM on the features of
    `config.evaluation.extractor`, fitted to `config.evaluation.num_real` training images; its
    accuracy on real images of `config.evaluation.split` is an upper bound. The second is the run's
    discriminator: its prediction is the class with the largest logit.

    Args:
        workdir: Folder of a conditional training run.
        overrides: See `merge_config`.
        out: Folder for `retrieval.json` and `retrieval.png`, a grid with one row per class;
            defaults to `workdir/retrieval`.
        num: Number of samples; defaults to 1,000.
        seed: Seed of the latents and of the choice of real images.
        which: Checkpoint, 'latest' or 'best'.

    Returns:
        The folder and a one-line summary.

    Raises:
        UserError: If the run is missing or unconditional, or the extractor does not accept its
            images.
    """
    trained = restore(workdir, which, require_latents=True)
    run, networks, state = trained.run, trained.networks, trained.state
    if not run.config.conditional:
        raise UserError(
            f'{workdir} has an unconditional run, but --mode=retrieve needs classes or captions: '
            'train one with --config.conditional=True'
        )
    config, num = merge_config(run.config, overrides), num or 1_000
    fields = config.evaluation
    extractor = extractors.load(fields.extractor, fields.inception_weights, fields.batch_size)
    extractor.check(run.image_shape)
    sampler = Sampler(networks.generator, config)
    classes, labels = sampler.classes, sampler.labels(num)
    train, test = _real_images(run, config, num, seed)
    out = output_folder(out, workdir, 'retrieval', config)

    pixels = sampler(state, sampler.latents(seed, num), labels)
    svm, _ = linear_probe.fit(_features(extractor, train.images), train.labels, run.num_classes)
    predicted = svm(_features(extractor, pixels))
    predicted_real = svm(_features(extractor, test.images))
    predicted_by_d = classify_by_discriminator(networks, state, pixels, classes)
    content = {
        'metrics': {
            'samples': float(np.mean(predicted == labels)),
            'samples, by D': float(np.mean(predicted_by_d == labels)),
            'real images': float(np.mean(predicted_real == test.labels)),
        },
        'by class': {
            run.class_names[index]: float(np.mean(predicted[labels == index] == index))
            for index in np.unique(labels)
        },
        'extractor': extractor.name, 'num': num, 'seed': seed, 'step': int(state.step),
        'num_real': len(train.images), 'split': fields.split,
    }  # fmt: skip
    write_atomic(out / 'retrieval.json', f'{json.dumps(content, indent=2)}\n'.encode())
    rows = [pixels[labels == index] for index in np.unique(labels)]
    columns = min(_COLUMNS, *map(len, rows))
    picture = images.grid(np.concatenate([row[:columns] for row in rows]), columns)
    images.write_png(out / 'retrieval.png', picture)
    line = ', '.join(f'{name} {value:.2%}' for name, value in content['metrics'].items())
    return out, f'classification accuracy ({extractor.name}): {line}'


def classify_by_discriminator(
    networks: Networks,
    state: GANState,
    pixels: np.ndarray,
    classes: np.ndarray,
) -> np.ndarray:
    """Return the class with the largest logit for each image, int32 `[N]`.

    Args:
        networks: Networks of the run.
        state: State of the run.
        pixels: Images, uint8 `[N, H, W, C]`.
        classes: Candidate classes, int32; each is represented by its first condition.
    """
    scores = [
        discriminator_features.logits(
            networks, state, pixels, np.full(len(pixels), condition, np.int32)
        )
        for condition in networks.conditioner.first(classes)
    ]
    return classes[np.argmax(np.stack(scores), axis=0)]


def _real_images(run: Run, config: ConfigDict, num: int, seed: int) -> tuple[Examples, Examples]:
    """Return disjoint sets of real images to fit and to test the classifier."""
    fields = config.evaluation
    splits = (config.data.split, fields.split)
    if splits[0] != splits[1]:
        return tuple(
            _labeled_images(run, config, split, count, seed)
            for split, count in zip(splits, (fields.num_real, num), strict=True)
        )
    examples = _labeled_images(run, config, fields.split, fields.num_real + num, seed)
    count = min(num, len(examples.images) // 2)
    return (
        Examples(examples.images[count:], examples.labels[count:]),
        Examples(examples.images[:count], examples.labels[:count]),
    )


def _labeled_images(run: Run, config: ConfigDict, split: str, count: int, seed: int) -> Examples:
    source = open_split(run, config, split)
    return read_labeled_images(seed, min(count, len(source)), source)


def _features(extractor: extractors.Extractor, pixels: np.ndarray) -> np.ndarray:
    return map_batches(
        lambda part: extractor(part)[0], extractor.preferred_batch_size, 'Features', pixels
    )
