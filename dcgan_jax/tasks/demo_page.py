"""Gradio page of `--mode=demo` with one tab per task."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import gradio
import numpy as np

from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks.demo_functions import (
    MAX_SAMPLES,
    AnomalyDetection,
    Generation,
    Restoration,
)
from dcgan_jax.tasks.explore import SHIFTS

_CACHE = 600, 600  # Interval and age in seconds at which image files are deleted.
_FONTS = ['system-ui', 'sans-serif']
_MONOSPACE = ['ui-monospace', 'monospace']  # Gradio's default fonts are loaded from Google.


def build(
    title: str,
    generation: Generation | None,
    restorations: Sequence[Restoration],
    anomalies: AnomalyDetection | None,
) -> gradio.Blocks:
    """Return the page.

    Args:
        title: Heading of the page.
        generation: Functions of the tabs 'Sample', 'Interpolation' and 'Directions'; None omits
            them.
        restorations: Functions of the tabs 'Inpaint', 'Super-resolve' and 'Colorize'.
        anomalies: Functions of the tab 'Anomaly'; None omits it.
    """
    with gradio.Blocks(
        title=f'{title} - dcgan_jax', analytics_enabled=False, delete_cache=_CACHE
    ) as page:
        gradio.Markdown(f'# {title}')
        if generation is not None:
            _sample_tab(generation)
            _interpolation_tab(generation)
            _directions_tab(generation)
        for restoration in restorations:
            _restoration_tab(restoration)
        if anomalies is not None:
            _anomaly_tab(anomalies)
    return page


def theme() -> gradio.Theme:
    """Return a theme whose fonts are installed on the computer of the user."""
    return gradio.themes.Default(font=_FONTS, font_mono=_MONOSPACE)


def _sample_tab(generation: Generation) -> None:
    with _tab('Sample'), gradio.Row():
        with gradio.Column():
            inputs = [
                _seed('Seed', 0),
                gradio.Slider(1, MAX_SAMPLES, 16, step=1, label='Number of images'),
                gradio.Slider(0.0, 1.5, 1.0, label='Truncation'),
                *_condition(generation),
            ]
        _update_on_change(generation.sample, inputs, _image('Samples'))


def _interpolation_tab(generation: Generation) -> None:
    with _tab('Interpolation'), gradio.Row():
        with gradio.Column():
            inputs = [
                _seed('First seed', 0),
                _seed('Second seed', 1),
                gradio.Slider(0.0, 1.0, 0.0, label='Position'),
                *_condition(generation),
            ]
        _update_on_change(generation.interpolate, inputs, _image('Image'))


def _directions_tab(generation: Generation) -> None:
    with _tab('Directions'), gradio.Row():
        with gradio.Column():
            seed = _seed('Seed', 0)
            condition = _condition(generation) or [gradio.State('')]
            sliders = [
                gradio.Slider(min(SHIFTS), max(SHIFTS), 0.0, label=f'Direction {index + 1}')
                for index in range(generation.num_directions)
            ]
        _update_on_change(generation.move, [seed, *condition, *sliders], _image('Image'))


def _restoration_tab(restoration: Restoration) -> None:
    if restoration.kind == 'masked':
        _inpainting_tab(restoration)
        return
    name, function, labels = {
        'low_resolution': ('Super-resolve', restoration.upsample, ('Bicubic', 'Super-resolved')),
        'gray': ('Colorize', restoration.colorize, ('Grayscale', 'Colorized')),
    }[restoration.kind]
    with _tab(name):
        upload = _upload(restoration.upload_note)
        with gradio.Row():
            outputs = [_image(label) for label in labels]
        upload.upload(_with_user_errors(function), upload, outputs)


def _inpainting_tab(restoration: Restoration) -> None:
    def prepare(path: str | None) -> dict[str, Any]:
        background = restoration.prepare(path)
        return {'background': background, 'layers': [], 'composite': background}

    def inpaint(value: dict[str, Any] | None) -> tuple[np.ndarray, np.ndarray]:
        if not value or value['background'] is None:
            raise UserError('there is no image: upload one')
        image = value['background'][..., :3]
        painted = [np.asarray(layer)[..., 3] > 0 for layer in value['layers']]
        return restoration.inpaint(
            image, np.any([np.zeros(image.shape[:2], bool), *painted], axis=0)
        )

    with _tab('Inpaint'):
        upload = _upload(restoration.upload_note)
        with gradio.Row():
            editor = gradio.ImageEditor(
                label='Paint a hole', sources=(), transforms=(), layers=False, format='png',
                canvas_size=(restoration.canvas_size,) * 2, fixed_canvas=True,
                brush=gradio.Brush(default_size=40, colors=['#ff00ff'], color_mode='fixed'),
            )  # fmt: skip
            outputs = [_image('Known pixels'), _image('Inpainted')]
        button = gradio.Button('Inpaint', variant='primary')
        upload.upload(_with_user_errors(prepare), upload, editor)
        button.click(_with_user_errors(inpaint), editor, outputs)


def _anomaly_tab(anomalies: AnomalyDetection) -> None:
    with _tab('Anomaly'):
        upload, text = _upload(anomalies.upload_note), gradio.Textbox(label='Anomaly scores')
        with gradio.Row():
            pictures = [_image('Image'), _image('Reconstruction'), _image('Difference')]
        upload.upload(_with_user_errors(anomalies.score), upload, [text, *pictures])


def _tab(name: str) -> gradio.Tab:
    # Results for tabs that are not rendered may be lost.
    return gradio.Tab(name, render_children=True)


def _seed(label: str, value: int) -> gradio.Number:
    return gradio.Number(value, label=label, precision=0, minimum=0, maximum=2**32 - 1)


def _condition(generation: Generation) -> list[gradio.components.Component]:
    """Return the input of the class or of the prompt, if the run has one."""
    if generation.default_prompt:
        return [gradio.Textbox(generation.default_prompt, label='Prompt')]
    if generation.classes:
        return [gradio.Dropdown(generation.classes, value=generation.classes[0], label='Class')]
    return []


def _image(label: str) -> gradio.Image:
    return gradio.Image(label=label, format='png', interactive=False, buttons=['download'])


def _upload(note: str) -> gradio.Image:
    image = gradio.Image(
        label=f'Upload an image ({note})', type='filepath', sources=['upload'], height=200
    )
    # Gradio would decode the image; `demo_functions.read_upload` does, after checking its size.
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def _update_on_change(
    function: Callable[..., np.ndarray],
    inputs: Sequence[gradio.components.Component],
    output: gradio.Image,
) -> None:
    """Compute the output whenever an input changes; outdated inputs are skipped."""
    gradio.on(  # Without triggers: when the page is loaded and when an input changes.
        fn=_with_user_errors(function),
        inputs=inputs,
        outputs=output,
        show_progress='hidden',
        trigger_mode='always_last',
    )


def _with_user_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose user errors are shown on the page."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    return call
