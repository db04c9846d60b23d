"""`--mode=retrieve`: do samples show what they were asked for? Classes told from images."""

import json
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import captions, images, probe, run_dir, sources
from dcgan_jax.errors import UserError
from dcgan_jax.files import write_whole
from dcgan_jax.images import to_float
from dcgan_jax.metrics import extractors
from dcgan_jax.models import Networks
from dcgan_jax.sampling import Sampler, drawn_labelled
from dcgan_jax.sources import ImageSource
from dcgan_jax.tasks.restore import restore, with_given
from dcgan_jax.train_state import GANState

_COLUMNS = 10  # samples of a class in the picture


def retrieve(
    workdir: epath.PathLike,
    given: ConfigDict | None,
    out: epath.PathLike | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
) -> tuple[epath.Path, str]:
    """Measures how often a sample's class (or caption) is found again among all classes.

    By a judge that knows real images alone: a linear SVM on the features of
    `config.evaluation.extractor`, fitted to `config.evaluation.num_real` training images; its
    accuracy on as many real images of `config.evaluation.split` says what can be had at most. And
    by the run's own discriminator: the class whose (first) caption fits a sample best.

    Args:
        workdir: of a conditional training run.
        given: see `with_given`.
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
    run, networks, state = restore(workdir, which, of_latents=True)
    if not run.config.conditional:
        raise UserError(
            f'{workdir} holds a run without classes or captions, so nothing was asked of a sample: '
            'train one with config.conditional'
        )
    config, num = with_given(run.config, given), num or 1_000
    fields = config.evaluation
    extractor = extractors.load(fields.extractor, fields.inception_weights, fields.batch_size)
    extractor.check(run.image_shape)
    sampler = Sampler(networks.generator, config)
    labels = sampler.labels(num)
    known, judged = (
        _labelled(config, split, count, seed)
        for split, count in ((config.data.split, fields.num_real), (fields.split, num))
    )
    out = run_dir.check_writable(out or epath.Path(workdir).expanduser() / 'retrieval', '--out')

    pixels = sampler(state, sampler.latents(seed, num), labels)
    svm, _ = probe.fit(_features(extractor, known[0]), known[1], run.num_classes)
    found = svm(_features(extractor, pixels))
    real = svm(_features(extractor, judged[0]))
    own = fitting(networks, state, pixels, run.num_classes, captions.count(config))
    content = {
        'figures': {
            'samples': float(np.mean(found == labels)),
            'samples, by D': float(np.mean(own == labels)),
            'real images': float(np.mean(real == judged[1])),
        },
        'by class': {
            name: float(np.mean(found[labels == index] == index))
            for index, name in enumerate(run.class_names)
            if (labels == index).any()
        },
        'extractor': extractor.name, 'num': num, 'seed': seed, 'step': int(state.step),
        'num_real': len(known[0]), 'split': fields.split,
    }  # fmt: skip
    write_whole(out / 'retrieval.json', f'{json.dumps(content, indent=2)}\n'.encode())
    shown = [np.flatnonzero(labels == index)[:_COLUMNS] for index in range(run.num_classes)]
    rows = [pixels[row] for row in shown if len(row) == len(shown[0])]
    picture = images.grid(np.concatenate(rows), columns=len(rows[0]))
    images.write_png(out / 'retrieval.png', picture)
    line = ', '.join(f'{name} {share:.2%}' for name, share in content['figures'].items())
    return out, f'class found again ({extractor.name}): {line}'


def fitting(
    networks: Networks, state: GANState, pixels: np.ndarray, num_classes: int, of_each: int
) -> np.ndarray:
    """The class, int64 `[N]`, that D holds most likely for each image uint8 `[N, H, W, C]`.

    Args:
        networks: of the run.
        state: of the run.
        pixels: the images.
        num_classes: to choose from.
        of_each: captions of a class, of which the first speaks for it.
    """
    discriminator = state.discriminator
    variables = {'params': discriminator.params, **discriminator.statistics}

    @jax.jit
    def logits(variables: Any, part: jax.Array, label: jax.Array) -> jax.Array:
        labels = jax.numpy.full(len(part), label * of_each, np.int32)
        return networks.discriminator.apply(variables, to_float(part), labels, train=False)[:, 0]

    scores = [logits(variables, pixels, np.int32(index)) for index in range(num_classes)]
    return np.argmax(np.stack([np.asarray(score) for score in scores]), axis=0)


def _labelled(
    config: ConfigDict, split: str, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    source: ImageSource = sources.open_split(config, split)
    examples = drawn_labelled(seed, min(count, len(source)), source)
    return examples.images, examples.labels


def _features(extractor: extractors.Extractor, pixels: np.ndarray) -> np.ndarray:
    parts = [
        extractor(pixels[start : start + extractor.piece])[0]
        for start in range(0, len(pixels), extractor.piece)
    ]
    return np.concatenate(parts)
