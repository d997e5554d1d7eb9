"""The page tells what metrics.json says, asks nobody for anything, and takes no string on trust."""

import base64
import json
import shutil
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from pose3d.evaluation.density import ResidualDensity
from pose3d.report import html, plots
from pose3d.report.html import AVERAGES, METRIC_ROWS, page, write_report
from pose3d.report.results import read_results
from pose3d.report.style import LIGHT

ADDRESSES = ("src", "srcset", "href", "action", "data", "poster")


class Page(HTMLParser):
    """Tags, addresses, marked numbers and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.images, self.numbers = [], [], [], []
        self.text, self.metric = "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [values[name] for name in ADDRESSES if name in values]
        self.images += [values] if tag == "img" else []
        self.metric = values.get("data-metric")

    def handle_data(self, data):
        self.text += data
        if self.metric:
            self.numbers.append((self.metric, data))
            self.metric = None


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    """The report of the fabricated run, written once."""
    return write_report(run, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def parsed(report):
    return Page(report.read_text(encoding="utf-8"))


def picture(address):
    """The picture in a data address."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_every_number_on_the_page_is_that_of_the_metrics(run, parsed):
    metrics = json.loads((run / "results" / "metrics.json").read_text())
    for name, shown in parsed.numbers:
        value = metrics
        for part in name.split("."):
            value = value[part]
        digits = len(shown.partition(".")[2])
        assert float(shown) == pytest.approx(value, abs=0.5000001 * 10**-digits), name


def test_the_page_shows_every_headline_number_joint_and_action(run, parsed):
    shown = {name for name, _ in parsed.numbers}
    assert {key + suffix for key, _, _ in METRIC_ROWS for suffix, _ in AVERAGES} <= shown
    assert "baseline_mean_pose_mpjpe_mm" in shown
    metrics = json.loads((run / "results" / "metrics.json").read_text())
    assert {f"per_joint.{name}.sigma_mm.z" for name in metrics["per_joint"]} <= shown
    assert {f"per_action.{name}.mpjpe_mm" for name in metrics["per_action"]} <= shown


def test_the_page_names_its_protocol_and_what_sigma_is_not(predictions, parsed):
    assert predictions.metadata["protocol"] in parsed.text
    assert "ground truth" in parsed.text
    assert "not yet a calibrated probability" in parsed.text


def test_the_page_asks_nobody_for_anything(report, parsed):
    assert parsed.addresses
    assert all(address.startswith("data:") for address in parsed.addresses)
    text = report.read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)


def test_every_picture_has_words_and_a_light_and_a_dark_form(parsed):
    assert len(parsed.images) == parsed.tags.count("source") == parsed.tags.count("figure")
    for values in parsed.images:
        assert len(values["alt"]) > 30
        light = picture(values["src"])
        assert light is not None
        assert light[0, 0].min() > 200
    dark = [a for a in parsed.addresses if a not in {v["src"] for v in parsed.images}]
    assert len(dark) == len(parsed.images)
    assert all(picture(address)[0, 0].max() < 80 for address in dark)


def test_every_picture_is_also_a_file_and_none_is_blank(report, parsed):
    files = sorted(report.parent.glob("*.png"))
    assert len(files) == len(parsed.images)
    for file in files:
        image = cv2.imread(str(file))
        assert min(image.shape[:2]) > 300, file.name
        different = (image != image[0, 0]).any(-1)
        assert different.mean() > 0.02, file.name
        assert different[:, -image.shape[1] // 3 :].any(), file.name


def test_strings_of_users_stay_strings(fabricate, tmp_path):
    nasty = '<script>alert("x")</script>&amp;'
    predictions = fabricate.predictions(num_samples=30, metadata={"protocol": nasty})
    predictions.action[:] = "<u>Go</u>"
    predictions.name[:] = nasty[:20]
    folder = fabricate.run(
        tmp_path / "<i>run & co", predictions, config=f"</pre>{nasty}", extra={"note": nasty}
    )
    results = read_results(folder)
    parsed = Page(page(results, []))
    assert not {"script", "u"} & set(parsed.tags)
    assert parsed.text.count(nasty) == 3
    assert "<u>Go</u>" in parsed.text
    assert "<i>run & co" in parsed.text


def test_a_loss_without_a_density_is_said_and_its_residuals_drawn(fabricate, tmp_path):
    predictions = fabricate.predictions(num_samples=40)
    folder = fabricate.run(
        tmp_path / "run", predictions, density=ResidualDensity.unavailable("the l1 loss <predicts>")
    )
    results = read_results(folder)
    (chart,) = [chart for chart in plots.CHARTS if chart[0].name == "residual_density"]
    png = plots.draw_png(chart[1], results, LIGHT)
    figure = plots.DrawnFigure(text=chart[0], light_png=png, dark_png=png)
    parsed = Page(page(results, [figure]))
    assert "There is no learned density to draw: the l1 loss <predicts>" in parsed.text
    assert len(parsed.images) == 1


def test_a_report_replaces_the_one_before_it(run, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    monkeypatch.setattr(html, "draw_figures", lambda results: iter(()))
    (folder / "report").mkdir()
    (folder / "report" / "case_worst_9.png").write_bytes(b"old")
    path = write_report(folder)
    assert path == folder / "report" / "report.html"
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
