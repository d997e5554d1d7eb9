"""A dry run finds what is missing or wrong in a source, and writes nothing but its sheet."""

from dataclasses import replace
from functools import partial
from io import StringIO

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from data_prep import human36m
from data_prep.convert import ConversionConfig
from data_prep.examine import in_kinds
from data_prep.lookalike.world import WorldReader, direct_take, make_world, unit_name
from data_prep.pictures import ImageFiles
from data_prep.survey import survey
from data_prep.takes import Rejection

CONFIG = ConversionConfig(crop_size_px=64)
SWAPPED_LEGS = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]


@pytest.fixture(scope="module")
def world():
    """Two subjects before two cameras."""
    return make_world(
        subjects=(1, 9),
        actions=(5,),
        subactions=(2,),
        num_poses=6,
        camera_names=("54138969", "60457274"),
    )


def project(joints_camera_mm, camera):
    """Human3.6M's camera as its documentation writes it, in plain NumPy."""
    x, y, z = np.moveaxis(joints_camera_mm, -1, 0)
    x, y = x / z, y / z
    (k1, k2, k3), (p1, p2) = camera.radial.tolist(), camera.tangential.tolist()
    r2 = x * x + y * y
    gain = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * y + p2 * x
    distorted = np.stack([x * gain + p2 * r2, y * gain + p1 * r2], axis=-1)
    return distorted * camera.focal_px.numpy() + camera.principal_point_px.numpy()


def changed_take(world, performance, camera_name, change):
    take = direct_take(world, performance, camera_name)
    take = replace(take, source_px=project(take.joints_camera_mm, take.camera))
    return change(take)


class ChangedReader(WorldReader):
    """A world whose takes are changed as a wrong file would change them."""

    def __init__(self, world, change=lambda take: take, *, only=None):
        super().__init__(world)
        self._change, self._only = change, only

    def units(self):
        takes = [(p, camera) for p in self.world.performances for camera in self.world.camera_names]
        return [
            replace(
                unit,
                read=partial(
                    changed_take,
                    self.world,
                    *take,
                    self._change if self._only in (None, unit.name) else lambda t: t,
                ),
            )
            for unit, take in zip(super().units(), takes, strict=True)
        ]


@pytest.fixture
def look(tmp_path):
    """Surveys a source; gives problems and what was printed."""

    def run(reader, **settings):
        text = StringIO()
        console = Console(file=text, width=200)
        config = replace(CONFIG, **settings)
        problems = survey(reader, config=config, sheet=tmp_path / "sheet.png", console=console)
        return problems, text.getvalue()

    return run


def test_a_sound_source_has_no_problems_and_is_described(look, world, tmp_path):
    problems, text = look(ChangedReader(world))
    assert problems == []
    poses = [len(performance) for performance in world.performances]
    assert f"test: {2 * poses[1]} images, train: {2 * poses[0]} images" in text
    assert "S9 Greeting, take 2 (files 'Greeting'): the release's poses lie 200 mm off" in text
    assert "there is nothing of S5, S6, S7, S8, S11" in text
    assert "there is little or nothing of camera 55011271, 58860488" in text
    assert "knees bend forwards" in text
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_the_sheet_shows_the_frames_that_would_be_converted(look, world, tmp_path):
    look(ChangedReader(world))
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    num_images = 2 * sum(len(performance) for performance in world.performances)
    num_lines = -(-min(num_images, 30) // 6)
    assert sheet.shape == (28 + num_lines * 312, 6 * 292, 3)
    background = (sheet[28:] == 32).all(-1).mean()
    assert background < 0.25


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.long)])
def test_bone_lengths_are_those_of_the_bodies(look, world, jobs):
    text = look(WorldReader(world), num_jobs=jobs)[1]
    joints = [performance.joints_world_mm for performance in world.performances]
    thigh_mm = [np.linalg.norm(body[0, 1] - body[0, 2]) for body in joints]
    line = next(line for line in text.splitlines() if "R_Hip to R_Knee" in line)
    assert line.split()[-6:] == [
        *f"{thigh_mm[0]:.0f} ± 0".split(),
        *f"{thigh_mm[1]:.0f} ± 0".split(),
    ]


def test_left_first_read_as_right_first_is_found(look, world):
    def change(take):
        source = take.source_px[:, SWAPPED_LEGS]
        return replace(
            take, joints_camera_mm=take.joints_camera_mm[:, SWAPPED_LEGS], source_px=source
        )

    problems, _ = look(ChangedReader(world, change))
    assert len(problems) == 2
    assert problems[0].startswith("subject 1: left and right of the legs are swapped")


def test_metres_are_found(look, world):
    def change(take):
        camera = replace(take.camera, centre_world_mm=take.camera.centre_world_mm / 1000)
        return replace(take, joints_camera_mm=take.joints_camera_mm / 1000, camera=camera)

    problems, _ = look(ChangedReader(world, change))
    assert len(problems) == 2
    assert "subject 1: bones are 0.2" in problems[0]
    assert "expected millimetres, got metres or another unit" in problems[0]


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ("transposed", "R were camera from world, not world from camera (transpose it)"),
        ("centre for t", "t were −R·C, not the camera's centre C"),
        ("t for centre", "t were the camera's centre C, not −R·C"),
    ],
)
def test_a_camera_read_in_another_convention_is_told_from_the_one_that_was_meant(
    look, world, reading, message
):
    def change(take):
        rotation, centre = take.camera.rotation.numpy(), take.camera.centre_world_mm.numpy()
        joints_world = take.joints_camera_mm @ rotation + centre
        read = {
            "transposed": (rotation.T, centre),
            "centre for t": (rotation, -rotation @ centre),
            "t for centre": (rotation, -rotation.T @ centre),
        }[reading]
        joints = (joints_world - read[1]) @ read[0].T
        camera = replace(
            take.camera,
            rotation=torch.from_numpy(read[0].copy()),
            centre_world_mm=torch.from_numpy(read[1].copy()),
        )
        return replace(take, joints_camera_mm=joints, camera=camera, source_px=None)

    problems, _ = look(ChangedReader(world, change))
    name = unit_name(world.performances[0], "60457274")
    told = [problem for problem in problems if problem.startswith(f"{name}: only 0% of the people")]
    assert len(told) == 1, problems
    assert f"100% would if {message}" in told[0]


def test_labels_off_the_projection_are_named_with_the_lens_that_fits(look, world):
    name = unit_name(world.performances[1], "60457274")

    def change(take):
        return replace(take, camera=take.camera.without_distortion())

    problems, text = look(ChangedReader(world, change, only=name))
    (problem,) = problems
    assert problem.startswith(f"{name}: the layout's 2-D labels are")
    assert problem.endswith("off the joints' projection; --lens distorted makes them agree")
    take = direct_take(world, world.performances[1], "60457274")
    shift = project(take.joints_camera_mm, take.camera) - project(
        take.joints_camera_mm, take.camera.without_distortion()
    )
    largest = f"{np.linalg.norm(shift, axis=-1).max():.2g}"
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["60457274"][-1] == largest
    assert float(rows["54138969"][-1]) < 1e-9
    assert look(ChangedReader(world, change, only=name), lens="distorted")[0] == []


def test_missing_images_are_named_once_per_sequence(look, world, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()

    def change(take):
        names = tuple(f"{take.camera_name}_{frame:06d}.jpg" for frame in take.frame)
        for name, image in list(zip(names, take.pictures.frames(), strict=True))[2:]:
            cv2.imwrite(str(folder / name), image)
        return replace(take, pictures=ImageFiles(folder=folder, names=names))

    name = unit_name(world.performances[0], "54138969")
    problems, text = look(ChangedReader(world, change, only=name))
    assert problems == [
        f"image {folder}/54138969_000000.jpg is missing (and 1 records more like it, to "
        "54138969_000001.jpg)"
    ]
    assert "2 images, see the problems" in text


def test_a_damaged_image_that_the_sheet_needs_is_named(look, world, tmp_path):
    def change(take):
        (tmp_path / "images").mkdir(exist_ok=True)
        names = tuple(f"{take.camera_name}_{frame:06d}.jpg" for frame in take.frame)
        for name in names:
            (tmp_path / "images" / name).write_bytes(b"\xff\xd8 no image")
        return replace(take, pictures=ImageFiles(folder=tmp_path / "images", names=names))

    name = unit_name(world.performances[0], "54138969")
    problems, _ = look(ChangedReader(world, change, only=name))
    assert len(problems) == len(world.performances[0])
    assert "54138969_000000.jpg is bad: truncated JPEG" in problems[0]


def test_a_file_that_cannot_be_read_is_one_problem_and_the_rest_is_surveyed(look, world):
    def change(take):
        raise ValueError("file S1/x.cdf is cut off; fetch it again")

    name = unit_name(world.performances[0], "54138969")
    problems, text = look(ChangedReader(world, change, only=name))
    assert problems == ["file S1/x.cdf is cut off; fetch it again"]
    assert f"train: {len(world.performances[0])} images" in text


def test_rejected_and_faulty_records_are_told_and_not_counted(look, world):
    def change(take):
        joints = take.joints_camera_mm.copy()
        joints[1, 3] = np.nan
        joints[2:4, :, 2] *= -1
        rejection = Rejection(name="a.jpg", reason="has no area", split="train")
        return replace(take, joints_camera_mm=joints, rejections=(rejection,), source_px=None)

    name = unit_name(world.performances[0], "54138969")
    problems, text = look(ChangedReader(world, change, only=name))
    assert len(problems) == 3
    assert problems[0] == "a.jpg: has no area"
    assert problems[1] == f"{name}_000002: the position of R_Ankle is not finite"
    assert f"{name}_000003: a joint has depth -" in problems[2]
    assert f"(and 1 records more like it, to {name}_000004)" in problems[2]
    assert f"train: {2 * len(world.performances[0]) - 3} images" in text


def test_what_the_reader_misses_is_told_first_and_once(look, world):
    def change(take):
        raise ValueError("video a.mp4 is missing (6 frames)")

    reader = ChangedReader(world, change, only=unit_name(world.performances[0], "54138969"))
    reader.missing = ["video a.mp4 is missing"]
    problems, _ = look(reader)
    assert problems == ["video a.mp4 is missing"]


def test_bones_that_do_not_last_are_found_in_human36m(look, world):
    def change(take):
        joints = take.joints_camera_mm.copy()
        joints[:, 13] += np.linspace(0, 40, len(joints))[:, None]
        return replace(take, joints_camera_mm=joints, source_px=None)

    problems, _ = look(ChangedReader(world, change))
    assert len(problems) == 2
    assert problems[0].startswith("subject 1: L_Elbow to L_Wrist is ")
    assert "while a subject's bones have one length in Human3.6M" in problems[0]


def test_counts_of_the_whole_release_are_compared(look, world, monkeypatch):
    """A release of these two sequences only."""
    facts = {
        key: replace(fact, num_poses=len(performance))
        for key, fact in human36m.sequences().items()
        for performance in world.performances
        if key == (performance.subject, performance.action, performance.subaction)
    }
    for module in ("human36m", "selection", "inventory"):
        monkeypatch.setattr(f"data_prep.{module}.sequences", lambda: facts)
    text = look(ChangedReader(world))[1]
    poses = [len(performance) for performance in world.performances]
    assert f"train: {2 * poses[0]} images, {2 * poses[0]} fewer than the {4 * poses[0]}" in text
    assert "4 of 4 sequences of a camera have all frames, as in the release" in text


def test_one_line_stands_for_records_of_one_kind_of_wrong():
    assert in_kinds([]) == []
    assert in_kinds([("a.jpg", "image x/a.jpg is missing")]) == ["image x/a.jpg is missing"]
    items = [(f"{i}.jpg", f"image x/{i}.jpg is missing") for i in range(4)]
    items.append(("9.jpg", "box [3, 4] has no area"))
    assert in_kinds(items) == [
        "image x/0.jpg is missing (and 3 records more like it, to 3.jpg)",
        "9.jpg: box [3, 4] has no area",
    ]
    same = [(f"v.mp4#{i}", "video v.mp4 is missing") for i in range(3)]
    assert in_kinds(same) == ["video v.mp4 is missing (3 records, v.mp4#0 to v.mp4#2)"]
