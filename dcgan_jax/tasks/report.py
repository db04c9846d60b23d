"""`--mode=report`: all that a run's folder tells, as one page that needs nothing else."""

import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from dcgan_jax import config as config_lib
from dcgan_jax import run_dir
from dcgan_jax.configs import default
from dcgan_jax.run_dir import Run
from dcgan_jax.runtime import checkpoint
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import absolute, write_atomic
from dcgan_jax.tasks import html_report
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.train_state import NETWORKS

_GRIDS = 6  # of samples, evenly over the training
_LARGEST = 8 * 2**20  # bytes of a picture
_MOST = 48 * 2**20  # bytes of all pictures: browsers get slow
_KINDS = {'.png': 'png', '.gif': 'gif'}
# Folders of tasks, in this order; others of the workdir are no part of the report.
_TASKS = {
    'explore': 'A walk through the latents',
    'explain': 'What the networks see',
    'super_resolution': 'Super-resolution',
    'inpainting': 'Inpainting',
    'translation': 'Translation',
    'anomalies': 'Anomalies',
    'anomalies_in_pictures': 'Anomalies in pictures',
    'retrieval': 'Asked for and found again',
}
_STRANGEST = 'The strangest images, then the least strange'
_CAPTIONS = {
    'explore': {
        'interpolation': 'Walks between latents on great circles',
        'truncation': 'The same latents, each row farther from their mean',
        'directions': 'Along the directions that move the first layer most (SeFa)',
        'arithmetic': 'Averages of samples, added and subtracted',
        'neighbours': 'Samples, the nearest training images in pixels, then in features of D',
    },
    'explain': {
        'filters': 'What excites filters of D most, and guided gradients below',
        'dropped_units': 'Samples, then the same with some channels of G silenced in each row',
    },
    'anomalies': {
        'discriminator': f'{_STRANGEST}, by the logit of D',
        'rotation': f'{_STRANGEST}, by rotation prediction',
        'mahalanobis': f'{_STRANGEST}, by the Mahalanobis distance of features of D',
        'neighbours': f'{_STRANGEST}, by the distance to neighbours in features of D',
        'encoder': f'{_STRANGEST}, each with that of G (latents by an encoder) and the difference',
        'search': f'{_STRANGEST}, each with that of G (latents searched) and the difference',
    },
    'retrieval': {'retrieval': 'Samples, a row for each class'},
}
_CAPTIONS['anomalies_in_pictures'] = _CAPTIONS['anomalies']


def run(options: TaskOptions) -> str:
    """Returns what the command line prints, see `TaskOptions`."""
    return f'report: {report(options.workdir, options.out)}'


def report(workdir: epath.PathLike, out: epath.PathLike | None = None) -> epath.Path:
    """Writes `report.html`: config, figures, curves, samples over time, and pictures of tasks.

    Args:
        workdir: of a training run.
        out: folder for the page; `workdir` when None.

    Returns:
        Its path.

    Raises:
        UserError: there is no run with a checkpoint.
    """
    workdir = run_dir.folder(workdir)
    run = run_dir.read(workdir)
    steps = sorted(_numbered(workdir / checkpoint.FOLDER, ''))
    if not steps:
        raise UserError(f'{workdir} holds no checkpoint yet: train it first')
    curves, unread = _curves(workdir)
    out = run_dir.check_writable(out or workdir, '--out')
    pictures = EmbeddedImages()
    height, width, channels = run.image_shape
    written = html_report.document(
        f'{absolute(workdir).name}: {run.config.dataset}, {steps[-1]:,} steps',
        html_report.text(
            f'Images of {height}x{width}x{channels}; seed {run.config.seed}; last checkpoint of '
            f'step {steps[-1]:,}.'
        ),
        html_report.section('Figures', *_figures(workdir / run_dir.EVALUATIONS_FOLDER)),
        html_report.section(
            'Samples while training', html_report.gallery(_samples(workdir, pictures))
        ),
        *(
            html_report.section(title, *_task(workdir / name, pictures))
            for name, title in _TASKS.items()
        ),
        html_report.section('Curves', html_report.gallery(curves), *map(html_report.text, unread)),
        html_report.section('Config', *_config(run)),
        html_report.section('Left out', *map(html_report.text, pictures.left_out)),
    )
    return write_atomic(out / 'report.html', written.encode(errors='replace'))


class EmbeddedImages:
    """EmbeddedImages of files, as long as there is room.

    Attributes:
        left_out: what was not, in words.
    """

    def __init__(self):
        """Begins with all the room."""
        self._room = _MOST
        self.left_out: list[str] = []

    def show(self, path: epath.Path, caption: str) -> str:
        """The picture, or nothing."""
        name = f'{path.parent.name}/{path.name}'
        try:
            size = path.stat().length
            if size > min(_LARGEST, self._room):
                self.left_out.append(f'{name}: {size:,} bytes are too many')
                return ''
            content = path.read_bytes()
        except OSError as error:
            self.left_out.append(f'{name} can not be read: {error.strerror}')
            return ''
        self._room -= size
        return html_report.picture(content, _KINDS[path.suffix], caption)


def _numbered(folder: epath.Path, suffix: str) -> dict[int, epath.Path]:
    """What in a folder is named by a step and nothing but `suffix`."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return {
        int(path.stem): path
        for path in paths
        if path.suffix == suffix and path.stem.isascii() and path.stem.isdecimal()
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


def _figures(folder: epath.Path) -> Iterator[str]:
    """A line for each evaluation; below, how they were measured."""
    rows, protocols = [], {}
    for path in sorted(folder.glob('*.json')) if folder.is_dir() else []:
        found = _read(path)
        if not all(isinstance(found.get(part), dict) for part in ('labels', 'protocol')):
            yield html_report.text(f'{path.name} can not be read as an evaluation')
            continue
        labels, protocol = found.pop('labels'), found.pop('protocol')
        step, count = protocol.pop('step', ''), protocol.get('n_fake', '')
        values = {str(labels.get(name, name)): value for name, value in found.items()}
        number = protocols.setdefault(json.dumps(protocol, sort_keys=True), len(protocols) + 1)
        rows.append({'step': step, 'images': count, **values, 'protocol': number})
    if rows:
        yield html_report.table(rows)
    for protocol, number in protocols.items():
        rows = [{'': name, 'value': value} for name, value in json.loads(protocol).items()]
        yield html_report.collapsible(f'Protocol {number}', html_report.table(rows))


def _samples(workdir: epath.Path, pictures: EmbeddedImages) -> list[str]:
    """The first grid, the last, and some between."""
    grids = _numbered(workdir / run_dir.SAMPLES_FOLDER, '.png')
    steps = sorted(grids)
    every = max(1, -(-(len(steps) - 1) // (_GRIDS - 1)))
    chosen = sorted({*steps[::every], *steps[-1:]})
    return [pictures.show(grids[step], f'Step {step:,}') for step in chosen]


def _task(folder: epath.Path, pictures: EmbeddedImages) -> Iterator[str]:
    """What a task wrote: its figures, then its pictures."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    said = dict(_CAPTIONS.get(folder.name, {}))
    for path in paths:
        if path.suffix == '.json':
            found = _read(path)
            yield from _tables(_spaced(path), found)
            methods = found.get('figures')
            if {'input', 'figures'} <= found.keys() and isinstance(methods, dict):
                # Of images completed, see `image_to_image.write`.
                said[path.stem] = f'What was given, {", ".join(methods)}, the real image'
    shown = [path for path in paths if path.suffix in _KINDS]
    if shown:
        yield html_report.gallery(
            [pictures.show(path, said.get(path.stem, _spaced(path))) for path in shown]
        )


def _spaced(path: epath.Path) -> str:
    return path.stem.replace('_', ' ')


def _tables(title: str, found: dict[str, Any]) -> Iterator[str]:
    """Nested figures as tables: rows of rows where all values are such, else names and values."""
    nested = {name: value for name, value in found.items() if isinstance(value, dict)}
    plain = {name: value for name, value in found.items() if name not in nested}
    if plain:
        yield html_report.text(
            f'{title}: {", ".join(f"{n} {_short(v)}" for n, v in plain.items())}'
        )
    for name, value in nested.items():
        if value and all(isinstance(row, dict) for row in value.values()):
            yield html_report.table([{name: key, **row} for key, row in value.items()])
        else:
            yield from _tables(name, value)


def _short(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _read(path: epath.Path) -> dict[str, Any]:
    """A JSON file's object; empty where it holds none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _curves(workdir: epath.Path) -> tuple[list[str], list[str]]:
    """(a chart for each scalar, the same one of both players being in one; what went wrong)."""
    # Here, because it takes a second.
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    try:
        events = EventAccumulator(str(workdir), size_guidance={SCALARS: 0}).Reload()
    except OSError as error:
        return [], [f'The event files can not be read: {error.strerror}']
    lines: dict[str, dict[str, html_report.Line]] = {}
    for tag in sorted(events.Tags()['scalars']):
        group, _, name = tag.rpartition('/')
        both = name if group in NETWORKS else tag
        lines.setdefault(both, {})[tag] = [(e.step, e.value) for e in events.Scalars(tag)]
    return [html_report.chart(_title(name, line), line) for name, line in lines.items()], []


def _title(name: str, lines: dict[str, html_report.Line]) -> str:
    return (name if len(lines) > 1 else next(iter(lines))).replace('_', ' ')
