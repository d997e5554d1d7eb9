"""What training says while it runs: terminal, log.jsonl and TensorBoard."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard import SummaryWriter

AT_EPOCHS_END = ("epoch", "bounded_records")
"""Events of log.jsonl that close an epoch; their lines hold its number."""


class Journal:
    """Writes the run's log.jsonl and tensorboard/, and shows progress on the terminal.

    On a terminal there is a progress bar over all steps with images/s and time left; elsewhere one
    line per epoch.

    Args:
        run: Folder of the run.
        num_steps: Steps of the whole training.
        step: Steps taken so far; what the log holds beyond them is dropped, since a resumed run
            takes these steps again.
        epoch: Whole epochs done, likewise.
        is_shown: False keeps the terminal silent.
    """

    def __init__(
        self, run: Path, *, num_steps: int, step: int, epoch: int, is_shown: bool = True
    ) -> None:
        self._log = run / "log.jsonl"
        _drop_later_lines(self._log, step=step, epoch=epoch)
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        self.console = Console(quiet=not is_shown, soft_wrap=True, highlight=False)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:.0f} images/s, loss {task.fields[loss]:.2f}, left"),
            TimeRemainingColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task(
            "train", total=num_steps, completed=step, epoch=epoch, speed=0.0, loss=math.nan
        )

    def __enter__(self) -> "Journal":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._writer.close()

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self.console.print(text, markup=False)

    def advance(self, *, step: int, epoch: int, images_per_second: float, loss: float) -> None:
        """Move the progress bar to ``step`` steps taken."""
        self._bar.update(
            self._task, completed=step, epoch=epoch, speed=images_per_second, loss=loss
        )

    def scalars(self, values: Mapping[str, float | int], *, step: int) -> None:
        """Add points to the TensorBoard curves named by the keys."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def figure(self, figure: Figure, *, name: str, step: int) -> None:
        """Add a figure to TensorBoard."""
        pixels = figure_pixels(figure)
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def record(self, event: str, values: Mapping[str, Any]) -> None:
        """Append a line to log.jsonl; ``values`` must hold the ``step``. NaN becomes null."""
        plain = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **plain}) + "\n")

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._writer.flush()


def read_log(run: str | Path, *, event: str = "epoch") -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl that tell of ``event``, oldest first."""
    text = (Path(run) / "log.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line["event"] == event]


def prediction_figure(
    crops: UInt8[np.ndarray, "samples height width 3"],
    predicted_crop_px: Float[np.ndarray, "samples joints 2"],
    target_crop_px: Float[np.ndarray, "samples joints 2"],
    *,
    bones: Sequence[tuple[int, int]],
    titles: list[str],
) -> Figure:
    """Draw the labelled (white) and the predicted skeleton (orange) on the crops.

    Args:
        crops: RGB images.
        predicted_crop_px: Joints in crop pixels.
        target_crop_px: Labels in crop pixels.
        bones: Pairs of joints that are joined by a line.
        titles: One per crop.
    """
    columns = min(4, len(crops))
    rows = -(-len(crops) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.8 * rows), layout="constrained")
    for place, (crop, predicted, target, title) in enumerate(
        zip(crops, predicted_crop_px, target_crop_px, titles, strict=True), start=1
    ):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(crop)
        for joints, colour in ((target, "white"), (predicted, "tab:orange")):
            for parent, child in bones:
                axes.plot(*joints[[parent, child]].T, color=colour, linewidth=1.3)
        axes.set(xlim=(-0.5, crop.shape[1] - 0.5), ylim=(crop.shape[0] - 0.5, -0.5))
        axes.set_title(title, fontsize=7)
        axes.axis("off")
    return figure


def figure_pixels(figure: Figure) -> UInt8[np.ndarray, "height width 3"]:
    """Render a figure without a window system."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _drop_later_lines(log: Path, *, step: int, epoch: int) -> None:
    """Keep whole lines of steps taken; of what closes an epoch, those of epochs done.

    A run that dies between these lines and the checkpoint closes the epoch of its last step again.
    """
    if not log.exists():
        return
    kept = []
    for text in log.read_text(encoding="utf-8").splitlines(keepends=True):
        line = json.loads(text) if text.endswith("\n") else {"step": math.inf}
        if line["step"] <= step and (line["event"] not in AT_EPOCHS_END or line["epoch"] <= epoch):
            kept.append(text)
    temporary = log.with_name(".log.jsonl.tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(log)
