"""Verification finds what is wrong with a store and draws labels where they are."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data_prep import crops
from data_prep.rle_json import RleJsonConfig, convert_rle_json
from data_prep.verify import (
    LEFT_BGR,
    RIGHT_BGR,
    SHEET_MARGIN,
    check_records,
    draw_record,
    overlay_sheet,
    spread_rows,
    write_sheet,
)
from pose3d.data.store import ShardWriter, finalise_store, open_store

CONFIG = RleJsonConfig(crop_size_px=160)


def convert(lookalike, monkeypatch=None, **changes):
    """A store of which record 2 is changed on its way in, as a wrong converter would.

    A change is a value, or a function of the sound record.
    """
    if changes:
        make_record = crops.make_record

        def wrong(person, header):
            record = make_record(person, header)
            if person.frame != 2:
                return record
            values = {k: v(record) if callable(v) else v for k, v in changes.items()}
            return replace(record, **values)

        monkeypatch.setattr(crops, "make_record", wrong)
    path = lookalike.folder.parent / "store"
    convert_rle_json(lookalike.folder, path, config=CONFIG)
    return open_store(path)


def test_a_sound_store_has_no_problems(lookalike):
    assert check_records(convert(lookalike)) == []


def arm_of(length_mm):
    """A sound body, but for the left forearm's length."""

    def joints(record):
        body = record.joints_camera_mm.copy()
        body[13] = body[12] + [length_mm, 0, 0]
        return body

    return joints


def shifted_map(record):
    return np.array([[1, 0, 0.3], [0, 1, 0], [0, 0, 1]]) @ record.store_from_image


def turned_map(record):
    return np.array([[0, 1, 0], [-1, 0, 159], [0, 0, 1.0]]) @ record.store_from_image


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joints_camera_mm": arm_of(900)}, "L_Elbow to L_Wrist is 900 mm long$"),
        ({"joints_camera_mm": arm_of(12)}, "L_Elbow to L_Wrist is only 12 mm long; joints must"),
        (
            {"joints_camera_mm": arm_of(600)},
            r"L_Elbow to L_Wrist is 600 mm long, the subject's median is 2\d\d mm",
        ),
        (
            {"joints_camera_mm": lambda record: record.joints_camera_mm / 1000},
            r"Pelvis to R_Hip is only 0.1\d* mm long \(and 15 bones more\); .* in millimetres",
        ),
        ({"weight": np.zeros((17, 3))}, "no joint has a weight above 0"),
        ({"store_from_image": shifted_map}, r"a corner of the crop is off by 0.30 px"),
        ({"store_from_image": turned_map}, r"a corner of the crop is off by 160.00 px"),
        ({"store_from_image": np.array([[1, 0, 900], [0, 1, 0], [0, 0, 1.0]])}, "only 0% of the"),
        ({"box_image_px": np.array([200.0, 150, 10])}, r"crop shows \d+ px, expected 18 px"),
        ({"frame": 4}, "occurs 2 times"),
        (
            {"image_jpeg": cv2.imencode(".jpg", np.zeros((9, 9)))[1].tobytes()},
            r"crop of record 4 .*is bad: decodes to \(9, 9, 3\)",
        ),
    ],
)
def test_a_wrong_record_is_named(lookalike, monkeypatch, changes, message):
    store = convert(lookalike, monkeypatch, **changes)
    problems = check_records(store)
    assert len(problems) == 1, problems
    (row,) = np.flatnonzero(store.records.frame == changes.get("frame", 2))[:1]
    assert store.record_name(row) in problems[0]
    with pytest.raises(ValueError, match=message):
        raise ValueError(problems[0])


def test_unlike_sides_of_a_subject_are_found(lookalike):
    store = convert(lookalike)
    joints = store.records.joints_camera_mm
    joints[:, 6] += 0.4 * (joints[:, 6] - joints[:, 5])  # every left shank, by 40 %
    (problem,) = check_records(store)
    assert problem.startswith("subject 5: R_Knee to R_Ankle is 4")
    assert "L_Knee to L_Ankle 5" in problem


def test_labels_broken_after_writing_are_found(lookalike):
    store = convert(lookalike)
    store.records.joints_camera_mm[1, 3, 2] *= -1
    store.records.joints_camera_mm[5, 7, 0] = np.nan
    problems = check_records(store)
    assert len(problems) == 2
    assert f"{store.record_name(1)}: depth" in problems[0]
    assert problems[1] == f"{store.record_name(5)}: a label is not finite"


def test_joints_are_drawn_where_they_project_in_the_colour_of_their_side(lookalike):
    store, cell_px = convert(lookalike), 400
    for index in range(len(store)):
        image_px = lookalike.image_px[store.source_file(index)]
        crop_px = store.records.store_from_image[index] @ np.c_[image_px, np.ones(17)].T
        shown_px = 160 * SHEET_MARGIN / CONFIG.margin  # the middle of the crop fills the cell
        drawn = (crop_px[:2].T - (160 - 1) / 2) * cell_px / shown_px + (cell_px - 1) / 2
        cell = draw_record(store, index, cell_px=cell_px)[2:]  # below the frame
        for joint, colour in ((3, RIGHT_BGR), (6, LEFT_BGR), (16, RIGHT_BGR), (13, LEFT_BGR)):
            x, y = drawn[joint].round().astype(int)
            np.testing.assert_allclose(cell[y, x + 2].astype(int), colour, atol=12)


def test_the_sheet_has_a_cell_for_each_record_even_for_a_bad_one(lookalike, monkeypatch, tmp_path):
    joints = np.tile([0.0, 0, 4000], (17, 1))
    empty = b"\xff\xd8\xff\xda\x00\x02\xff\xd9"
    store = convert(lookalike, monkeypatch, image_jpeg=empty, joints_camera_mm=joints)
    store.records.joints_camera_mm[1] = np.nan
    sheet = overlay_sheet(store, rows=2, columns=5, cell_px=80)
    assert sheet.shape == (28 + 2 * 104, 5 * 84, 3)
    write_sheet(store, tmp_path / "folder" / "sheet.png", rows=2, columns=5, cell_px=80)
    np.testing.assert_array_equal(
        cv2.imread(str(tmp_path / "folder" / "sheet.png")), sheet[..., ::-1]
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write the sheet .*file/sheet\.png"):
        write_sheet(store, tmp_path / "file" / "sheet.png", rows=1, columns=1, cell_px=80)


def test_the_sheet_shows_every_split(lookalike):
    store = convert(lookalike)
    assert set(store.records.split[spread_rows(store, count=3)]) == {"train", "test"}
    assert sorted(spread_rows(store, count=99)) == list(range(8))


def test_one_shard_can_be_looked_at(lookalike, tmp_path):
    store = convert(lookalike)
    assert check_records(open_store(store.path / "shard-test-00000.h5")) == []


def test_a_store_written_by_hand_passes(tmp_path, lookalike):
    """The documented steps: one writer per shard, then the manifest."""
    source = convert(lookalike)
    records, store = source.records, tmp_path / "mine"
    store.mkdir()
    with ShardWriter(store / "shard-0.h5", header=source.header) as writer:
        writer.add(
            crops.StoreRecord(
                image_jpeg=source.image_bytes(0),
                joints_camera_mm=records.joints_camera_mm[0],
                weight=records.weight[0],
                visibility=records.visibility[0],
                camera=source.cameras[int(records.camera_index[0])],
                camera_name="mine",
                store_from_image=records.store_from_image[0],
                box_image_px=records.box_image_px[0],
                subject=1,
                action="Hand stand",
                subaction=1,
                frame=0,
                split="train",
                source_file="a.jpg",
                image_size_px=(400, 300),
            )
        )
    finalise_store(store, source.header)
    assert check_records(open_store(store)) == []
