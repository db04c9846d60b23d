"""`--mode=classify_samples`: classification accuracy of conditional samples."""

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.data import images, split_ranges
from dcgan_jax.data.image_source import Examples
from dcgan_jax.metrics import extractors
from dcgan_jax.models import Networks
from dcgan_jax.run_description import Run
from dcgan_jax.runtime.batching import map_batches
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_json
from dcgan_jax.sampling import read_labeled_images
from dcgan_jax.tasks import discriminator_features, linear_probe
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import output_folder
from dcgan_jax.tasks.trained_run import TrainedRun, merge_config, open_split, restore
from dcgan_jax.train_state import GANState

_COLUMNS = 10  # Samples per class in the grid.
_NUM_SAMPLES = 500  # Default number of samples.
_MAX_NUM_REAL = 2_000  # Maximum number of images to which the SVM is fitted by default.


def run(options: TaskOptions) -> TaskResult:
    """Measure how often samples are classified as the class that they were conditioned on.

    Two classifiers are used. The first is a linear SVM on the features of
    `config.evaluation.extractor`, fitted to real images of `config.data.split`; its accuracy on
    real images of `config.evaluation.split` is an upper bound. The second is the run's
    discriminator: its prediction is the class with the largest logit.

    Files: `classification.json` and `classification.png`, a grid with one row per class.

    Args:
        options: Uses `workdir` (of a conditional run), `config`, `out` (defaults to
            `workdir/classification`), `num` (number of samples; if None, there are 500
            samples and the SVM is fitted to at most 2,000 real images, otherwise to at most
            `config.evaluation.num_real`), `seed` (of the latents and of the choice of real images)
            and `checkpoint`.

    Returns:
        The folder and the accuracies.

    Raises:
        UserError: If the run is missing or unconditional, the extractor does not accept its
            images, or the classifier is fitted to images of fewer than two classes.
    """
    trained = restore(options.workdir, options.checkpoint, require_latents=True)
    if not trained.run.config.conditional:
        raise UserError(
            f'{options.workdir} has an unconditional run, but --mode=classify_samples needs '
            'classes or captions: train a run with --config.conditional=True'
        )
    config, num = merge_config(trained.run.config, options.config), options.num or _NUM_SAMPLES
    fields = config.evaluation
    num_real = fields.num_real if options.num else min(fields.num_real, _MAX_NUM_REAL)
    extractor = extractors.load(fields.extractor, fields.inception_weights, fields.batch_size)
    extractor.check(trained.run.image_shape)
    train, test = _real_images(trained.run, config, (num_real, num), options.seed)
    if not linear_probe.has_several_classes(train.labels):
        raise UserError(
            'the classifier would be fitted to images of fewer than two classes, and its accuracy '
            'would not be informative: use a run of several classes, or increase --num'
        )
    out = output_folder(options, 'classification', config, trained.check_workdir)
    labels, latents = trained.sampler.labels(num), trained.sampler.latents(options.seed, num)
    samples = Examples(trained.sampler(trained.state, latents, labels), labels)
    metrics, by_class = _accuracies(trained, extractor, samples, train, test)
    content = {
        'metrics': metrics, 'accuracy_by_class': by_class, 'extractor': extractor.name, 'num': num,
        'seed': options.seed, 'step': int(trained.state.step), 'num_real': len(train.images),
        'split': fields.split,
    }  # fmt: skip
    write_json(out.file('classification.json'), content)
    images.write_png(out.file('classification.png'), _draw(samples))
    line = ', '.join(f'{name.replace("_", " ")} {value:.2%}' for name, value in metrics.items())
    method = f'{extractor.name}, SVM fitted to {len(train.images):,} images'
    return TaskResult(out.path, f'classification accuracy ({method}): {line}')


def _accuracies(
    trained: TrainedRun,
    extractor: extractors.Extractor,
    samples: Examples,
    train: Examples,
    test: Examples,
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the accuracies of both classifiers, and those of the SVM by class.

    Args:
        trained: The run; its discriminator is the second classifier.
        extractor: Extractor of the features of the SVM.
        samples: Samples with the classes that they were conditioned on.
        train: Real images to which the SVM is fitted.
        test: Real images on which the SVM is tested.
    """
    features = _features(extractor, train.images)
    svm, _ = linear_probe.fit(features, train.labels, trained.run.num_classes)
    predicted = svm(_features(extractor, samples.images))
    predicted_real = svm(_features(extractor, test.images))
    predicted_by_d = classify_by_discriminator(
        trained.networks, trained.state, samples.images, trained.sampler.classes
    )
    metrics = {
        'samples': float(np.mean(predicted == samples.labels)),
        'samples_by_discriminator': float(np.mean(predicted_by_d == samples.labels)),
        'real_images': float(np.mean(predicted_real == test.labels)),
    }
    by_class = {
        trained.run.class_names[index]: float(np.mean(predicted[samples.labels == index] == index))
        for index in np.unique(samples.labels)
    }
    return metrics, by_class


def _draw(samples: Examples) -> np.ndarray:
    """Return a grid of samples, with one row per class."""
    rows = [samples.images[samples.labels == index] for index in np.unique(samples.labels)]
    columns = min(_COLUMNS, *map(len, rows))
    return images.grid(np.concatenate([row[:columns] for row in rows]), columns)


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


def _real_images(
    run: Run, config: ConfigDict, counts: tuple[int, int], seed: int
) -> tuple[Examples, Examples]:
    """Return two disjoint sets of at most `counts` images, to fit and to test the classifier.

    Raises:
        UserError: If `config.data.split` and `config.evaluation.split` overlap but differ, or are
            the same split with repeated images.
    """
    splits = (config.data.split, config.evaluation.split)
    opened = {split: open_split(run, config, split) for split in splits}
    sources = [opened[split] for split in splits]
    ranges = [source.ranges for source in sources]
    if not split_ranges.overlap(*ranges):
        return tuple(
            read_labeled_images(seed, min(count, len(source)), source)
            for source, count in zip(sources, counts, strict=True)
        )
    if ranges[0] != ranges[1]:
        raise UserError(
            f'config.data.split={splits[0]!r} and config.evaluation.split={splits[1]!r} overlap, '
            'but the classifier must be tested on images other than those it is fitted to: use the '
            'same split or disjoint splits'
        )
    if split_ranges.has_duplicates(ranges[0]):
        raise UserError(
            f'config.data.split={splits[0]!r} contains images more than once, so the classifier '
            'cannot be tested on other images: use a split without repetitions'
        )
    examples = read_labeled_images(seed, min(sum(counts), len(sources[0])), sources[0])
    count = min(counts[1], len(examples.images) // 2)
    return (
        Examples(examples.images[count:], examples.labels[count:]),
        Examples(examples.images[:count], examples.labels[:count]),
    )


def _features(extractor: extractors.Extractor, pixels: np.ndarray) -> np.ndarray:
    return map_batches(
        lambda batch: extractor(batch)[0], extractor.preferred_batch_size, 'Features', pixels
    )
