"""One style for all plots: SVG with the colours of the page, light or dark, and with details on hovering."""

import io
import re
import warnings
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

# The palette of Okabe and Ito, distinguishable with any kind of colour blindness. In the SVG, each colour becomes a
# variable of the page, so that the dark page can use lighter ones.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
SERIES = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
INK, MUTED, LINE = "#1a1c1f", "#60656c", "#d6d9dd"
VARIABLES = {
    BLUE: "blue", ORANGE: "orange", GREEN: "green", RED: "red", PURPLE: "purple", SKY: "sky",
    INK: "ink", MUTED: "muted", LINE: "line",
}  # fmt: skip
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))  # distinguish series without colour
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold a $
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the font of the page
    "svg.hashsalt": "thaw",  # the same data gives the same file
}
LONGEST = 22  # characters of a label in a plot
HOVERED = 1_500  # cells of a matrix with details on hovering, to keep the page small
INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
Area = tuple[float, float, float, float, str]
"""Left, bottom, width and height in the units of an axes, and the text shown on hovering."""


styled = mpl.rc_context(STYLE)
"""A decorator for functions that draw."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of the given size in pixels."""
    return Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


def panel(width: float, height: float, title: str = "") -> tuple[Figure, Any]:
    """A figure of the given size in pixels, and its only axes."""
    figure = new_figure(width, height)
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def name_rows(axes: Axes, places: Iterable[float], names: Iterable[str], longest: int = 30) -> None:
    """Label the rows of a plot."""
    axes.set_yticks(list(places), [short(name, longest) for name in names])
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.grid(axis="y", visible=False)


def around(axes: Axes, points: Iterable[tuple[float, float, str]]) -> list[Area]:
    """Areas around points of a finished plot, of which each has a text to show on hovering."""
    width, height = np.ptp(axes.get_xlim()) / 40, np.ptp(axes.get_ylim()) / 20
    return [(x - width / 2, y - height / 2, width, height, text) for x, y, text in points]


def picture(figure: Figure, title: str, hover: Sequence[tuple[Axes, Iterable[Area]]] = (), scroll: bool = False) -> str:
    """The figure as an SVG element.

    Args:
        figure: drawn by a function that is `styled`.
        title: what it shows, for screen readers.
        hover: areas of axes with the texts shown on hovering.
        scroll: keep the size on a narrow screen and scroll sideways, instead of shrinking it beyond legibility.
    """
    file = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the browser has its own fonts, so missing glyphs do not matter
        # Laid out here, or matplotlib would draw everything twice.
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
        figure.set_layout_engine("none")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    body = text[text.index("<defs>") : text.rindex("</svg>")]
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r"\s*\n\s*", "\n", re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S))
    body = re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]), body)
    width, height = figure.get_size_inches() * 72
    areas = "".join(_rectangle(axes, area, height) for axes, own in hover for area in own)
    return (
        f'<svg class="{"wide" if scroll else "fits"}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}{areas}</svg>"
    )


def _variable(colour: str) -> str:
    name = VARIABLES.get(colour)
    return f"var(--{name})" if name else colour


def _rectangle(axes: Axes, area: Area, page_height: float) -> str:
    left, bottom, width, height, text = area
    (x, y), (right, top) = axes.transData.transform([(left, bottom), (left + width, bottom + height)])
    x, right, y, top = min(x, right), max(x, right), min(y, top), max(y, top)
    place = f'x="{x:.1f}" y="{page_height - top:.1f}" width="{right - x:.1f}" height="{top - y:.1f}"'
    return f'<rect class="hover" {place}><title>{escape(visible(text))}</title></rect>'


def short(name: str, longest: int = LONGEST) -> str:
    """A label shortened to fit into a plot."""
    name = visible(" ".join(name.split()))
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def visible(text: str) -> str:
    """A text with invisible but active characters spelled out: control characters and changes of text direction."""
    return INVISIBLE.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def shaded(axes: Axes, shares: np.ndarray) -> None:
    """A matrix as an image in which higher values are more opaque, which works on any background."""
    pixels = np.zeros((*shares.shape, 4))
    pixels[..., :3] = to_rgb(BLUE)
    pixels[..., 3] = shares
    axes.imshow(pixels, interpolation="none", aspect="auto")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)


@styled
def matrix(
    values: np.ndarray, shares: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str,
    written: Sequence[Sequence[str]] | None, told: Sequence[Sequence[str]], names: tuple[str, str],
) -> str:  # fmt: skip
    """A matrix with named rows and columns, and with numbers in the cells if there are few of them.

    Args:
        values: counts; the largest non-zero ones have details on hovering.
        shares: (rows, columns), from 0 to 1: how dark each cell is.
        rows, columns: their names.
        title: of the plot.
        written: the text in each cell, or None for no texts.
        told: the details of each cell on hovering.
        names: of the axes: columns, rows.
    """
    many, large = len(rows), max(values.shape) > 40
    cell = 5 if large else 34 if many <= 12 else 17
    opacity = np.clip(shares, 0, 1) ** 0.6  # rare values should still be visible
    longest = 0 if large else max(len(short(name)) for name in (*rows, *columns)) * 5.5
    width = max(300, longest + 60 + cell * 1.25 * len(columns) * (1 if many > 12 else 1.2))
    figure, axes = panel(width, max(220, longest + 70 + cell * many), title)
    shaded(axes, opacity)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    if not large:
        axes.set_xticks(range(len(columns)), [short(name) for name in columns], rotation=90)
        axes.set_yticks(range(many), [short(name) for name in rows])
    if written is not None:
        for i, line in enumerate(written):
            for j, text in enumerate(line):
                colour = "#ffffff" if opacity[i, j] > 0.6 else INK
                axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=9)
    largest = np.argsort(-values, axis=None, kind="stable")[: min(HOVERED, np.count_nonzero(values))]
    cells = [divmod(int(place), values.shape[1]) for place in largest]
    areas = [(j - 0.5, i - 0.5, 1.0, 1.0, told[i][j]) for i, j in cells]
    return picture(figure, title, [(axes, areas)], scroll=many > 8)
