"""The figures of a report in the order of the page, each with its words, in both themes."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from pose3d.report import charts, poses, residuals
from pose3d.report.results import RunResults
from pose3d.report.style import DARK, LIGHT, Theme, drawing, png_bytes

CASES_PER_KIND = 3
KINDS = ("worst", "typical", "random", "best")
KIND_TITLES = {
    "worst": "Largest errors",
    "typical": "Typical errors",
    "random": "Records drawn at random",
    "best": "Smallest errors",
}

Draw = Callable[[RunResults, Theme], Figure | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureText:
    """What is said about a figure; plain text, escaped where it is shown."""

    name: str
    """File name without its ending."""
    section: str
    """Heading under which it stands."""
    title: str
    caption: str
    """How to read it."""
    alternative: str
    """What it shows, for those who cannot see it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnFigure:
    """A figure as PNG, once on white and once on dark."""

    text: FigureText
    light_png: bytes
    dark_png: bytes


SIGMA = "Where the model is unsure"
ERROR = "Where it errs"
TRAINING = "Training"
CHARTS: tuple[tuple[FigureText, Draw], ...] = (
    (
        FigureText(
            name="sigma_per_joint",
            section=SIGMA,
            title="Predicted σ of every joint",
            caption="Mean over the judged records. Left: in crop coordinates, where 1 is the side "
            "of the crop (u, v) or the depth range (d). Right: in millimetres along the camera "
            "axes. The root's depth is given, not predicted, and has no bar.",
            alternative="Bar chart of the mean predicted scale of every joint along three axes, "
            "normalised on the left and in millimetres on the right.",
        ),
        charts.sigma_per_joint,
    ),
    (
        FigureText(
            name="sigma_on_skeleton",
            section=SIGMA,
            title="The same on the body",
            caption="Mean labelled pose, turned to face the reader (its right hand on the left). "
            "Size and colour of a joint show its mean σ along one camera axis.",
            alternative="Three front views of the mean skeleton; larger and darker joints have a "
            "larger predicted scale along x, y and z.",
        ),
        poses.sigma_on_skeleton,
    ),
    (
        FigureText(
            name="error_against_sigma",
            section=SIGMA,
            title="Does σ know the error?",
            caption="Left: every judged joint but the root (a sample of the points, all "
            "of them in the bins); σ radius = √(σx² + σy² + σz²). A useful σ makes the band rise. "
            "Right: rank correlation within one joint, where knowing that wrists are harder than "
            "hips does not help; dotted: mean.",
            alternative="Scatter of joint error against predicted scale with binned quantiles, and "
            "bars of the rank correlation within every joint.",
        ),
        charts.error_against_sigma,
    ),
    (
        FigureText(
            name="residual_density",
            section=SIGMA,
            title="Learned residual density against the residuals found",
            caption="Residual = (label − prediction)/σ, all joints together. Hexagons and bars: "
            "the judged records (hexagons on a logarithmic scale). Lines: the density that the "
            "likelihood has learned. They agree where the model describes its own errors.",
            alternative="Three panels of residual pairs as hexagons with contours of the learned "
            "density, and three histograms of single axes with the learned marginals.",
        ),
        residuals.residual_density,
    ),
    (
        FigureText(
            name="error_per_joint",
            section=ERROR,
            title="Error of every joint",
            caption="Left: distance to the label, root-relative (bars) and after similarity "
            "alignment (dots); orange left, blue right, grey trunk. Right: the same error along "
            "each camera axis.",
            alternative="Bar chart of the mean error of every joint, in total and along x, y, z.",
        ),
        charts.error_per_joint,
    ),
    (
        FigureText(
            name="error_per_action",
            section=ERROR,
            title="Error of every action",
            caption="MPJPE (bars) and PA-MPJPE (dots). The two vertical lines are the two averages "
            "in use: over all records, and over the actions' means.",
            alternative="Bar chart of the mean error of every action, smallest first.",
        ),
        charts.error_per_action,
    ),
    (
        FigureText(
            name="training_curves",
            section=TRAINING,
            title="Training",
            caption="As logged at the end of every epoch.",
            alternative="Line charts of the loss and the validation error over the epochs.",
        ),
        charts.training_curves,
    ),
)


def draw_figures(results: RunResults) -> Iterator[DrawnFigure]:
    """Draw every figure that the result files allow, in the order of the page."""
    for text, draw in (*cases(results), *CHARTS):
        light = draw_png(draw, results, LIGHT)
        dark = draw_png(draw, results, DARK)
        if light is not None and dark is not None:
            yield DrawnFigure(text=text, light_png=light, dark_png=dark)


def draw_png(draw: Draw, results: RunResults, theme: Theme) -> bytes | None:
    """One figure in one theme; None where its data are not there."""
    with drawing(theme):
        figure = draw(results, theme)
        return None if figure is None else png_bytes(figure)


def cases(results: RunResults) -> Iterator[tuple[FigureText, Draw]]:
    """The example records, worst first, at most `CASES_PER_KIND` of each kind."""
    if results.examples is None:
        return
    kinds = [str(kind) for kind in results.examples.kind]
    known = {kind: place for place, kind in enumerate(KINDS)}
    shown: Counter[str] = Counter()
    for example in sorted(range(len(kinds)), key=lambda i: known.get(kinds[i], len(known))):
        kind = kinds[example]
        shown[kind] += 1
        if shown[kind] <= CASES_PER_KIND:
            text = case_text(results, example, number=shown[kind])
            yield text, partial(poses.case, example=example)


def case_text(results: RunResults, example: int, *, number: int) -> FigureText:
    """Name, origin and error of an example record."""
    assert results.examples is not None
    predictions = results.predictions
    kind, row = str(results.examples.kind[example]), int(results.examples.rows[example])
    error = predictions.sample_mpjpe_mm[row]
    where = (
        f"{predictions.name[row]}: {predictions.action[row]}, subject {predictions.subject[row]}, "
        f"camera {predictions.camera_name[row]}, frame {predictions.frame[row]}"
    )
    safe_kind = kind if kind in KINDS else "other"
    return FigureText(
        name=f"case_{safe_kind}_{number}",
        section=KIND_TITLES.get(kind, "Other records"),
        title=f"MPJPE {error:.1f} mm",
        caption=where,
        alternative=f"Crop with predicted and labelled skeleton and two 3-D views; {where}; "
        f"MPJPE {error:.1f} mm.",
    )
