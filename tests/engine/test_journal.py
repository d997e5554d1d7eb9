"""The log, the terminal and the figure of predictions."""

import json
import math

import numpy as np
import pytest

from pose3d.engine.journal import Journal, figure_pixels, prediction_figure, read_log


def test_lines_after_the_step_that_is_resumed_from_are_dropped(tmp_path):
    lines = [{"event": "epoch", "step": step, "epoch": step // 2} for step in (2, 4, 6)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "log.jsonl").write_text(text + '{"event": "epo')  # cut off by a crash
    with Journal(tmp_path, num_steps=8, step=4, epoch=2, is_shown=False) as journal:
        journal.record("epoch", {"step": 6, "epoch": 3, "loss": math.nan})
    last = {"event": "epoch", "step": 6, "epoch": 3, "loss": None}
    assert read_log(tmp_path) == [*lines[:2], last]


@pytest.mark.parametrize("event", ["epoch", "bounded_records"])
def test_a_line_that_closes_an_epoch_waits_for_its_checkpoint(tmp_path, event):
    """The run died after it had written the line of its second epoch, before the checkpoint."""
    lines = [{"event": event, "step": 2 * epoch, "epoch": epoch} for epoch in (1, 2)]
    lines.append({"event": "skipped_step", "step": 4, "epoch": 2})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Journal(tmp_path, num_steps=8, step=4, epoch=1, is_shown=False):
        pass
    assert read_log(tmp_path, event=event) == lines[:1]
    assert read_log(tmp_path, event="skipped_step") == lines[2:]


def test_events_are_told_apart(tmp_path):
    with Journal(tmp_path, num_steps=8, step=0, epoch=0, is_shown=False) as journal:
        journal.record("epoch", {"step": 1})
        journal.record("skipped_step", {"step": 2})
    assert [line["step"] for line in read_log(tmp_path, event="skipped_step")] == [2]


def test_away_from_a_terminal_there_are_lines_and_no_bar(tmp_path, capsys):
    with Journal(tmp_path, num_steps=8, step=0, epoch=0) as journal:
        journal.advance(step=1, epoch=1, images_per_second=5.0, loss=1.0)
        journal.say("epoch 1: [loss] 3")
    assert capsys.readouterr().out == "epoch 1: [loss] 3\n"


def test_curves_and_figures_reach_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    figure = prediction_figure(
        np.zeros((1, 8, 8, 3), np.uint8),
        np.ones((1, 2, 2)),
        np.ones((1, 2, 2)),
        bones=[(0, 1)],
        titles=["a"],
    )
    with Journal(tmp_path, num_steps=8, step=0, epoch=0, is_shown=False) as journal:
        journal.scalars({"loss/total": 2.5}, step=3)
        journal.figure(figure, name="predictions", step=3)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (point,) = events.Scalars("loss/total")
    assert (point.step, point.value) == (3, 2.5)
    assert len(events.Images("predictions")) == 1


def test_the_figure_draws_label_and_prediction_where_they_are():
    predicted = np.array([[[2.0, 3.0], [20.0, 3.0]]])
    target = np.array([[[2.0, 9.0], [20.0, 9.0]]])
    figure = prediction_figure(
        np.zeros((1, 24, 24, 3), np.uint8), predicted, target, bones=[(0, 1)], titles=["one"]
    )
    (axes,) = figure.axes
    label, prediction = axes.lines
    assert np.array_equal(label.get_xydata(), target[0])
    assert np.array_equal(prediction.get_xydata(), predicted[0])
    assert label.get_color() == "white"
    assert axes.yaxis_inverted()
    pixels = figure_pixels(figure)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
