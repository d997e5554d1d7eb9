"""The labels of H36M-Toolbox."""

import copy
import pickle

import numpy as np
import pytest

from data_prep.convert import convert
from data_prep.lookalike.h36m_toolbox import write_h36m_toolbox
from data_prep.lookalike.world import make_world
from data_prep.readers.h36m_toolbox import H36mToolboxReader
from data_prep.readers.views import renumbered_step

LABELS = "annot/h36m_train.pkl"


@pytest.fixture(scope="module")
def write_tree():
    """Writes a world in this layout."""
    return write_h36m_toolbox


def rewrite(folder, change):
    """Change the list of records."""
    records = copy.deepcopy(pickle.loads((folder / LABELS).read_bytes()))
    (folder / LABELS).write_bytes(pickle.dumps(change(records)))


def test_the_tree_gives_the_direct_store(whole_tree, direct, store_of, assert_same_store):
    reader = H36mToolboxReader(whole_tree)
    assert reader.default_protocol == "rle-2"
    assert not any("thinned" in note for note in reader.notes)
    assert_same_store(store_of(reader), direct)


def test_files_state_the_splits(whole_tree):
    splits = {(unit.split, unit.subject) for unit in H36mToolboxReader(whole_tree).units()}
    assert splits == {("train", 1), ("train", 7), ("test", 9)}


def test_boxes_are_two_metres_at_the_depth_of_the_root(whole_tree):
    take = H36mToolboxReader(whole_tree).units()[0].load()
    root = take.joints_camera_mm[:, 0]
    size_px = 2000 * take.camera.focal_px.numpy() / root[:, 2:]
    np.testing.assert_allclose(take.box_xywh_px[:, 2:], size_px, rtol=1e-5)
    x, y, z = np.add(root, [0, 100, 0]).T
    middle = np.stack([x / z, y / z], 1) * take.camera.focal_px.numpy()
    middle += take.camera.principal_point_px.numpy()
    np.testing.assert_allclose(take.box_xywh_px[:, :2] + size_px / 2, middle, atol=1e-3)


def test_own_labels_lie_where_the_joints_are_projected(whole_tree, seen_px):
    for unit in H36mToolboxReader(whole_tree).units():
        take = unit.load()
        image_px = seen_px(take.joints_camera_mm, take.camera)
        np.testing.assert_allclose(take.source_px, image_px, atol=1e-3)


def test_poses_are_the_subjects_own_not_the_universal_ones(tree):
    records = pickle.loads((tree / LABELS).read_bytes())
    take = H36mToolboxReader(tree).units()[0].load()
    assert np.abs(take.joints_camera_mm[0] - records[0]["joints_3d"]).max() > 10
    rewrite(tree, lambda records: [{**r, "joints_3d": r["joints_3d"] * 2} for r in records])
    again = H36mToolboxReader(tree).units()[0].load()
    np.testing.assert_array_equal(again.joints_camera_mm, take.joints_camera_mm)


def test_the_order_of_records_does_not_matter(tree):
    expected = [unit.load() for unit in H36mToolboxReader(tree).units()]
    rewrite(tree, lambda records: records[::-1])
    for unit, take in zip(H36mToolboxReader(tree).units(), expected, strict=True):
        np.testing.assert_array_equal(unit.load().joints_camera_mm, take.joints_camera_mm)
        np.testing.assert_array_equal(unit.load().frame, take.frame)


def test_the_unusable_view_is_left_out_with_a_note(tmp_path):
    world = make_world(
        subjects=(11,), actions=(2,), subactions=(2,), num_poses=1, camera_names=("55011271",)
    )
    write_h36m_toolbox(world, tmp_path)
    path = tmp_path / "annot/h36m_validation.pkl"
    (record,) = pickle.loads(path.read_bytes())
    name = "s_11_act_02_subact_02_ca_01"
    other = {**record, "camera_id": 0, "image": f"{name}/{name}_000001.jpg"}
    other["camera"] = _camera_of(11, "54138969", record["camera"])
    path.write_bytes(pickle.dumps([record, other]))
    reader = H36mToolboxReader(tmp_path)
    assert [unit.camera_name for unit in reader.units()] == ["55011271"]
    assert any("Directions.54138969" in note for note in reader.notes)


def _camera_of(subject, name, entry):
    camera = make_world(subjects=(subject,), num_poses=1).camera(subject, name)
    return {
        **entry,
        "R": camera.rotation.numpy(),
        "T": camera.centre_world_mm.numpy()[:, None],
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda c: {"T": -c["R"] @ c["T"]},
        lambda c: {"T": c["T"] / 1000},
        lambda c: {"R": c["R"].T},
    ],
    ids=["minus RC", "metres", "world from camera"],
)
def test_other_conventions_of_cameras_are_recognised(tree, change):
    expected = H36mToolboxReader(tree).units()[0].load().camera
    rewrite(
        tree, lambda records: [{**r, "camera": r["camera"] | change(r["camera"])} for r in records]
    )
    found = H36mToolboxReader(tree).units()[0].load().camera
    np.testing.assert_allclose(found.rotation, expected.rotation, atol=1e-12)
    np.testing.assert_allclose(found.centre_world_mm, expected.centre_world_mm, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "num_poses", "step"),
    [(277, 1383, 5), (276, 1383, 5), (692, 1383, 2), (1383, 1383, None), (900, 1383, None)],
)
def test_images_numbered_after_thinning_are_suspected(count, num_poses, step):
    assert renumbered_step(np.arange(count), num_poses) == step
    assert renumbered_step(5 * np.arange(count), num_poses) is None


def test_suspicious_sequences_are_named(tree):
    def fifth(records):
        (record, *_) = records
        stem = record["image"][:-10]
        return [
            {**record, "image_id": number, "image": f"{stem}{number:06d}.jpg"}
            for number in range(1, 231)  # a fifth of the 1149 poses of S1 Greeting
        ]

    rewrite(tree, fifth)
    (note,) = [note for note in H36mToolboxReader(tree).notes if "thinned" in note]
    assert "s_01_act_05_subact_02_ca_01: 230 images" in note


def test_labels_are_unpickled_with_care(tree, attack):
    (tree / LABELS).write_bytes(pickle.dumps([attack]))
    with pytest.raises(ValueError, match=r"h36m_train\.pkl"):
        H36mToolboxReader(tree)


def _with(row, **values):
    return lambda records: [
        {**record, **values} if number == row else record for number, record in enumerate(records)
    ]


def _without(key):
    return lambda records: [{k: v for k, v in r.items() if k != key} for r in records]


def _with_camera(**values):
    return lambda records: [{**r, "camera": r["camera"] | values} for r in records]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda records: {}, "expected a list"),
        (lambda records: [], "expected a list"),
        (lambda records: [1, 2], "record 0"),
        (_without("joints_3d_camera"), "record 0 has no joints_3d_camera"),
        (_with(1, joints_3d_camera=np.zeros((16, 3))), r"record 1: .*\(16, 3\)"),
        (_with(1, image_id=0), "do not belong together"),
        (_with(1, image_id=9), "do not belong together"),
        (lambda records: [*records, records[0]], "twice"),
        (_with(2, subject=2), "S2"),
        (_with(2, action=1), "action_idx 1"),
        (_with(2, subaction=3), "subaction 3"),
        (_with(2, camera_id=4), "camera_id is 4"),
        (_with(0, action=6), "belongs to a record of s_01_act_06"),
        (_with_camera(R=np.eye(3)), "neither R nor its transpose"),
        (_with_camera(T=np.zeros(3)), "mm from where"),
        (_with_camera(k=np.zeros(2)), "k is missing or not of shape"),
        (_without("camera"), "R is missing or not of shape"),
    ],
)
def test_foreign_labels_are_named(tree, change, words):
    rewrite(tree, change)
    with pytest.raises(ValueError, match=words) as caught:
        H36mToolboxReader(tree)
    assert "h36m_train.pkl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_metres_are_refused_and_the_rest_is_kept(tree, tmp_path, store_of):
    def metres(records):
        return [
            {**r, "joints_3d_camera": r["joints_3d_camera"] / (1000 if r["action"] == 5 else 1)}
            for r in records
        ]

    rewrite(tree, metres)
    with pytest.raises(ValueError, match="expected millimetres"):
        convert(H36mToolboxReader(tree), tmp_path / "strict")
    store = store_of(H36mToolboxReader(tree), on_error="skip")
    assert set(store.records.action) == {"Photo"}
    assert len(store.skipped) == 1


def test_missing_and_cut_off_files_are_named(tree, tmp_path):
    image = tree / "images/s_01_act_05_subact_02_ca_01/s_01_act_05_subact_02_ca_01_000001.jpg"
    image.unlink()
    with pytest.raises(ValueError, match=image.name):
        convert(H36mToolboxReader(tree), tmp_path / "store")
    data = (tree / LABELS).read_bytes()
    (tree / LABELS).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"h36m_train\.pkl"):
        H36mToolboxReader(tree)
    with pytest.raises(ValueError, match="annot"):
        H36mToolboxReader(tmp_path)


def test_units_can_be_sent_to_other_processes(tree, assert_units_travel):
    assert_units_travel(H36mToolboxReader(tree))
