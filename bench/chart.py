"""A bar chart as SVG, by hand: one bar a server, its value beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, BAR_HEIGHT, GAP, LEFT, RIGHT, TOP, BOTTOM = 760, 22, 8, 190, 90, 44, 30


def bars(title: str, values: Sequence[tuple[str, float]], caption: str) -> str:
    """Return the chart of `values`, the longest bar for the largest."""
    largest = max((value for _, value in values), default=0.0) or 1.0
    height = TOP + len(values) * (BAR_HEIGHT + GAP) + BOTTOM
    body = "".join(_bar(index, name, value, largest) for index, (name, value) in enumerate(values))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="13">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text x="12" y="26" font-size="16" font-weight="bold">{escape(title)}</text>\n'
        f'{body}<text x="12" y="{height - 10}" font-size="11" fill="#555">{escape(caption)}</text>\n</svg>\n'
    )


def _bar(index: int, name: str, value: float, largest: float) -> str:
    top = TOP + index * (BAR_HEIGHT + GAP)
    length = (WIDTH - LEFT - RIGHT) * max(value, 0.0) / largest
    text_y = top + BAR_HEIGHT - 6
    colour = "#c2410c" if name.startswith("Fanfare") else "#64748b"
    return (
        f'<text x="{LEFT - 8}" y="{text_y}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT}" fill="{colour}"/>'
        f'<text x="{LEFT + length + 6:.1f}" y="{text_y}">{value:.2f}</text>\n'
    )
