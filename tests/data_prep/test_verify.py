"""Verification finds what is wrong with a store and draws labels where they are."""

import cv2
import numpy as np
import pytest

from data_prep.convert import ConversionConfig, convert
from data_prep.lookalike.world import WorldReader, make_world
from data_prep.sheet import (
    LEFT_BGR,
    MISSING_GREY,
    RIGHT_BGR,
    SHEET_MARGIN,
    cell_of_row,
    draw_cell,
    overlay_sheet,
    spread_rows,
    write_sheet,
)
from data_prep.verify import check_records, compare_with_release
from pose3d.data.store import ShardWriter, StoreRecord, finalise_store, open_store

SIZE = 160
LEGS = ("Hip", "Knee", "Ankle")
ARMS = ("Shoulder", "Elbow", "Wrist")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A store of two subjects before two cameras."""
    world = make_world(
        subjects=(1, 9),
        actions=(14,),
        subactions=(1,),
        num_poses=8,
        camera_names=("54138969", "60457274"),
    )
    folder = tmp_path_factory.mktemp("verify") / "store"
    convert(WorldReader(world), folder, config=ConversionConfig(crop_size_px=SIZE))
    return folder


@pytest.fixture
def store(path):
    """The store, whose labels a test may change in memory."""
    return open_store(path)


def test_a_sound_store_has_no_problems(store):
    assert check_records(store) == []


def forearm(length_mm):
    """Gives the left forearm another length."""

    def change(records, row):
        body = records.joints_camera_mm[row]
        body[13] = body[12] + [length_mm, 0, 0]

    return change


def set_value(name, value):
    def change(records, row):
        getattr(records, name)[row] = value

    return change


def move_map(matrix):
    def change(records, row):
        records.store_from_image[row] = np.array(matrix) @ records.store_from_image[row]

    return change


def metres(records, row):
    records.joints_camera_mm[row] /= 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (forearm(900), "L_Elbow to L_Wrist is 900 mm long$"),
        (forearm(12), "L_Elbow to L_Wrist is only 12 mm long; joints must be in millimetres"),
        (forearm(600), r"L_Elbow to L_Wrist is 600 mm long, the subject's median is 2\d\d mm"),
        (metres, r"Pelvis to R_Hip is only 0.1\d* mm long \(and 15 bones more\); .* millimetres"),
        (set_value("weight", 0), "no joint has a weight above 0"),
        (set_value("weight", np.nan), "a label is not finite"),
        (
            move_map([[1, 0, 0.3], [0, 1, 0], [0, 0, 1]]),
            r"a corner of the crop is off by 0.30 px of where box and margin put it",
        ),
        (
            move_map([[0, 1, 0], [-1, 0, SIZE - 1], [0, 0, 1]]),
            r"a corner of the crop is off by 160.00 px",
        ),
        (move_map([[1, 0, 900], [0, 1, 0], [0, 0, 1]]), "only 0% of the joints fall into the crop"),
        (set_value("box_image_px", (500, 500, 10)), r"crop shows \d+ px, expected 18 px"),
        (set_value("box_image_px", (500, 500, -3)), r"box of side -3 px has no area"),
        (set_value("frame", 3), "occurs 2 times"),
    ],
)
def test_a_wrong_record_is_named(store, change, message):
    change(store.records, 2)
    problems = check_records(store)
    assert len(problems) == 1, problems
    assert store.record_name(2) in problems[0]
    with pytest.raises(ValueError, match=message):
        raise ValueError(problems[0])


def test_labels_broken_after_writing_are_found(store):
    store.records.joints_camera_mm[1, 3, 2] *= -1
    store.records.joints_camera_mm[5, 7, 0] = np.nan
    problems = check_records(store)
    assert len(problems) == 2
    assert f"{store.record_name(1)}: depth -" in problems[0]
    assert problems[1] == f"{store.record_name(5)}: a label is not finite"


def test_a_lens_that_folds_over_is_found(store):
    """Where image radius falls again as rays diverge, a pixel leads back to another ray."""
    store.cameras.radial[:, 0] = -40.0
    told = [problem for problem in check_records(store) if "lifting back misses" in problem]
    assert len(told) == len(store)
    assert told[0].startswith(store.record_name(0))


def test_unlike_sides_of_a_subject_are_found(store):
    joints = store.records.joints_camera_mm
    joints[:, 6] += 0.4 * (joints[:, 6] - joints[:, 5])  # every left shank, by 40 %
    problems = check_records(store)
    assert len(problems) == 2
    assert problems[0].startswith("subject 1: R_Knee to R_Ankle is 454 mm long, L_Knee to L_Ankle")
    assert "6 mm (medians)" in problems[0]


def swap(store, limbs):
    """Exchange left and right of these joints in every record."""
    joints, index = store.records.joints_camera_mm, store.skeleton.index
    for limb in limbs:
        pair = [index(f"L_{limb}"), index(f"R_{limb}")]
        joints[:, pair] = joints[:, pair[::-1]]


@pytest.mark.parametrize(
    ("limbs", "message"),
    [
        (LEGS, r"left and right of the legs are swapped: hips and shoulders run against each"),
        (ARMS, r"left and right of the arms are swapped"),
        (LEGS + ARMS, r"left and right are swapped, .* knees bend backwards in 100% of the frames"),
    ],
)
def test_a_left_first_order_read_as_right_first_is_found(store, limbs, message):
    swap(store, limbs)
    problems = check_records(store)
    assert [problem.partition(":")[0] for problem in problems] == ["subject 1", "subject 9"]
    for problem in problems:
        with pytest.raises(ValueError, match=message):
            raise ValueError(problem)


def test_joints_without_depth_have_no_bones(store):
    """Depths of 2-D labels mean nothing: neither lengths nor sides are to be told from them."""
    swap(store, LEGS)
    rng = np.random.default_rng(0)
    joints = store.records.joints_camera_mm
    joints *= rng.uniform(0.3, 3, (*joints.shape[:2], 1)).astype(np.float32)  # along their rays
    assert len(check_records(store)) > 20
    store.records.weight[..., 2] = 0
    assert check_records(store) == []


def test_a_camera_read_the_wrong_way_round_is_told(store):
    records = store.records
    for row in range(len(store)):
        camera = store.cameras[int(records.camera_index[row])]
        rotation, centre = camera.rotation.numpy(), camera.centre_world_mm.numpy()
        world = records.joints_camera_mm[row] @ rotation + centre
        records.joints_camera_mm[row] = (world - centre) @ rotation
    store.cameras = type(camera)(
        **{
            name: getattr(store.cameras, name)
            for name in ("centre_world_mm", "focal_px", "principal_point_px", "radial")
        },
        tangential=store.cameras.tangential,
        rotation=store.cameras.rotation.transpose(-1, -2),
    )
    told = [problem for problem in check_records(store) if problem.startswith("camera")]
    assert len(told) == 1  # by chance people stay in view of 54138969
    assert told[0].startswith("camera 60457274: only 0% of the people stand before the camera")
    assert "100% would if R were camera from world" in told[0]


def damage(folder, image):
    """Cut the end off one JPEG within the shard that has it."""
    for path in folder.glob("shard-*.h5"):
        content = bytearray(path.read_bytes())
        start = content.find(image)
        if start >= 0:
            content[start + len(image) - 40 : start + len(image)] = bytes(40)
            path.write_bytes(content)


def test_a_crop_that_does_not_decode_is_named_by_any_number_of_threads(store, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for source in store.path.iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    for row in (3, 25):
        damage(folder, store.image_bytes(row))
    damaged = open_store(folder)
    problems = check_records(damaged)
    assert len(problems) == 2
    for row, problem in zip((3, 25), problems, strict=True):
        assert store.record_name(row) in problem
        assert "truncated JPEG" in problem
    assert check_records(damaged, num_jobs=3) == problems
    assert check_records(damaged, decode=False) == []


def test_a_part_of_human36m_is_called_one_and_is_no_problem(store):
    found = compare_with_release(store)
    assert found.odd == ()
    assert "there is nothing of S5, S6, S7, S8, S11" in found.notes
    assert "there is little or nothing of camera 55011271, 58860488" in found.notes
    assert any("S1 Walking, take 1 (files 'Walking 1'): has 8 frames, 3468 fewer" in note
               for note in found.notes)  # fmt: skip


def test_joints_are_drawn_where_they_project_in_the_colour_of_their_side(store, seen_px):
    cell_px, names = 400, ("R_Ankle", "L_Ankle")
    num_drawn = 0
    colours = {"R_Ankle": RIGHT_BGR, "L_Ankle": LEFT_BGR}
    for row in range(len(store)):
        records = store.records
        camera = store.cameras[int(records.camera_index[row])]
        image_px = seen_px(records.joints_camera_mm[row], camera)
        crop_px = records.store_from_image[row] @ np.c_[image_px, np.ones(17)].T
        shown_px = SIZE * SHEET_MARGIN / store.header.margin  # the middle of the crop
        drawn = (crop_px[:2].T - (SIZE - 1) / 2) * cell_px / shown_px + (cell_px - 1) / 2
        cell = draw_cell(cell_of_row(store, row), header=store.header, cell_px=cell_px)[2:, 2:]
        feet = [drawn[store.skeleton.index(name)] for name in names]
        if np.linalg.norm(feet[0] - feet[1]) < 12:
            continue  # one is drawn over the other
        for name, foot in zip(names, feet, strict=True):
            x, y = foot.round().astype(int)
            np.testing.assert_allclose(cell[y, x].astype(int), colours[name], atol=12)
        num_drawn += 1
    assert num_drawn > len(store) / 2


def test_the_sheet_has_a_cell_for_each_record_even_for_a_bad_one(store, tmp_path):
    store.records.joints_camera_mm[0] = np.nan
    store.records.joints_camera_mm[1] = [0.0, 0, 4000]
    count = len(store)
    sheet = overlay_sheet(store, rows=2, columns=count // 2 + 1, cell_px=80)
    assert sheet.shape == (28 + 2 * 104, (count // 2 + 1) * 84, 3)
    write_sheet(sheet, tmp_path / "folder" / "sheet.png")
    read = cv2.imread(str(tmp_path / "folder" / "sheet.png"))
    np.testing.assert_array_equal(read, sheet[..., ::-1])
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write the sheet .*file/sheet\.png"):
        write_sheet(sheet, tmp_path / "file" / "sheet.png")


def test_a_crop_that_is_bad_is_grey(store):
    cell = cell_of_row(store, 0)
    blank = type(cell)(
        name="ä", crop=None, crop_px=np.full((17, 2), np.nan), weighted=np.zeros(17, bool)
    )
    drawn = draw_cell(blank, header=store.header, cell_px=80)
    assert drawn.shape == (104, 84, 3)
    assert (drawn[30:50, 30:50] == MISSING_GREY).all()


def test_the_sheet_shows_every_split(store):
    assert set(store.records.split[spread_rows(store, count=3)]) == {"train", "test"}
    assert sorted(spread_rows(store, count=99)) == list(range(len(store)))


def test_one_shard_can_be_looked_at(store):
    shard = open_store(store.path / "shard-test-s_09_act_14_subact_01_ca_01.h5")
    assert check_records(shard) == []
    assert compare_with_release(shard).notes == ()


def test_a_store_written_by_hand_passes(store, tmp_path):
    """The documented steps: one writer per shard, then the manifest."""
    records, folder = store.records, tmp_path / "mine"
    folder.mkdir()
    with ShardWriter(folder / "shard-0.h5", header=store.header) as writer:
        writer.add(
            StoreRecord(
                image_jpeg=store.image_bytes(0),
                joints_camera_mm=records.joints_camera_mm[0],
                weight=records.weight[0],
                visibility=records.visibility[0],
                camera=store.cameras[int(records.camera_index[0])],
                camera_name="mine",
                store_from_image=records.store_from_image[0],
                box_image_px=records.box_image_px[0],
                subject=1,
                action="Hand stand",
                subaction=1,
                frame=0,
                split="train",
                source_file="a.jpg",
                image_size_px=(1000, 1002),
            )
        )
    finalise_store(folder, store.header)
    assert check_records(open_store(folder)) == []
    assert compare_with_release(open_store(folder)).notes == ()
