"""The look of the figures: two themes, one palette, axes that keep quiet, PNG without a display.

Colours are told apart by people with any colour vision, and mean the same everywhere: left joints
orange, right joints blue, the trunk grey; axes x/u teal, y/v ochre, z/d plum; all else slate.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

DOTS_PER_INCH = 144
AXIS_MEANING = {
    "x": "x (right)",
    "y": "y (down)",
    "z": "z (depth)",
    "u": "u (right)",
    "v": "v (down)",
    "d": "d (depth)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """Colours of one appearance."""

    name: str
    surface: str
    ink: str
    muted: str
    grid: str
    left: str
    right: str
    centre: str
    truth: str
    bar: str
    axes: tuple[str, str, str]
    ramp: tuple[str, ...]

    @property
    def colormap(self) -> LinearSegmentedColormap:
        """Sequential colours for amounts, from little to much."""
        return LinearSegmentedColormap.from_list(f"pose3d_{self.name}", self.ramp)

    def side(self, name: str) -> str:
        """Colour of a left, right or centre joint."""
        return {"left": self.left, "right": self.right}.get(name, self.centre)


LIGHT = Theme(
    name="light",
    surface="#ffffff",
    ink="#22262b",
    muted="#656c75",
    grid="#e6e4df",
    left="#d55e00",
    right="#0072b2",
    centre="#55595f",
    truth="#22262b",
    bar="#71839a",
    axes=("#2a9d8f", "#e0a526", "#8f3b76"),
    ramp=("#eef3f2", "#a9d3cd", "#5aa9a6", "#2f7a8a", "#254e6e", "#1d2b4f"),
)
DARK = Theme(
    name="dark",
    surface="#1c1f25",
    ink="#e9e7e2",
    muted="#a0a6ae",
    grid="#343941",
    left="#f0833a",
    right="#56b4e9",
    centre="#c3c7cd",
    truth="#f4f2ee",
    bar="#8396ad",
    axes=("#4fc3b3", "#f0c05a", "#d285bb"),
    ramp=("#24303a", "#27505e", "#2f7a80", "#56a99b", "#a4d4b4", "#eef3d6"),
)
THEMES = (LIGHT, DARK)


@contextlib.contextmanager
def drawing(theme: Theme) -> Iterator[None]:
    """Draw in a theme: settings hold inside the block only."""
    settings: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.labelsize": 10,
        "axes.edgecolor": theme.grid,
        "axes.linewidth": 0.8,
        "axes.labelcolor": theme.muted,
        "axes.titlecolor": theme.ink,
        "axes.facecolor": theme.surface,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "figure.facecolor": theme.surface,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "legend.labelcolor": theme.ink,
    }
    with mpl.rc_context(settings):
        yield


def new_figure(width_in: float, height_in: float, *, is_arranged: bool = True) -> Figure:
    """An empty figure with a canvas of its own, so that nothing global is touched.

    Args:
        width_in: Width, inches.
        height_in: Height, inches.
        is_arranged: True lets matplotlib make room for labels; False leaves places as given.
    """
    layout = ConstrainedLayoutEngine() if is_arranged else None
    figure = Figure(figsize=(width_in, height_in), dpi=DOTS_PER_INCH, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def with_few_colours(png: bytes) -> bytes:
    """The same picture from a palette of 256 colours: a third of the size, hard to tell apart."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(256).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def grid_along(axes: Axes, axis: str) -> None:
    """Show grid lines across one axis only, and no frame."""
    axes.grid(visible=True, axis=axis)  # type: ignore[arg-type]
    for spine in axes.spines.values():
        spine.set_visible(False)
