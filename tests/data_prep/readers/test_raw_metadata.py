"""metadata.xml: which number and name stands where, and one line for whatever is wrong."""

import re

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from data_prep.human36m import SUBJECTS
from data_prep.human36m_cameras import subject_camera
from data_prep.lookalike.raw_metadata import metadata_xml
from data_prep.readers.metadata import read_metadata
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

# Of subject 1's camera 54138969, as published beside the data set.
ROTATION = [
    [-0.91536173, 0.40180837, 0.02574754],
    [0.05154812, 0.18037357, -0.98224649],
    [-0.39931903, -0.89778361, -0.18581953],
]
CENTRE_MM = [1841.10702775, 4955.28462345, 1563.4453959]
TRANSLATION_MM = [-346.0507814, 546.98077931, 5474.48108743]


@pytest.fixture
def write(tmp_path):
    """Writes a metadata.xml after a change of its text, and gives its path."""

    def make(change=lambda text: text, **num_frames):
        path = tmp_path / "metadata.xml"
        path.write_text(change(metadata_xml(num_frames.get("num_frames", {})).decode()))
        return path

    return make


def with_w0(numbers):
    return lambda text: re.sub(r"<w0>.*</w0>", f"<w0>[{' '.join(map(str, numbers))}]</w0>", text)


def test_the_first_camera_is_that_of_the_published_matrix(write):
    numbers = np.zeros(300)
    numbers[264:] = np.tile([1, 1, *[0] * 7], 4)  # any lens
    numbers[:3] = Rotation.from_matrix(ROTATION).as_euler("XYZ")
    numbers[3:6] = CENTRE_MM
    camera = read_metadata(write(with_w0(numbers))).camera(1, "54138969")
    np.testing.assert_allclose(camera.rotation.numpy(), ROTATION, atol=1e-8)
    np.testing.assert_allclose(camera.centre_world_mm.numpy(), CENTRE_MM)
    origin = camera.world_to_camera(torch.zeros(1, 3, dtype=torch.float64))[0]
    np.testing.assert_allclose(origin.numpy(), TRANSLATION_MM, atol=1e-4)


def test_every_number_of_w0_has_its_place(write):
    numbers = np.zeros(300)
    for camera in range(4):
        for subject in range(1, 12):
            start = 6 * (camera * 11 + subject - 1)
            numbers[start + 3 : start + 6] = [1000 * camera, subject, 7]
        lens = np.arange(9) + 10 * camera + 1
        numbers[264 + 9 * camera : 273 + 9 * camera] = lens
    metadata = read_metadata(write(with_w0(numbers)))
    for number, name in enumerate(HUMAN36M_CAMERA_NAMES):
        for subject in range(1, 12):
            camera = metadata.camera(subject, name)
            assert camera.centre_world_mm.tolist() == [1000 * number, subject, 7]
            assert camera.focal_px.tolist() == [10 * number + 1, 10 * number + 2]
            assert camera.principal_point_px.tolist() == [10 * number + 3, 10 * number + 4]
            assert camera.radial.tolist() == [10 * number + k for k in (5, 6, 7)]
            assert camera.tangential.tolist() == [10 * number + 8, 10 * number + 9]


def test_seven_subjects_cameras_stand_where_they_are_known_to(write):
    metadata = read_metadata(write())
    for subject in SUBJECTS:
        for name in HUMAN36M_CAMERA_NAMES:
            ours, known = metadata.camera(subject, name), subject_camera(subject, name)
            np.testing.assert_allclose(ours.rotation.numpy(), known.rotation.numpy(), atol=1e-9)
            for field in ("centre_world_mm", "focal_px", "principal_point_px", "radial"):
                torch.testing.assert_close(getattr(ours, field), getattr(known, field))


def test_names_of_files_are_those_of_the_mapping(write):
    metadata = read_metadata(write())
    assert metadata.file_name((1, 4, 1)) == "Eating 2"
    assert metadata.file_name((6, 4, 2)) == "Eating 2"
    assert metadata.file_name((11, 6, 1)) == "Phoning 3"
    assert metadata.file_name((5, 3, 2)) == "Discussion 3"
    assert metadata.file_name((11, 10, 2)) == "SittingDown 1"
    assert metadata.file_name((1, 12, 2)) == "TakingPhoto"
    assert metadata.file_name((8, 16, 2)) == "WalkTogether 2"
    other = write(lambda text: text.replace("Phoning 3", "Phoning 9"))
    assert read_metadata(other).file_name((11, 6, 1)) == "Phoning 9"


def test_poses_are_a_quarter_of_the_total_rounded_down(write):
    frames = {(9, 5, 2): (2899, 2899, 2899, 2898, 4 * 1447 + 3)}
    metadata = read_metadata(write(num_frames=frames))
    assert metadata.num_poses((9, 5, 2)) == 1447
    assert metadata.num_poses((1, 2, 1)) == 1383  # the release's


def test_image_sizes_are_stated_height_first(write):
    metadata = read_metadata(write())
    assert [metadata.image_size_px(1, name) for name in HUMAN36M_CAMERA_NAMES] == [
        *((1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002))
    ]
    for subject in (4, 7, 10):
        for name in HUMAN36M_CAMERA_NAMES:
            assert metadata.image_size_px(subject, name) == (1000, 1002)


def drop_row(text, action, subaction):
    rows = re.findall(r"<tr>.*?</tr>\s*", text, flags=re.DOTALL)
    start = rf"<tr>\s*<td>{action}</td>\s*<td>{subaction}</td>"
    (row,) = [row for row in rows if re.match(start, row)]
    return text.replace(row, "")


WHOLE_FILE = {
    "cut off": (lambda text: text[: len(text) // 2], "is not well-formed XML"),
    "no XML": (lambda _: "404 not found", "is not well-formed XML"),
    "empty": (lambda _: "", "is not well-formed XML"),
    "other XML": (lambda _: "<html/>", "has no <index2id>"),
    "no mapping": (lambda text: re.sub(r"mapping>", "map>", text), "has no <mapping>"),
    "no frames": (lambda text: re.sub(r"frames>", "f>", text), "has no <frames>"),
    "no w0": (lambda text: text.replace("w0>", "w1>"), "has no <w0>"),
    "short w0": (with_w0(range(1, 300)), "<w0> holds 299 numbers, expected 300"),
    "long w0": (with_w0(range(1, 302)), "<w0> holds 301 numbers, expected 300"),
    "words in w0": (with_w0(["one"] * 300), "<w0> holds something other than numbers"),
    "no focal length": (with_w0([0] * 300), "cameras of <w0>: focal_px must be > 0"),
    "three cameras": (
        lambda text: text.replace("<item>55011271</item>", ""),
        "names the cameras 54138969, 58860488, 60457274; expected 4",
    ),
    "other header": (lambda text: text.replace("<td>S5</td>", "<td>five</td>"), "row 0 of"),
    "words in frames": (lambda text: text.replace("[1385 ", "[many "), "row 1, cell 3 of <frames>"),
}


@pytest.mark.parametrize("fault", WHOLE_FILE)
def test_a_bad_file_is_refused_in_one_line(write, fault):
    change, expected = WHOLE_FILE[fault]
    path = write(change)
    with pytest.raises(ValueError, match=re.escape(expected)) as caught:
        read_metadata(path)
    message = str(caught.value)
    assert str(path) in message
    assert "code-v1.2.zip" in message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.xml cannot be read"):
        read_metadata(tmp_path / "nowhere.xml")


def test_a_missing_row_or_cell_of_the_mapping_is_named_when_it_is_needed(write):
    metadata = read_metadata(write(lambda text: drop_row(text, 4, 1)))
    with pytest.raises(ValueError, match=r"row 7 of <mapping> .* S9, action 4, subaction 1; take"):
        metadata.file_name((9, 4, 1))
    assert metadata.file_name((9, 4, 2)) == "Eating"
    metadata = read_metadata(write(lambda text: text.replace("<td>Phoning 3</td>", "<td />")))
    with pytest.raises(ValueError, match=r"row 11 of <mapping> .* S11, action 6, subaction 1;"):
        metadata.file_name((11, 6, 1))
    assert metadata.file_name((9, 6, 1)) == "Phoning 1"


def test_a_missing_row_costs_no_image_size(write):
    metadata = read_metadata(write(lambda text: drop_row(text, 4, 1)))
    assert metadata.image_size_px(7, "55011271") == (1000, 1002)
    assert metadata.image_size_px(9, "55011271") == (1000, 1000)


def test_missing_frames_and_image_sizes_are_named_when_they_are_needed(write):
    path = write(lambda text: text.replace("[1385 1385 1385 1385 5532]", "[]"))
    with pytest.raises(ValueError, match=r"<frames> .* S1, action 2, subaction 1; take"):
        read_metadata(path).num_poses((1, 2, 1))
    path = write(lambda text: text.replace("[1002 1000;1000 1000;", "[1002 1000;"))
    with pytest.raises(ValueError, match=r"states no image size .* of S9's camera 55011271"):
        read_metadata(path).image_size_px(9, "55011271")
