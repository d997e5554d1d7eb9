import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_prep.readers.own_cameras import read_camera
from data_prep.readers.own_tables import Row

PLAIN = {"camera": "left", "width": 1280, "height": 720, "fx": 1000, "fy": 1010}
PLAIN |= {"cx": 630.5, "cy": 355.25}
RADIAL = {"k1": -0.21, "k2": 0.24, "k3": -0.003}


def row(**changes):
    cells = {key: value for key, value in {**PLAIN, **changes}.items() if value is not None}
    return Row(file=Path("cameras.csv"), place="line 2", cells=cells)


def rays():
    """Rays that reach all of the image."""
    axes = np.meshgrid(np.linspace(-0.6, 0.6, 21), np.linspace(-0.35, 0.35, 15))
    return np.stack([*axes, np.ones_like(axes[0])], axis=-1).reshape(-1, 3)


def opencv_px(*, p1=0.0, p2=0.0, **radial):
    """OpenCV's projection of those rays."""
    matrix = np.array([[1000, 0, 630.5], [0, 1010, 355.25], [0, 0, 1]])
    lens = np.array([radial.get("k1", 0), radial.get("k2", 0), p1, p2, radial.get("k3", 0)])
    return cv2.projectPoints(rays(), np.zeros(3), np.zeros(3), matrix, lens)[0][:, 0]


def own_px(found):
    return found.camera.camera_to_image(torch.from_numpy(rays() * 4000)).numpy()


def test_opencvs_radial_lens_is_taken_as_it_is():
    found = read_camera(row(model="opencv", **RADIAL))
    np.testing.assert_allclose(own_px(found), opencv_px(**RADIAL), atol=1e-9)
    assert found.note == ""


@pytest.mark.parametrize(("p1", "p2"), [(8e-4, -5e-4), (-1e-3, 1e-3), (0, 4e-4)])
def test_opencvs_tangential_lens_is_met_as_nearly_as_the_note_says(p1, p2):
    found = read_camera(row(model="opencv", p1=p1, p2=p2, **RADIAL))
    reached = opencv_px(p1=p1, p2=p2, **RADIAL)
    inside = ((reached >= 0) & (reached <= [1279, 719])).all(1)
    errors = np.hypot(*(own_px(found) - reached)[inside].T)
    told = float(re.search(r"at most ([\d.]+) px", found.note)[1])
    assert 0.5 * told < errors.max() < told + 0.02
    assert told < 1
    as_they_are = read_camera(row(model="human36m", p1=p1, p2=p2, **RADIAL))
    assert errors.max() < 0.6 * np.hypot(*(own_px(as_they_are) - reached)[inside].T).max()


def test_a_tangential_lens_that_cannot_be_met_is_refused():
    with pytest.raises(ValueError, match=r"cameras.csv, line 2, column p1: .*undistort"):
        read_camera(row(model="opencv", p1=0.01, p2=-0.01))


def test_human36ms_lens_is_taken_as_it_is():
    found = read_camera(row(model="human36m", p1=1e-3, p2=-2e-3, **RADIAL))
    x, y = rays()[:, :2].T
    r2 = x * x + y * y
    gain = 1 - 0.21 * r2 + 0.24 * r2**2 - 0.003 * r2**3 + 1e-3 * y - 2e-3 * x
    bent = np.stack([x * gain - 2e-3 * r2, y * gain + 1e-3 * r2], axis=1)
    np.testing.assert_allclose(own_px(found), bent * [1000, 1010] + [630.5, 355.25], atol=1e-9)


def test_a_rotation_vector_and_t_are_opencvs():
    vector, t = np.array([0.3, -1.1, 0.4]), np.array([0.2, -0.4, 1.5])
    cells = dict(zip(("rvec_x", "rvec_y", "rvec_z"), vector, strict=True))
    cells |= dict(zip(("t_x", "t_y", "t_z"), t, strict=True))
    found = read_camera(row(unit="m", **cells))
    points = np.array([[100.0, 200.0, 3000.0], [-300.0, 100.0, 2500.0]])
    joints = found.camera.world_to_camera(torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(joints, points @ cv2.Rodrigues(vector)[0].T + 1000 * t, atol=1e-9)
    assert found.has_place


def test_a_camera_of_known_size_alone_has_no_lens():
    found = read_camera(row(fx=None, fy=None, cx=None, cy=None))
    assert found.camera is None
    assert found.size_px == (1280, 720)
    assert not found.has_place


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera": ""}, "column camera: is empty"),
        ({"width": 0}, "column width: expected a size above 0"),
        ({"fy": ""}, "column fy: is empty, expected a number"),
        ({"fx": 0.8}, "column fx: is 0.8 px for images of 1280×720 px; expected pixels"),
        ({"k1": 0.1}, "column model: is empty, but the lens is distorted"),
        ({"k1": 0.1, "model": "pinhole"}, "column model: is pinhole, but k1 to p2 are not all 0"),
        ({"model": "fisheye"}, "column model: unknown value 'fisheye'; expected one of pinhole"),
        ({"k4": 0.01, "model": "opencv"}, "column k4: the store's lens has no such term"),
        ({"r11": 1}, "column r12: is empty"),
        ({"rvec_x": 0, "rvec_y": 0, "rvec_z": 0}, "column t_x: is empty, but a rotation is given"),
        ({"t_x": 0, "t_y": 0, "t_z": 0}, "column r11: is empty, but t or centre is given"),
        (
            {"t_x": 0, "t_y": 0, "t_z": 0, "rvec_x": 0, "rvec_y": 0, "rvec_z": 0},
            "column unit: is empty; expected one of mm, cm, m",
        ),
        ({"t_x": 0, "centre_x": 0}, "column t_x: is given besides centre_x"),
        ({"rvec_x": 0, "r11": 1}, "column rvec_x: is given besides r11"),
        ({"fx": None, "fy": None, "cx": None, "cy": None, "k1": 1}, "column fx: is empty, but k1"),
    ],
)
def test_a_bad_camera_is_named_by_file_line_and_column(changes, message):
    with pytest.raises(ValueError, match=rf"cameras.csv, line 2, {message}"):
        read_camera(row(**changes))


def test_a_mirrored_rotation_is_refused():
    mirror = np.diag([1.0, 1.0, -1.0])
    cells = {f"r{i + 1}{j + 1}": mirror[i, j] for i in range(3) for j in range(3)}
    cells |= {"centre_x": 0, "centre_y": 0, "centre_z": 0, "unit": "mm"}
    with pytest.raises(ValueError, match=r"cameras.csv, line 2, column r11: rotation must be"):
        read_camera(row(**cells))
