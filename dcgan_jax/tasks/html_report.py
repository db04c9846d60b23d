"""A self-contained HTML page with text, tables, line charts (SVG) and images."""

import base64
import html
import math
from collections.abc import Mapping, Sequence

_MAX_POINTS = 400  # Largest number of points of a line.
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 480, 220, 58, 24, 10  # Size and margins of a chart.
# Palette of Okabe & Ito 2008, which color-blind readers can distinguish on white and on black.
_COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
# Content security policy: the page neither loads external resources nor runs scripts.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 0 1rem;
  overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; }
h2 { border-top: 1px solid #8888; padding-top: 1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; overflow-wrap: normal; }
th, td { text-align: left; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid #8884; }
td { font-variant-numeric: tabular-nums; }
.gallery { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); }
figure { margin: 0; }
figure img { width: 100%; max-width: 40rem; image-rendering: pixelated; }
figcaption { font-size: 0.85rem; }
svg { width: 100%; max-width: 40rem; font-size: 12px; }
svg text { fill: currentColor; }
summary { cursor: pointer; }
"""

Line = Sequence[tuple[float, float]]


def text(words: object) -> str:
    """Return a paragraph."""
    return f'<p>{html.escape(str(words))}</p>'


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a table with a row for each of `rows`, whose keys are the column headings."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [
        _row('th', columns),
        *(_row('td', [row.get(name, '') for name in columns]) for row in rows),
    ]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _row(tag: str, cells: Sequence[object]) -> str:
    content = ''.join(f'<{tag}>{html.escape(_format(cell))}</{tag}>' for cell in cells)
    return f'<tr>{content}</tr>'


def _format(value: object) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def picture(content: bytes, file_format: str, caption: str) -> str:
    """Return an embedded image of the format `image/FORMAT` with a caption."""
    encoded = base64.b64encode(content).decode()
    alt = html.escape(caption)
    source = f'data:image/{file_format};base64,{encoded}'
    return f'<figure><img alt="{alt}" src="{source}"><figcaption>{alt}</figcaption></figure>'


def chart(title: str, lines: Mapping[str, Line]) -> str:
    """Return a line chart and a legend with the last values; non-finite points are omitted.

    Args:
        title: Caption.
        lines: Lines by name: pairs (step, value) in increasing order of steps.
    """
    finite = {name: [p for p in line if math.isfinite(p[1])] for name, line in lines.items()}
    finite = {name: line for name, line in finite.items() if line}
    if not finite:
        return ''
    steps, values = zip(*(point for line in finite.values() for point in line), strict=True)
    x, y = _Scale(steps, _LEFT, _WIDTH - 10), _Scale(values, _HEIGHT - _BOTTOM, _TOP)
    parts = [_label(_LEFT - 6, y(v) + 4, f'{v:.3g}', 'end') for v in (y.low, y.high)]
    parts.append(_label(_LEFT, _HEIGHT - 6, f'{x.low:,}', 'start'))
    parts.append(_label(_WIDTH - 10, _HEIGHT - 6, f'{x.high:,}', 'end'))
    axes = f'M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - 10}'
    parts.append(f'<path d="{axes}" fill="none" stroke="currentColor" stroke-opacity="0.4"/>')
    legend = []
    for index, (name, line) in enumerate(finite.items()):
        color = _COLORS[index % len(_COLORS)]
        points = ' '.join(f'{x(step):.1f},{y(value):.1f}' for step, value in _subsample(line))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}"/>')
        last = html.escape(f'{name} {line[-1][1]:.4g}')
        legend.append(f'<span style="color:{color}">&#9632;</span> {last}')
    alt = html.escape(title)
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{alt}"'
    drawing = f'<svg {box}>{"".join(parts)}</svg>'
    caption = f'<figcaption><b>{alt}</b>; last values: {", ".join(legend)}</figcaption>'
    return f'<figure>{drawing}{caption}</figure>'


class _Scale:
    """Linear map from values to coordinates of a drawing."""

    def __init__(self, values: Sequence[float], start: float, end: float):
        self.low, self.high = min(values), max(values)
        self._span, self._start, self._end = (self.high - self.low) or 1.0, start, end

    def __call__(self, value: float) -> float:
        return self._start + (value - self.low) / self._span * (self._end - self._start)


def _label(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def _subsample(line: Line) -> Line:
    """Return at most `_MAX_POINTS` + 1 evenly spaced points, including the last."""
    every = -(-len(line) // _MAX_POINTS)
    return [*line[:-1:every], line[-1]]


def gallery(parts: Sequence[str]) -> str:
    """Return images and charts in a responsive grid, or '' if there are none."""
    return f'<div class="gallery">{"".join(parts)}</div>' if any(parts) else ''


def section(title: str, *parts: str) -> str:
    """Return a section with a heading, or '' if all its parts are empty."""
    return f'<section><h2>{html.escape(title)}</h2>{"".join(parts)}</section>' if any(parts) else ''


def collapsible(title: str, *parts: str) -> str:
    """Return parts that are hidden until the title is clicked."""
    return f'<details><summary>{html.escape(title)}</summary>{"".join(parts)}</details>'


def document(title: str, *parts: str) -> str:
    """Return the complete page."""
    title = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><style>{_STYLE}</style></head>'
        f'<body><h1>{title}</h1>{"".join(parts)}</body></html>\n'
    )
