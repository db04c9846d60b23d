"""`--mode=report`: summarize a run's folder in a self-contained HTML page."""

import errno
import io
import json
from collections.abc import Iterator
from typing import Any

from etils import epath
from PIL import Image

from dcgan_jax import config as config_lib
from dcgan_jax import run_dir
from dcgan_jax.configs import default
from dcgan_jax.run_description import Run
from dcgan_jax.runtime import checkpoint_folder, workdir_guard, writers
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import (
    absolute,
    file_status,
    read_bytes,
    reject_special_file,
    write_atomic,
)
from dcgan_jax.tasks import html_report
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import output_folder
from dcgan_jax.train_state import NETWORKS

_GRIDS = 6  # Number of sample grids, evenly spaced over the training steps.
_MAX_FILE_BYTES = 8 * 2**20  # Larger images and JSON files are not part of the report.
_MAX_TOTAL_BYTES = 48 * 2**20  # Larger pages make browsers slow.
_FORMATS = {'.png': 'png', '.gif': 'gif'}
# Titles of the tasks' folders, in order; other folders are not part of the report.
_TASKS = {
    'explore': 'Latent space',
    'explain': 'Visualization of the networks',
    'super_resolution': 'Super-resolution',
    'inpainting': 'Inpainting',
    'translation': 'Colorization',
    'anomalies': 'Anomaly detection on the test split',
    'anomalies_in_images': 'Anomaly detection on user-supplied images',
    'classification': 'Classification of samples',
}
_EXTREMES = 'Most and least anomalous images'
_CAPTIONS = {
    'explore': {
        'interpolation': 'Spherical interpolation between latents',
        'truncation': 'Latents scaled by increasing factors, one per row',
        'directions': 'Latents moved along the directions that change the first layer most (SeFa)',
        'arithmetic': 'Latent arithmetic with averages of samples',
        'neighbors': 'Samples, their nearest training images in pixels, then in features of D',
    },
    'explain': {
        'filters': 'Maximally activating images of filters of D, with guided gradients below',
        'ablated_channels': 'Samples, then the same samples with ablated channels of G in each row',
    },
    'anomalies': {
        'discriminator': f'{_EXTREMES} by the logit of D',
        'rotation': f'{_EXTREMES} by rotation prediction',
        'mahalanobis': f'{_EXTREMES} by the Mahalanobis distance of features of D',
        'neighbors': f'{_EXTREMES} by the nearest-neighbor distance of features of D',
        'encoder': f'{_EXTREMES}, with reconstructions (encoder) and differences',
        'latent_optimization': f'{_EXTREMES}, with optimized reconstructions and differences',
    },
    'classification': {'classification': 'Samples, with a row for each class'},
}


def run(options: TaskOptions) -> TaskResult:
    """Write `report.html`: config, metrics, curves, samples over time, and results of tasks.

    Args:
        options: Uses `workdir` and `out` (defaults to `workdir`).

    Returns:
        Path of the page.

    Raises:
        UserError: If there is no run with a checkpoint, or its checkpoints are lost.
    """
    workdir = run_dir.folder(options.workdir)
    check_workdir = workdir_guard.presence_check(workdir)
    described = run_dir.read(workdir)
    step = checkpoint_folder.latest_step(workdir)
    if step is None:
        raise UserError(f'{workdir} has no checkpoint: train the run first')
    curves, errors = _curves(workdir)
    if step and not curves and not errors:
        errors = ['There are no scalars: the event files are missing, truncated or damaged.']
    out = output_folder(options, '', described.config, check_workdir)
    embedded = EmbeddedImages()
    height, width, channels = described.image_shape
    page = html_report.document(
        f'{absolute(workdir).name}: {described.config.dataset}, {step:,} steps',
        html_report.text(
            f'Images of {height}x{width}x{channels}; seed {described.config.seed}; last checkpoint '
            f'at step {step:,} (not verified by the report).'
        ),
        html_report.section('Metrics', *_metrics(workdir / run_dir.EVALUATIONS_FOLDER)),
        html_report.section(
            'Samples during training', html_report.gallery(_samples(workdir, embedded))
        ),
        *(
            html_report.section(title, *_task(workdir / name, embedded))
            for name, title in _TASKS.items()
        ),
        html_report.section('Curves', html_report.gallery(curves), *map(html_report.text, errors)),
        html_report.section('Config', *_config(described)),
        html_report.section('Omitted', *map(html_report.text, embedded.omitted)),
    )
    return TaskResult(write_atomic(out.file('report.html'), page.encode(errors='replace')))


class EmbeddedImages:
    """Embeds image files up to a total size.

    Attributes:
        omitted: Messages about images that are not embedded.
    """

    def __init__(self):
        """Initialize without images."""
        self._remaining_bytes = _MAX_TOTAL_BYTES
        self.omitted: list[str] = []

    def embed(self, path: epath.Path, caption: str) -> str:
        """Return the HTML of an image, or '' if it is too large, unreadable or damaged."""
        name = f'{path.parent.name}/{path.name}'
        try:
            content = _read_bytes(path, min(_MAX_FILE_BYTES, self._remaining_bytes))
        except OSError as error:
            self.omitted.append(f'{name} cannot be read: {error.strerror or error}')
            return ''
        file_format = _FORMATS[path.suffix]
        if not _is_intact(content, file_format):
            self.omitted.append(f'{name} is damaged or is not a {file_format.upper()} image')
            return ''
        self._remaining_bytes -= len(content)
        return html_report.picture(content, file_format, caption)


def _is_intact(content: bytes, file_format: str) -> bool:
    """Return whether a PNG or GIF file is intact, as far as can be detected without decoding it."""
    try:
        with Image.open(io.BytesIO(content), formats=[file_format.upper()]) as image:
            image.verify()  # Checks the checksums of a PNG file.
    except Exception:  # Pillow raises exceptions of various types.
        return False
    return file_format == 'png' or content.endswith(b';')  # GIF files have no checksums.


def _by_step(folder: epath.Path) -> dict[int, epath.Path]:
    """Return the PNG files in a folder whose names are steps, by step."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return {
        int(path.stem): path
        for path in paths
        if path.suffix == '.png' and path.stem.isascii() and path.stem.isdecimal()
    }


def _config(run: Run) -> Iterator[str]:
    defaults = config_lib.flatten(default.get_config().to_dict())
    fields = config_lib.flatten(run.config.to_dict())
    rows = [{'field': name, 'value': repr(value)} for name, value in fields.items()]
    changed = [
        {**row, 'configs/default.py': repr(defaults.get(row['field']))}
        for row in rows
        if fields[row['field']] != defaults.get(row['field'])
    ]
    if changed:
        yield html_report.text('Changes from configs/default.py:')
        yield html_report.table(changed)
    yield html_report.collapsible('All fields', html_report.table(rows))


def _metrics(folder: epath.Path) -> Iterator[str]:
    """Yield a table with a row for each evaluation, and the protocols."""
    rows, protocols = [], {}
    for path in sorted(folder.glob('*.json')) if folder.is_dir() else []:
        content = _read(path)
        if not all(isinstance(content.get(part), dict) for part in ('labels', 'protocol')):
            yield html_report.text(f'{path.name} is not a valid evaluation')
            continue
        labels, protocol = content.pop('labels'), content.pop('protocol')
        step, count = protocol.pop('step', ''), protocol.get('num_samples', '')
        protocol.pop('weights_sha256', None)  # Differs between the rows, like the step.
        values = {str(labels.get(name, name)): value for name, value in content.items()}
        number = protocols.setdefault(json.dumps(protocol, sort_keys=True), len(protocols) + 1)
        rows.append({'step': step, 'images': count, **values, 'protocol': number})
    if rows:
        yield html_report.table(rows)
    for protocol, number in protocols.items():
        rows = [{'': name, 'value': value} for name, value in json.loads(protocol).items()]
        yield html_report.collapsible(f'Protocol {number}', html_report.table(rows))


def _samples(workdir: epath.Path, embedded: EmbeddedImages) -> list[str]:
    """Return the first and the last sample grid, and evenly spaced ones between them."""
    grids = _by_step(workdir / run_dir.SAMPLES_FOLDER)
    steps = sorted(grids)
    every = max(1, -(-(len(steps) - 1) // (_GRIDS - 1)))
    chosen = sorted({*steps[::every], *steps[-1:]})
    return [embedded.embed(grids[step], f'Step {step:,}') for step in chosen]


def _task(folder: epath.Path, embedded: EmbeddedImages) -> Iterator[str]:
    """Yield the results of a task: its metrics, then its images."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    captions = dict(_CAPTIONS.get(folder.name, {}))
    for path in paths:
        if path.suffix == '.json':
            content = _read(path)
            yield from _tables(_title_of(path), content)
            methods = content.get('metrics')
            if {'input', 'metrics'} <= content.keys() and isinstance(methods, dict):
                # Written by `restoration_evaluation.evaluate`.
                captions[path.stem] = f'Input, {", ".join(methods)}, original image'
    chosen = [path for path in paths if path.suffix in _FORMATS]
    if chosen:
        yield html_report.gallery(
            [embedded.embed(path, captions.get(path.stem, _title_of(path))) for path in chosen]
        )


def _title_of(path: epath.Path) -> str:
    return path.stem.replace('_', ' ')


def _tables(title: str, content: dict[str, Any]) -> Iterator[str]:
    """Yield nested dicts as tables and plain values as text."""
    nested = {name: value for name, value in content.items() if isinstance(value, dict)}
    plain = {name: value for name, value in content.items() if name not in nested}
    if plain:
        yield html_report.text(
            f'{title}: {", ".join(f"{n} {_format(v)}" for n, v in plain.items())}'
        )
    for name, value in nested.items():
        if value and all(isinstance(row, dict) for row in value.values()):
            yield html_report.table([{name: key, **row} for key, row in value.items()])
        else:
            yield from _tables(name, value)


def _format(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _read_bytes(path: epath.Path, limit: int) -> bytes:
    """Read a file; raise `OSError` if it is larger than `limit` bytes or cannot be read."""
    if (size := file_status(path).size) > limit:
        raise OSError(errno.EFBIG, f'{size:,} bytes exceed the limit of {limit:,} bytes')
    return read_bytes(path)


def _read(path: epath.Path) -> dict[str, Any]:
    """Return the object in a JSON file, or {} if there is none."""
    try:
        content = json.loads(_read_bytes(path, _MAX_FILE_BYTES).decode())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _curves(workdir: epath.Path) -> tuple[list[str], list[str]]:
    """Return a chart for each scalar, with both networks in one chart, and error messages."""
    # Imported here because it takes a second.
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    try:
        for path in workdir.glob(f'*{writers.EVENT_FILE}*'):
            reject_special_file(path)
        events = EventAccumulator(str(workdir), size_guidance={SCALARS: 0}).Reload()
    except OSError as error:
        return [], [f'The event files cannot be read: {error.strerror or error}']
    charts: dict[str, dict[str, html_report.Line]] = {}
    for tag in sorted(events.Tags()['scalars']):
        group, _, name = tag.rpartition('/')
        chart = name if group in NETWORKS else tag
        charts.setdefault(chart, {})[tag] = [(e.step, e.value) for e in events.Scalars(tag)]
    return [html_report.chart(_title(name, lines), lines) for name, lines in charts.items()], []


def _title(name: str, lines: dict[str, html_report.Line]) -> str:
    return (name if len(lines) > 1 else next(iter(lines))).replace('_', ' ')
