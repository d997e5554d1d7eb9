"""The table and the figure of a comparison whose numbers are made up."""

import copy
import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from pose3d.report.comparison import (
    LINE_COLOURS,
    comparison_figure,
    markdown,
    mean_curve,
    write_comparison,
)
from pose3d.report.style import LIGHT, drawing, png_bytes


def metric(value, spread, by_seed):
    return {"value": value, "low": value - spread, "high": value + spread, "by_seed": by_seed}


def row(name, title, mpjpe, *, density=False):
    metrics = {
        "mpjpe_mm": metric(mpjpe, 4, {"0": mpjpe - 1, "1": mpjpe + 1}),
        "pa_mpjpe_mm": metric(0.7 * mpjpe, 3, {"0": 0.7 * mpjpe, "1": 0.7 * mpjpe}),
    }
    if density:
        metrics["mpjpe_mm_centred"] = metric(mpjpe - 2, 4, {"0": mpjpe - 3, "1": mpjpe - 1})
        metrics["nats_per_joint"] = metric(-4.25, 0.05, {"0": -4.2, "1": -4.3})
        metrics["sigma_error_spearman"] = metric(0.33, 0.02, {"0": 0.3, "1": 0.36})
        for level, share in ((50, 0.512), (80, 0.81), (90, 0.9), (95, 0.95)):
            metrics[f"coverage_{level}"] = metric(share, 0.01, {"0": share, "1": share})
    curve = {"epoch": [1, 2, 3], "mpjpe_mm": [mpjpe + 60, mpjpe + 20, mpjpe]}
    return {
        "name": name,
        "title": title,
        "seeds": [0, 1],
        "failed": {},
        "missing": [],
        "parameters": 2_750_000,
        "images_per_second": 151.4,
        "metrics": metrics,
        "difference": {"mpjpe_mm": {"value": mpjpe - 160, "low": mpjpe - 163, "high": mpjpe - 157}},
        "curves": {"0": curve, "1": curve},
    }


@pytest.fixture
def numbers():
    return {
        "reference": "l1",
        "command": "pose3d compare configs/small.yaml --store stores/s --out runs/c",
        "date": "2026-03-01T10:00:00+00:00",
        "store_digest": "abcdef0123456789",
        "records": 4080,
        "sequences": 60,
        "baseline_mean_pose_mpjpe_mm": 264.8,
        "budget": {
            "epochs": 30,
            "batch_size": 32,
            "limit_train_batches": 100,
            "input_size_px": 128,
            "allowed_to_differ": [],
        },
        "runs": {
            "device": ["A processor"],
            "machine": ["2 processors"],
            "threads": ["2"],
            "jobs": ["1"],
            "commit": ["0123456789abcdef+"],
        },
        "definitions": {
            name: name
            for name in ("nats_per_joint", "mpjpe_mm_centred", "coverage", "sigma_error_spearman")
        },
        "variants": [
            row("l1", "ℓ1", 160.0),
            row("exact", "RLE, exact", 158.3, density=True),
        ],
    }


def cells(text, start):
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_holds_the_numbers_under_their_heads(numbers):
    text = markdown(numbers)
    heads, l1, exact = (cells(text, start) for start in ("variant", "ℓ1", "RLE, exact"))
    assert len(heads) == len(l1) == len(exact)
    found = dict(zip(heads, exact, strict=True))
    assert found["MPJPE (mm)"] == "158.3 [154.3, 162.3]"
    assert found["MPJPE less ℓ1 (mm)"] == "-1.7 [-4.7, +1.3]"
    assert exact[heads.index("centred")] == "156.3 [152.3, 160.3]"
    assert found["NLL (nats per joint, uvd)"] == "-4.25 [-4.30, -4.20]"
    assert found["σ–error Spearman (within joint)"] == "0.33 [0.31, 0.35]"
    assert found["coverage 50/80/90/95 % (%)"] == "51/81/90/95"
    assert found["images/s"] == "151"
    assert found["parameters (M)"] == "2.75"
    plain = dict(zip(heads, l1, strict=True))
    assert plain["NLL (nats per joint, uvd)"] == "–"
    assert plain["coverage 50/80/90/95 % (%)"] == "–"


def test_what_is_undefined_is_a_gap_in_table_and_figure(numbers):
    exact = numbers["variants"][1]
    undefined = {"value": None, "low": None, "high": None, "by_seed": {"0": None, "1": None}}
    for name in ("sigma_error_spearman", "coverage_50", "coverage_80", "coverage_90"):
        exact["metrics"][name] = undefined
    numbers["reference"] = "exact"
    text = markdown(numbers)
    found = dict(zip(cells(text, "variant"), cells(text, "RLE, exact"), strict=True))
    assert found["σ–error Spearman (within joint)"] == "–"
    assert found["coverage 50/80/90/95 % (%)"] == "–/–/–/95"
    with drawing(LIGHT):
        panels = comparison_figure(numbers, LIGHT).axes
    assert not panels[3].lines  # Spearman
    assert len(panels[5].lines) == 1  # of coverage, the line of perfect calibration


def test_text_says_what_was_done(numbers):
    text = markdown(numbers)
    for said in (
        *("30 epochs of 100 steps", "4080 test records of 60 sequences", "last checkpoint"),
        *("Mean pose: 264.8 mm", "pose3d compare configs/small.yaml", "0123456789+", "A processor"),
        *("abcdef012345", "2026-03-01", "| RLE, exact, centred | 155.3 | 157.3 |"),
    ):
        assert said in text


def test_gaps_are_told(numbers):
    late = copy.deepcopy(numbers)
    late["variants"][1] |= {
        "seeds": [0],
        "missing": [2],
        "failed": {"1": "loss was not finite"},
        "metrics": {
            "mpjpe_mm": {"value": 150.0, "low": None, "high": None, "by_seed": {"0": 150.0}}
        },
        "difference": {},
    }
    text = markdown(late)
    assert cells(text, "RLE, exact")[1:4] == ["1 of 3", "150.0", "–"]
    assert "RLE, exact, seed 1: failed, loss was not finite" in text
    assert "RLE, exact: seed 2 not trained yet" in text


def test_without_a_reference_there_is_no_difference(numbers):
    text = markdown(numbers | {"reference": None})
    assert "less" not in cells(text, "variant")
    assert len(cells(text, "variant")) == len(cells(text, "ℓ1")) == 11


def test_figure_shows_every_variant_in_its_colour(numbers, tmp_path):
    table, png, svg = write_comparison(numbers, tmp_path)
    assert table.read_text() == markdown(numbers)
    picture = np.asarray(Image.open(png).convert("RGB")).astype(int)
    height, width, _ = picture.shape
    for colour in LINE_COLOURS[:2]:
        shown = (np.abs(picture - 255 * np.array(to_rgb(colour))) < 3).all(-1)
        assert shown[: height // 2].sum() > 100  # dots
        assert shown[height // 2 :, : width // 2].sum() > 300  # its learning curve
    corner = picture[0, 0]
    assert (corner == 255).all()
    assert "<svg" in svg.read_text()


def test_dots_stand_at_their_numbers(numbers):
    with drawing(LIGHT):
        figure = comparison_figure(numbers, LIGHT)
    first = figure.subfigs[0].axes[0]
    dots = {
        (round(float(line.get_xdata()[0]), 3), line.get_markerfacecolor())
        for line in first.lines
        if line.get_marker() == "o"
    }
    assert {x for x, _ in dots} == {160.0, 158.3, 156.3}
    assert {x for x, face in dots if face == LIGHT.surface} == {156.3}
    bars = [tuple(line.get_xdata()) for line in first.lines if line.get_marker() == "None"]
    assert (154.3, 162.3) in [tuple(np.round(bar, 6)) for bar in bars]


def test_figure_of_nothing_yet_can_be_drawn(numbers):
    empty = {"seeds": [], "missing": [0, 1], "metrics": {}, "difference": {}, "curves": {}}
    empty |= {"parameters": None, "images_per_second": None}
    numbers["variants"] = [row | empty for row in numbers["variants"]]
    with drawing(LIGHT):
        picture = Image.open(io.BytesIO(png_bytes(comparison_figure(numbers, LIGHT))))
    assert np.asarray(picture).std() > 0
    assert "0 of 2" in markdown(numbers)


def test_curve_is_the_mean_of_the_seeds_that_are_there():
    epochs, mean = mean_curve(
        {
            "0": {"epoch": [1, 2, 3], "mpjpe_mm": [300.0, 200.0, None]},
            "1": {"epoch": [1, 2], "mpjpe_mm": [200.0, 210.0]},
        }
    )
    assert epochs.tolist() == [1, 2]
    assert mean.tolist() == [250.0, 205.0]
