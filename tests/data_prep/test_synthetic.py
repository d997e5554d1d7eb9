"""The synthetic data set: cameras, pictures against labels, and the store it is written to."""

import importlib
import sys

import cv2
import numpy as np
import pytest
import torch

from data_prep.synthetic import generate, renderers, scene
from data_prep.synthetic.cameras import IMAGE_SIZES_PX, subject_camera
from data_prep.synthetic.generate import generate_synthetic
from data_prep.synthetic.lighting import Light
from data_prep.synthetic.poses import draw_pose
from data_prep.synthetic.renderers import open_renderer, resolve_renderer
from data_prep.synthetic.scene import Studio
from data_prep.synthetic.slots import slot_of
from data_prep.synthetic.subjects import SPLIT_SUBJECTS
from data_prep.verify import check_records
from pose3d.data.store import HUMAN36M_ACTIONS, open_store
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES
from pose3d.geometry.skeleton import HUMAN36M_17

SIZE = 128


def has_opengl():
    try:
        open_renderer("opengl")
    except ValueError:
        return False
    return True


needs_opengl = pytest.mark.skipif(not has_opengl(), reason="OpenGL (moderngl, EGL) is missing")


@pytest.fixture(scope="module")
def studio():
    return Studio(0, crop_size_px=SIZE, margin=1.84, renderer=open_renderer("numpy"))


@pytest.fixture(scope="module")
def shots(studio):
    return [studio.shoot(split, index) for split in ("train", "test") for index in range(12)]


def make(path, **options):
    settings = {"num_train": 5, "num_test": 3, "crop_size_px": 64, "seed": 3, "renderer": "numpy"}
    settings |= {"num_workers": 1, "progress": False, **options}
    return generate_synthetic(path, **settings)


def test_first_camera_of_subject_1_is_the_published_one():
    camera = subject_camera(1, "54138969")
    rotation = [
        [-0.91536173, 0.40180837, 0.02574754],
        [0.05154812, 0.18037357, -0.98224649],
        [-0.39931903, -0.89778361, -0.18581953],
    ]
    np.testing.assert_allclose(camera.rotation.numpy(), rotation, atol=5e-7)
    centre = [1841.10702775, 4955.28462345, 1563.4453959]
    np.testing.assert_allclose(camera.centre_world_mm.numpy(), centre, atol=1e-3)


@pytest.mark.parametrize("subject", [1, 5, 6, 7, 8, 9, 11])
def test_cameras_stand_upright_and_look_at_the_middle(subject):
    for name in HUMAN36M_CAMERA_NAMES:
        camera = subject_camera(subject, name)
        origin, above = torch.tensor([[0.0, 0.0, 900.0], [0.0, 0.0, 1400.0]], dtype=torch.float64)
        image = camera.camera_to_image(camera.world_to_camera(torch.stack([origin, above])))
        assert ((image > 200) & (image < 800)).all()
        assert image[1, 1] < image[0, 1]


def test_subject_7_has_higher_images_on_two_cameras():
    """Sizes of the published videos: 1000 or 1002 rows by camera, all 1002 for subject 7."""
    rows = {key: size[1] for key, size in IMAGE_SIZES_PX.items()}
    assert [rows[1, name] for name in HUMAN36M_CAMERA_NAMES] == [1002, 1000, 1000, 1002]
    assert [rows[7, name] for name in HUMAN36M_CAMERA_NAMES] == [1002] * 4
    assert len(rows) == 7 * 4


def test_records_are_balanced_and_no_two_share_a_frame():
    for split, subjects in SPLIT_SUBJECTS.items():
        slots = [slot_of(split, index) for index in range(600)]
        for field, values in (
            ("subject", subjects),
            ("action", HUMAN36M_ACTIONS),
            ("camera_name", HUMAN36M_CAMERA_NAMES),
            ("take", (1, 2)),
        ):
            counts = [sum(getattr(s, field) == value for s in slots) for value in values]
            assert sum(counts) == 600
            assert max(counts) - min(counts) <= 0.1 * 600 / len(values) + 2, field
        frames = {(s.subject, s.action, s.take, s.frame) for s in slots}
        assert len(frames) == len(slots)


def test_joints_are_projected_onto_the_person(studio, shots):
    distances = []
    for shot in shots:
        off = (studio.silhouette(shot) < 128).astype(np.uint8)
        away = cv2.distanceTransform(off, cv2.DIST_L2, 5)  # pixels to the silhouette
        column, row = np.rint(shot.joints_store_px).astype(int).T
        distances.append(away[row, column])
    assert np.max(distances) <= 2.0
    assert np.mean(np.array(distances) == 0) > 0.97


def projected_by_hand(shot, *, is_distorted):
    """Vertices in crop pixels by Human3.6M's formula, written out anew."""
    camera = shot.camera
    seen = (shot.vertices_world_mm - camera.centre_world_mm.numpy()) @ camera.rotation.numpy().T
    x, y = seen[:, 0] / seen[:, 2], seen[:, 1] / seen[:, 2]
    (k1, k2, k3), (p1, p2) = camera.radial.tolist(), camera.tangential.tolist()
    if is_distorted:
        r2 = x**2 + y**2
        gain = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * y + p2 * x
        x, y = x * gain + p2 * r2, y * gain + p1 * r2
    pixels = np.stack([x, y], 1) * camera.focal_px.numpy() + camera.principal_point_px.numpy()
    return pixels @ shot.store_from_image[:2, :2].T + shot.store_from_image[:2, 2]


def test_pictures_show_the_distortion_of_the_lens(studio, shots):
    straightened = 0.0
    for shot in shots:
        rows, columns = np.nonzero(studio.silhouette(shot) > 100)
        drawn = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        bent, straight = (projected_by_hand(shot, is_distorted=flag) for flag in (True, False))
        expected = np.concatenate([bent.min(0), bent.max(0)])
        np.testing.assert_allclose(drawn, expected, atol=1.0)
        straightened = max(straightened, np.abs(bent - straight).max())
    assert straightened > 1.5  # pixels: without distortion the comparison above would fail


def test_the_person_stands_on_the_floor_within_the_frame(shots):
    for shot in shots:
        assert abs(shot.vertices_world_mm[:, 2].min()) < 1e-6
        assert 2500 < shot.joints_camera_mm[0, 2] < 6600
        joints = torch.from_numpy(shot.joints_camera_mm)
        image = shot.camera.camera_to_image(joints).numpy()
        assert (image > 0).all()
        assert (image < IMAGE_SIZES_PX[shot.slot.subject, shot.slot.camera_name]).all()


def test_a_pose_that_fits_nowhere_is_drawn_again(studio, monkeypatch):
    """With one try in a large area most poses fail; what is drawn in the end fits as a whole."""
    monkeypatch.setattr(scene, "NUM_PLACEMENTS", 1)
    monkeypatch.setattr(scene, "AREA_HALF_MM", (2500.0, 2500.0))
    num_drawn = 0

    def counted(*arguments, **options):
        nonlocal num_drawn
        num_drawn += 1
        return draw_pose(*arguments, **options)

    monkeypatch.setattr(scene, "draw_pose", counted)
    for index in range(6):
        shot = studio.shoot("train", index)
        again = studio.shoot("train", index)
        np.testing.assert_array_equal(shot.joints_camera_mm, again.joints_camera_mm)
        image = shot.camera.camera_to_image(torch.from_numpy(shot.joints_camera_mm)).numpy()
        low, high = image.min(0), image.max(0)
        size = IMAGE_SIZES_PX[shot.slot.subject, shot.slot.camera_name]
        assert 3000 <= shot.joints_camera_mm[0, 2] <= 6500
        assert (low > scene.FRAME_RIM_PX).all()
        assert (high < np.array(size) - scene.FRAME_RIM_PX).all()
        expected = [*(low + high) / 2, 1.2 * (high - low).max()]
        np.testing.assert_allclose(shot.box_image_px, expected, atol=1e-6)
    assert num_drawn > 2 * 6
    monkeypatch.setattr(scene, "DEPTH_RANGE_MM", (1.0, 2.0))
    monkeypatch.setattr(scene, "NUM_POSES", 2)
    with pytest.raises(ValueError, match="train record 0: none of 2 poses of"):
        studio.shoot("train", 0)


def test_the_left_of_who_faces_the_camera_is_at_larger_x(shots):
    """The facing is found without sides: from neck to nose, across the trunk."""
    index = HUMAN36M_17.index
    seen = 0
    for shot in shots:
        joints = shot.joints_camera_mm
        up = joints[index("Neck")] - joints[index("Pelvis")]
        across = joints[index("L_Shoulder")] - joints[index("R_Shoulder")]
        forward = np.cross(across, up)  # camera axes are right-handed: left x up is forward
        facing = joints[index("Nose")] - joints[index("Neck")]
        facing = facing - up * (facing @ up) / (up @ up)
        if np.linalg.norm(facing) > 20 and abs(facing[2]) > 0.7 * np.linalg.norm(facing):
            assert forward @ facing > 0
            left, right = (shot.joints_store_px[index(f"{s}_Shoulder")][0] for s in "LR")
            assert (left > right) == (facing[2] < 0)  # towards the camera: -z
            seen += 1
    assert seen >= 3


def test_a_shot_depends_on_seed_split_and_number_alone(studio, shots):
    again = Studio(0, crop_size_px=SIZE, margin=1.84, renderer=open_renderer("numpy"))
    np.testing.assert_array_equal(again.shoot("test", 4).image, shots[16].image)
    other = Studio(1, crop_size_px=SIZE, margin=1.84, renderer=open_renderer("numpy"))
    assert not np.array_equal(other.shoot("test", 4).image, shots[16].image)


def test_a_shadow_may_fall_behind_the_camera(studio):
    camera = studio.camera(1, "60457274")
    slot = slot_of("train", 0)
    towards = camera.centre_world_mm.numpy() * [1.0, 1.0, 0.0]
    person = np.tile(0.4 * towards + [0.0, 0.0, 1700.0], (3, 3, 1))
    low_sun = Light(
        direction=-(towards / np.linalg.norm(towards) - [0.0, 0.0, 0.3]) / np.hypot(1.0, 0.3),
        ambient=0.5,
        strength=0.5,
        tint=np.ones(3),
    )
    picture = studio._background(
        camera, slot, person, low_sun, torch.eye(3).double(), np.random.default_rng(0)
    )
    assert np.isfinite(picture).all()


def test_beyond_the_full_image_the_crop_is_black(shots):
    """As where a crop is cut from a real frame: seen from corners mapped by hand."""
    checked = 0
    for shot in shots:
        inverse = np.linalg.inv(shot.store_from_image)
        width, height = IMAGE_SIZES_PX[shot.slot.subject, shot.slot.camera_name]
        for row in (2, SIZE - 3):
            for column in (2, SIZE - 3):
                x, y, _ = inverse @ [column, row, 1.0]
                if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                    assert (shot.image[row, column] == 0).all()
                    checked += 1
    assert checked > 3


@needs_opengl
def test_both_renderers_draw_the_same_silhouette():
    names = ("opengl", "numpy")
    pair = [
        Studio(0, crop_size_px=256, margin=1.84, renderer=open_renderer(name)) for name in names
    ]
    for index in range(6):
        gl, painted = (s.silhouette(s.shoot("train", index)) / 255.0 for s in pair)
        overlap = np.minimum(gl, painted).sum() / np.maximum(gl, painted).sum()
        assert overlap > 0.95, index  # of fractional coverage
        hard = (gl > 0.5) & (painted > 0.5)
        assert hard.sum() / ((gl > 0.5) | (painted > 0.5)).sum() > 0.97, index


@needs_opengl
def test_both_renderers_give_the_same_picture_but_for_edges():
    names = ("opengl", "numpy")
    gl, painted = (
        Studio(0, crop_size_px=256, margin=1.84, renderer=open_renderer(name)).shoot("train", 2)
        for name in names
    )
    np.testing.assert_array_equal(gl.joints_camera_mm, painted.joints_camera_mm)
    difference = np.abs(gl.image.astype(int) - painted.image.astype(int)).max(axis=-1)
    assert (difference > 40).mean() < 0.01


@pytest.mark.parametrize("name", ["numpy", pytest.param("opengl", marks=needs_opengl)])
def test_a_drawn_triangle_covers_its_area_and_the_near_one_hides_the_far(name):
    renderer = open_renderer(name)
    large = np.array([[4.0, 4.0], [60.0, 4.0], [4.0, 60.0]])
    small = np.array([[8.0, 8.0], [28.0, 8.0], [8.0, 28.0]])
    corners = np.stack([small, large])
    depths = np.array([[900.0] * 3, [1000.0] * 3])
    colours = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
    drawn = renderer.draw(corners, depths, colours, size_px=64).astype(float) / 255.0
    assert drawn[..., 3].sum() == pytest.approx(56 * 56 / 2, rel=0.02)
    assert drawn[..., 0].sum() == pytest.approx(20 * 20 / 2, rel=0.06)
    assert drawn[12, 12].tolist() == [1.0, 0.0, 0.0, 1.0]
    centre = np.average(np.indices((64, 64)).reshape(2, -1), axis=1, weights=drawn[..., 3].ravel())
    np.testing.assert_allclose(centre, [4 + 56 / 3] * 2, atol=0.1)


def test_without_opengl_auto_draws_with_numpy_and_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "data_prep.synthetic.render_gl", None)
    assert resolve_renderer("auto") == "numpy"
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    with pytest.raises(ValueError, match="renderer opengl does not start"):
        resolve_renderer("opengl")


def test_the_store_holds_what_was_asked_for(tmp_path):
    digest = make(tmp_path / "store")
    store = open_store(tmp_path / "store")
    store.verify_digest()
    assert check_records(store) == []
    assert store.digest == digest
    assert (len(store.select(split="train")), len(store.select(split="test"))) == (5, 3)
    assert set(store.records.subject[store.select(split="test")]) <= {9, 11}
    assert store.image(0).shape == (64, 64, 3)
    joints = torch.from_numpy(store.records.joints_camera_mm[:1].astype(np.float64))
    image = store.cameras[store.records.camera_index[:1]].camera_to_image(joints)[0].numpy()
    low, high = image.min(0), image.max(0)
    expected = [*(low + high) / 2, 1.2 * (high - low).max()]
    np.testing.assert_allclose(store.records.box_image_px[0], expected, atol=1e-2)


def test_a_resumed_run_has_the_digest_of_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "SHARD_SIZE", 2)
    whole = make(tmp_path / "whole")
    make(tmp_path / "broken")
    for name in ("shard-train-00001.h5", "shard-test-00000.h5", "store.json"):
        (tmp_path / "broken" / name).unlink()
    kept = tmp_path / "broken" / "shard-train-00000.h5"
    before = kept.stat().st_mtime_ns
    assert make(tmp_path / "broken") == whole
    assert kept.stat().st_mtime_ns == before  # not drawn again


def test_the_number_of_processes_does_not_change_the_digest(tmp_path, monkeypatch):
    one = make(tmp_path / "one", num_train=3, num_test=2)
    two = make(tmp_path / "two", num_train=3, num_test=2, num_workers=2)
    assert one == two


def test_other_settings_are_refused_in_the_same_folder_unless_it_is_to_be_made_anew(tmp_path):
    make(tmp_path, num_train=1, num_test=0)
    with pytest.raises(ValueError, match=r"other settings .*pass --overwrite"):
        make(tmp_path, num_train=1, num_test=0, seed=4)
    digest = make(tmp_path, num_train=1, num_test=0, seed=4, overwrite=True)
    assert open_store(tmp_path).digest == digest
    assert "seed 4" in open_store(tmp_path).header.source


def test_auto_goes_on_with_the_renderer_that_a_store_was_begun_with(tmp_path, monkeypatch):
    opened = []

    def opengl_appears(name):
        opened.append(name)
        return open_renderer("numpy")

    begun = make(tmp_path / "store", num_train=1, num_test=1)
    monkeypatch.setattr(renderers, "open_renderer", opengl_appears)
    monkeypatch.setattr(generate, "open_renderer", opengl_appears)
    assert make(tmp_path / "store", num_train=1, num_test=1, renderer="auto") == begun
    assert opened == []  # nothing to draw
    (tmp_path / "store" / "shard-test-00000.h5").unlink()
    assert make(tmp_path / "store", num_train=1, num_test=1, renderer="auto") == begun
    assert set(opened) == {"numpy"}
    make(tmp_path / "store", num_train=1, num_test=1, renderer="auto", overwrite=True)
    assert "opengl" in opened


def test_a_killed_worker_ends_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "killed.py").write_text("import os\n\ndef work(chunk):\n    os._exit(9)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(generate, "_work", importlib.import_module("killed").work)
    with pytest.raises(ValueError, match=r"was killed, perhaps for memory; .*fewer --jobs"):
        make(tmp_path / "store", num_workers=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": 0, "num_test": 0}, "need images to make"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"num_workers": 0}, "num_workers must be at least 1"),
        ({"renderer": "crayon"}, "unknown renderer 'crayon'"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "store", **options)


def test_renderer_names_are_those_of_the_command_line():
    from data_prep.cli import Renderer

    assert {choice.value for choice in Renderer} == set(renderers.RENDERERS)
