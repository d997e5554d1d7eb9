"""The synthetic data set: cameras, pictures against labels, and the store it is written to."""

import importlib
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from data_prep.human36m_cameras import IMAGE_SIZES_PX, subject_camera
from data_prep.synthetic import generate, renderers
from data_prep.synthetic.generate import generate_synthetic
from data_prep.synthetic.motion import Motion
from data_prep.synthetic.performances import ModelMotions
from data_prep.synthetic.records import record_of
from data_prep.synthetic.renderers import open_renderer, resolve_renderer
from data_prep.synthetic.scene import Studio
from data_prep.synthetic.scenery import project
from data_prep.verify import check_records
from pose3d.data.store import open_store
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES
from pose3d.geometry.skeleton import HUMAN36M_17

SIZE = 128


class Turning(ModelMotions):
    """People who stand with arms a little off and turn on the spot: quick to make."""

    description = "turning"

    def motion(self, body, subject, action, take, *, rng, num_frames):
        turns = np.zeros((num_frames, 3))
        turns[:, 2] = rng.uniform(0, 6) + np.linspace(0, 6, num_frames)
        arms = Rotation.from_rotvec([[0.0, -0.4, 0.0], [0.0, 0.5, 0.0]]).as_matrix()
        still = np.ones((num_frames, 1, 1))
        return Motion(
            local={
                "pelvis": Rotation.from_rotvec(turns).as_matrix(),
                "l_upperarm": still * arms[0],
                "r_upperarm": still * arms[1],
            },
            root_mm=np.tile([*rng.uniform(-600, 600, 2), 900.0], (num_frames, 1)),
            frames_per_s=50.0,
            seat=None,
            source="turning",
        )


def has_opengl():
    try:
        open_renderer("opengl")
    except ValueError:
        return False
    return True


needs_opengl = pytest.mark.skipif(not has_opengl(), reason="OpenGL (moderngl, EGL) is missing")


def studio_of(renderer="numpy", *, seed=0, size=SIZE, **options):
    return Studio(seed, crop_size_px=size, margin=1.84, renderer=open_renderer(renderer), **options)


@pytest.fixture(scope="module")
def studio():
    return studio_of()


@pytest.fixture(scope="module")
def shots(studio):
    takes = [(1, "Walking", 1), (7, "Sitting", 2), (9, "Greeting", 1), (11, "SittingDown", 2)]
    names = HUMAN36M_CAMERA_NAMES
    return [
        studio.shoot(studio.take(*take, num_frames=40), names[(2 * i + j) % 4], 10 * j)
        for i, take in enumerate(takes)
        for j in range(4)
    ]


def make(path, **options):
    settings = {"num_train": 4, "num_test": 2, "crop_size_px": 64, "seed": 3, "renderer": "numpy"}
    settings |= {"num_workers": 1, "progress": False, "motions": Turning(), **options}
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


def seen_by_hand(points_world_mm, camera, *, is_distorted=True):
    """Image pixels by Human3.6M's formula, written out anew."""
    seen = (points_world_mm - camera.centre_world_mm.numpy()) @ camera.rotation.numpy().T
    x, y = seen[:, 0] / seen[:, 2], seen[:, 1] / seen[:, 2]
    (k1, k2, k3), (p1, p2) = camera.radial.tolist(), camera.tangential.tolist()
    if is_distorted:
        r2 = x**2 + y**2
        gain = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * y + p2 * x
        x, y = x * gain + p2 * r2, y * gain + p1 * r2
    return np.stack([x, y], 1) * camera.focal_px.numpy() + camera.principal_point_px.numpy()


def silhouette_by_hand(studio, shot, *, enlarge=1, **options):
    """Where the person would be seen without furniture, drawn triangle by triangle."""
    pixels = seen_by_hand(shot.vertices_world_mm, shot.camera, **options)
    pixels = pixels @ shot.store_from_image[:2, :2].T + shot.store_from_image[:2, 2]
    mask = np.zeros((SIZE * enlarge, SIZE * enlarge), np.uint8)
    fine = np.rint(16 * (enlarge * (pixels + 0.5) - 0.5)).astype(np.int32)
    for face in studio._surface.faces:
        cv2.fillConvexPoly(mask, fine[face], 255, shift=4)
    return mask


def dressed_in_red(take):
    """A take in which person and light are such that only the person is purely red."""
    colours = np.zeros_like(take.look.colours) + np.array([1, 0, 0], np.float32)
    grey = np.full((8, 8, 3), 128, np.uint8)
    exposures = {n: replace(e, defocus_px=0.0, grain=0.0) for n, e in take.exposures.items()}
    light = replace(take.light, ambient=1.0, strength=0.0, fill_strength=0.0, tint=np.ones(3))
    return replace(
        take,
        look=replace(take.look, colours=colours),
        light=light,
        room=replace(take.room, noise=grey),
        furniture=(),
        seat=None,
        exposures=exposures,
    )


@pytest.mark.parametrize("has_jitter", [False, True])
def test_pictures_show_the_person_where_the_labels_are(has_jitter):
    studio = studio_of(motions=Turning(), has_jitter=has_jitter)
    for number, name in enumerate(HUMAN36M_CAMERA_NAMES):
        take = dressed_in_red(studio.take(5, "Photo", number, num_frames=5))
        shot = studio.shoot(take, name, 2)
        red = (shot.image[..., 0].astype(int) - shot.image[..., 1] > 50).astype(bool)
        drawn = silhouette_by_hand(studio, shot) > 0
        overlap = (red & drawn).sum() / (red | drawn).sum()
        assert overlap > (0.75 if number == 3 else 0.85), name  # shaken pictures aside
        off = (~drawn).astype(np.uint8)
        away = cv2.distanceTransform(off, cv2.DIST_L2, 5)  # pixels to the silhouette
        column, row = np.rint(shot.joints_store_px).astype(int).T
        assert away[row, column].max() <= 1.5


def test_jittered_cameras_stay_near_the_published_ones():
    studio = studio_of(motions=Turning(), has_jitter=True)
    takes = [studio.take(1, "Photo", number, num_frames=1) for number in (1, 2)]
    for name in HUMAN36M_CAMERA_NAMES:
        published = subject_camera(1, name)
        for take in takes:
            turn = take.cameras[name].rotation @ published.rotation.T
            angle = np.rad2deg(Rotation.from_matrix(turn.numpy()).magnitude())
            moved = (take.cameras[name].centre_world_mm - published.centre_world_mm).norm()
            assert 0.01 < angle < 5
            assert 0.1 < moved < 150
        first, second = (take.cameras[name].centre_world_mm for take in takes)
        assert not torch.equal(first, second)


def test_the_projection_of_pictures_is_that_of_the_labels(shots):
    straightened = 0.0
    for shot in shots:
        bent, straight = (
            seen_by_hand(shot.vertices_world_mm, shot.camera, is_distorted=flag)
            for flag in (True, False)
        )
        pixels, depths = project(shot.camera, shot.vertices_world_mm, np.eye(3))
        np.testing.assert_allclose(pixels, bent, atol=1e-6)
        assert (depths > 1000).all()
        straightened = max(straightened, np.abs(bent - straight).max())
    assert straightened > 3  # pixels: without distortion the comparison above would fail


def test_the_person_stands_on_the_floor_within_the_frame(shots):
    for shot in shots:
        assert -30 < shot.vertices_world_mm[:, 2].min() < 60
        image = shot.camera.camera_to_image(torch.from_numpy(shot.joints_camera_mm)).numpy()
        assert (image > 0).all()
        assert (image < IMAGE_SIZES_PX[shot.subject, shot.camera_name]).all()


def test_a_take_keeps_body_clothes_room_and_light(studio):
    """Pictures of a person who stands still differ by noise alone."""

    class Still(Turning):
        def motion(self, *arguments, num_frames, **options):
            motion = super().motion(*arguments, num_frames=1, **options)
            local = {name: np.tile(turn, (num_frames, 1, 1)) for name, turn in motion.local.items()}
            root = np.tile(motion.root_mm, (num_frames, 1))
            return replace(motion, local=local, root_mm=root)

    quiet = studio_of(motions=Still())
    take = quiet.take(6, "Waiting", 1, num_frames=5)
    exposures = {n: replace(e, defocus_px=3.0, grain=0.0) for n, e in take.exposures.items()}
    take = replace(take, exposures=exposures)
    first, last = (quiet.shoot(take, HUMAN36M_CAMERA_NAMES[0], frame) for frame in (0, 4))
    np.testing.assert_array_equal(first.vertices_world_mm, last.vertices_world_mm)
    assert np.abs(first.image.astype(int) - last.image).mean() < 3
    other = quiet.shoot(quiet.take(6, "Waiting", 2, num_frames=5), HUMAN36M_CAMERA_NAMES[0], 0)
    assert np.abs(first.image.astype(int) - other.image).mean() > 10


def test_two_takes_of_a_subject_differ_in_flesh_more_than_in_bones():
    studio = studio_of(motions=Turning())
    bodies = [studio.take(8, "Eating", number, num_frames=1).body for number in range(1, 9)]
    thighs = np.array([body.length_mm("l_shank") for body in bodies])
    assert 0 < thighs.std() < 15
    waists = np.array([np.ptp(b.rest_vertices_mm[b.model.weights[:, 1] > 0.5, 1]) for b in bodies])
    assert waists.std() / waists.mean() > 1.5 * thighs.std() / thighs.mean()


def test_the_left_of_who_faces_the_camera_is_at_larger_x():
    """The facing is found without sides: from neck to nose, across the trunk."""
    index = HUMAN36M_17.index
    take = studio_of(motions=Turning()).take(1, "Walking", 1, num_frames=40)
    seen = 0
    for camera in take.cameras.values():
        for world in take.joints_mm[::4]:
            joints = camera.world_to_camera(torch.from_numpy(world))
            image = camera.camera_to_image(joints).numpy()
            joints = joints.numpy()
            up = joints[index("Neck")] - joints[index("Pelvis")]
            across = joints[index("L_Shoulder")] - joints[index("R_Shoulder")]
            forward = np.cross(across, up)  # camera axes are right-handed: left x up is forward
            facing = joints[index("Nose")] - joints[index("Neck")]
            facing = facing - up * (facing @ up) / (up @ up)
            if np.linalg.norm(facing) > 20 and abs(facing[2]) > 0.7 * np.linalg.norm(facing):
                assert forward @ facing > 0
                left, right = (image[index(f"{side}_Shoulder"), 0] for side in "LR")
                assert (left > right) == (facing[2] < 0)  # towards the camera: -z
                seen += 1
    assert seen >= 10


def test_a_shot_depends_on_seed_take_camera_and_frame_alone(studio, shots):
    again = studio_of()
    again.take(1, "Walking", 1, num_frames=40)
    take = again.take(9, "Greeting", 1, num_frames=40)
    np.testing.assert_array_equal(again.shoot(take, "60457274", 30).image, shots[11].image)
    other = studio_of(seed=1).take(9, "Greeting", 1, num_frames=40)
    assert not np.array_equal(studio_of(seed=1).shoot(other, "60457274", 30).image, shots[11].image)


def test_a_shadow_may_fall_behind_the_camera():
    studio = studio_of(motions=Turning())
    take = studio.take(1, "Photo", 1, num_frames=1)
    towards = take.cameras["60457274"].centre_world_mm.numpy() * [1.0, 1.0, 0.0]
    low_sun = -(towards / np.linalg.norm(towards) - [0.0, 0.0, 0.2]) / np.hypot(1.0, 0.2)
    take = replace(take, light=replace(take.light, direction=low_sun))
    assert studio.shoot(take, "60457274", 0).image.std() > 0


def test_beyond_the_full_image_the_crop_is_black(shots):
    """As where a crop is cut from a real frame: seen from corners mapped by hand."""
    checked = 0
    for shot in shots:
        inverse = np.linalg.inv(shot.store_from_image)
        width, height = IMAGE_SIZES_PX[shot.subject, shot.camera_name]
        for row in (2, SIZE - 3):
            for column in (2, SIZE - 3):
                x, y, _ = inverse @ [column, row, 1.0]
                if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                    assert (shot.image[row, column] == 0).all()
                    checked += 1
    assert checked > 3


def test_a_full_frame_and_a_crop_show_the_same(studio, shots):
    shot = shots[1]
    names = (shot.subject, shot.action, shot.take, shot.camera_name, shot.frame)
    whole = studio.photograph(*names, num_frames=40)
    assert whole.image.shape[:2] == IMAGE_SIZES_PX[shot.subject, shot.camera_name][::-1]
    seen = whole.camera.world_to_camera(torch.from_numpy(whole.joints_world_mm)).numpy()
    np.testing.assert_allclose(seen, shot.joints_camera_mm, atol=1e-9)
    assert (whole.visibility == shot.visibility).mean() > 0.85
    cut = cv2.warpAffine(
        cv2.GaussianBlur(whole.image, (0, 0), 2.0), shot.store_from_image[:2], (SIZE, SIZE)
    )
    assert np.abs(cut.astype(int) - shot.image).mean() < 12
    scale = np.diag([0.125, 0.125, 1.0])
    small = cv2.warpAffine(whole.mask.astype(np.uint8) * 255, scale[:2], (126, 126))
    pixels = np.rint(0.125 * seen_by_hand(shot.vertices_world_mm, shot.camera)).astype(int)
    low, high = pixels.min(0), pixels.max(0)
    assert not small[: low[1] - 1].any()
    assert not small[high[1] + 2 :].any()
    assert small.any()


def test_a_frame_beyond_the_take_or_an_unknown_camera_is_refused(studio):
    with pytest.raises(ValueError, match=r"frame must be in \[0, 40\), got 40"):
        studio.photograph(1, "Walking", 1, HUMAN36M_CAMERA_NAMES[0], 40, num_frames=40)
    with pytest.raises(ValueError, match=r"camera must be one of .* got '1'"):
        studio.photograph(1, "Walking", 1, "1", 0, num_frames=40)
    with pytest.raises(ValueError, match=r"subject must be one of \[1, .* got 2"):
        studio.photograph(2, "Walking", 1, HUMAN36M_CAMERA_NAMES[0], 0)


def test_quality_of_jpeg_files_varies_below_the_best(shots):
    tables = set()
    for number, shot in enumerate(shots[:6]):
        record = record_of(shot, split="train", number=number, jpeg_quality=90)
        start = record.image_jpeg.index(b"\xff\xdb")
        tables.add(record.image_jpeg[start : start + 69])
        image = cv2.imdecode(np.frombuffer(record.image_jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(image[..., ::-1].astype(int) - shot.image).mean() < 6
    assert len(tables) > 3


@needs_opengl
def test_both_renderers_give_the_same_picture():
    gl, painted = (studio_of(name, size=256) for name in ("opengl", "numpy"))
    for key, camera in (((7, "Sitting", 2), 1), ((1, "Walking", 1), 3)):
        pair = [
            s.shoot(s.take(*key, num_frames=20), HUMAN36M_CAMERA_NAMES[camera], 10)
            for s in (gl, painted)
        ]
        np.testing.assert_array_equal(pair[0].joints_camera_mm, pair[1].joints_camera_mm)
        np.testing.assert_array_equal(pair[0].visibility, pair[1].visibility)
        difference = np.abs(pair[0].image.astype(int) - pair[1].image).max(axis=-1)
        assert (difference > 8).mean() < 0.002


@pytest.mark.parametrize("name", ["numpy", pytest.param("opengl", marks=needs_opengl)])
def test_a_drawn_triangle_covers_its_area_and_the_near_one_hides_the_far(name):
    renderer = open_renderer(name)
    large = np.array([[4.3, 4.2], [60.3, 4.2], [4.3, 60.2]])
    small = np.array([[8.3, 8.2], [28.3, 8.2], [8.3, 28.2]])
    corners = np.stack([small, large, small + 4.0])
    depths = np.array([[900.0] * 3, [1000.0] * 3, [1100.0] * 3])
    shown = renderer.draw(corners, depths, width_px=70, height_px=64)
    assert shown.shape == (64, 70)
    assert (shown >= 0).sum() == pytest.approx(56 * 56 / 2, rel=0.03)
    assert (shown == 0).sum() == pytest.approx(20 * 20 / 2, rel=0.08)
    assert shown[12, 12] == 0
    assert not (shown == 2).any()
    assert (shown[40:, 50:] == -1).all()
    rows, columns = np.nonzero(shown >= 0)
    assert rows.mean() == pytest.approx(4.2 + 56 / 3, abs=0.5)
    assert columns.mean() == pytest.approx(4.3 + 56 / 3, abs=0.5)


@pytest.mark.parametrize("name", ["numpy", pytest.param("opengl", marks=needs_opengl)])
def test_where_faces_cross_the_nearer_part_of_each_is_seen(name):
    """One slopes from 1 m to 3 m, the other stands at 1.5 m.

    The inverse of depth is linear in the picture: 1 / 1.5 m is half way from 1 / 1 m to 1 / 3 m.
    """
    square = np.array([[0.0, 0.0], [40.0, 0.0], [40.0, 40.0], [0.0, 40.0]])
    halves = [[0, 1, 2], [0, 2, 3]]
    sloping, upright = np.array([1000.0, 3000.0, 3000.0, 1000.0]), np.full(4, 1500.0)
    depths = np.concatenate([depth[halves] for depth in (sloping, upright)])
    corners = np.tile(square[halves], (2, 1, 1))
    shown = open_renderer(name).draw(corners, depths, width_px=41, height_px=41)
    inner = shown[2:38, 2:38]
    assert (inner[:, :17] < 2).all()
    assert (inner[:, 20:] >= 2).all()


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
    assert (len(store.select(split="train")), len(store.select(split="test"))) == (4, 2)
    assert set(store.records.subject[store.select(split="test")]) <= {9, 11}
    assert store.image(0).shape == (64, 64, 3)
    assert store.records.weight.min() == 1
    assert 0 < store.records.visibility.mean() < 1
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


def test_the_number_of_processes_does_not_change_the_digest(tmp_path):
    one = make(tmp_path / "one", num_train=3, num_test=2, motions=None)
    two = make(tmp_path / "two", num_train=3, num_test=2, motions=None, num_workers=2)
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
    (tmp_path / "killed.py").write_text("import os\n\ndef work(chunk, advance):\n    os._exit(9)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(generate, "_work", importlib.import_module("killed").work)
    with pytest.raises(ValueError, match=r"was killed, perhaps for memory; .*fewer --jobs"):
        make(tmp_path / "store", motions=None, num_workers=2)


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
