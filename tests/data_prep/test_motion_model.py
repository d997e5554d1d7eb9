"""Laws of motion that is drawn, by forward kinematics, limits and capsules of this file's own."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from data_prep.human36m_cameras import IMAGE_SIZES_PX, subject_camera
from data_prep.synthetic.body import Body, load_body_model
from data_prep.synthetic.motion_actions import ACTIONS
from data_prep.synthetic.motion_model import draw_motion
from pose3d.data.store import HUMAN36M_ACTIONS
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

SAMPLE = (
    ("Walking", 1),
    ("WalkDog", 2),
    ("Directions", 1),
    ("Purchases", 2),
    ("Sitting", 1),
    ("SittingDown", 1),
)
NUM_FRAMES = 300


class Watched:
    """A motion with its joints: SciPy's products along each chain of bones."""

    def __init__(self, body, action, take, *, seed, num_frames=NUM_FRAMES):
        self.body, self.action = body, action
        rng = np.random.default_rng((seed, take))
        self.motion = draw_motion(body, action, take, rng=rng, num_frames=num_frames)
        self.turn, self.at = {}, {}
        names, parents = body.model.bone_names, body.model.bone_parents
        for bone, (name, parent) in enumerate(zip(names, parents, strict=True)):
            local = self.motion.local.get(name)
            own = Rotation.identity(num_frames) if local is None else Rotation.from_matrix(local)
            if parent < 0:
                self.turn[name], self.at[name] = own, self.motion.root_mm
                continue
            above = self.turn[names[parent]]
            self.turn[name] = above * own
            self.at[name] = self.at[names[parent]] + above.apply(body.offsets_mm[bone])
        for mark, bone in (("toe", "foot"), ("knuckle", "hand")):
            for side in "lr":
                offset = self.turn[f"{side}_{bone}"].apply(body.landmarks_mm[f"{side}_{mark}"])
                self.at[f"{side}_{mark}"] = self.at[f"{side}_{bone}"] + offset
        offset = self.turn["head"].apply(body.landmarks_mm["head_top"])
        self.at["head_top"] = self.at["head"] + offset

    def rotvec(self, name):
        return Rotation.from_matrix(self.motion.local[name]).as_rotvec()

    def skin(self, step):
        frames = slice(None, None, step)
        local = {name: turns[frames] for name, turns in self.motion.local.items()}
        return self.body.skin(self.body.pose_frames(local, self.motion.root_mm[frames]))


@pytest.fixture(scope="module")
def model():
    return load_body_model()


@pytest.fixture(scope="module")
def body(model):
    return Body(model, gender=0.9, height=0.6)


@pytest.fixture(scope="module")
def watched(body):
    return [Watched(body, action, take, seed=i) for i, (action, take) in enumerate(SAMPLE)]


def speeds_mm_per_frame(points):
    return np.linalg.norm(np.diff(points, axis=0), axis=-1)


def share_of(flags):
    return np.concatenate([np.ravel(f) for f in flags]).mean()


def check_speeds(motion):
    per_s = motion.motion.frames_per_s
    for name, points in motion.at.items():
        assert speeds_mm_per_frame(points).max() * per_s < 6500.0, (motion.action, name)
        # 25 g would be a jump; a foot that swings and lands has some 5 g.
        jerky = np.linalg.norm(np.diff(points, 2, axis=0), axis=-1) * per_s**2
        assert jerky.max() < 250e3, (motion.action, name)


def excess_deg(motion):
    """Largest excess over any joint limit in each frame, by rotation vectors and directions."""
    limits = {"spine": 45, "chest": 45, "neck": 60, "head": 60}
    limits |= {f"{s}_{bone}": 75 for s in "lr" for bone in ("hand", "foot")}
    limits |= {f"{s}_clavicle": 35 for s in "lr"}
    excess = [
        np.degrees(np.linalg.norm(motion.rotvec(name), axis=1)) - limit
        for name, limit in limits.items()
    ]
    for side, outward in (("l", 1.0), ("r", -1.0)):
        thigh = Rotation.from_matrix(motion.motion.local[f"{side}_thigh"])
        x, y, z = thigh.apply([0.0, 0.0, -1.0]).T
        flexion = np.degrees(np.arctan2(-y, -z))
        spread = np.degrees(np.arcsin(np.clip(outward * x, -1, 1)))
        excess += [flexion - 130, -35 - flexion, spread - 65, -35 - spread]
        arm = Rotation.from_matrix(motion.motion.local[f"{side}_upperarm"])
        x, y, z = arm.apply([0.0, 0.0, -1.0]).T
        excess.append(np.degrees(np.arcsin(np.clip(y, -1, 1))) - 65)
        excess.append(np.degrees(np.arcsin(np.clip(-outward * x, -1, 1))) - 55)
        for bone, sign, limit in (("forearm", -1, 148), ("shank", 1, 152)):
            bend = sign * np.degrees(motion.rotvec(f"{side}_{bone}")[:, 0])
            excess += [bend - limit, -bend]
    return np.max(excess, axis=0)


def depth_mm(motion):
    """How deep the deepest limb is in another part, by spheres along the limbs."""
    size = np.linalg.norm(motion.at["l_foot"][0] - motion.at["l_shank"][0])
    size = (size + np.linalg.norm(motion.at["l_shank"][0] - motion.at["l_thigh"][0])) / 850.0

    def spheres(start, end, low, high, radius):
        a, b = motion.at[start], motion.at[end]
        steps = np.linspace(low, high, 9)[:, None, None]
        return a + steps * (b - a), radius * size

    parts = {"trunk": spheres("pelvis", "neck", 0.0, 0.8, 100.0)}
    for s in "lr":
        parts[f"{s}_forearm"] = spheres(f"{s}_forearm", f"{s}_hand", 0.3, 1.0, 32.0)
        parts[f"{s}_hand"] = spheres(f"{s}_hand", f"{s}_knuckle", 0.2, 1.6, 24.0)
        parts[f"{s}_thigh"] = spheres(f"{s}_thigh", f"{s}_shank", 0.25, 1.0, 62.0)
        parts[f"{s}_shank"] = spheres(f"{s}_shank", f"{s}_foot", 0.1, 1.0, 44.0)
        parts[f"{s}_foot"] = spheres(f"{s}_foot", f"{s}_toe", 0.0, 1.0, 34.0)
    deepest = np.full(motion.motion.num_frames, -np.inf)
    joined = [{f"{s}_{a}", f"{s}_{b}"} for s in "lr" for a, b in CHAINS]
    for (a, (pa, ra)), (b, (pb, rb)) in itertools.combinations(parts.items(), 2):
        if {a, b} in joined or ({"trunk"} & {a, b} and {a, b} & {"l_thigh", "r_thigh"}):
            continue
        gaps = np.linalg.norm(pa[:, None] - pb[None], axis=-1).min(axis=(0, 1))
        deepest = np.maximum(deepest, ra + rb - gaps)
    return deepest


CHAINS = (("forearm", "hand"), ("thigh", "shank"), ("shank", "foot"), ("thigh", "foot"))


def planted(motion, side):
    """Frames in which a foot is flat on the floor, and in the next one too."""
    body = motion.body
    sole = motion.at[f"{side}_foot"][:, 2] - body.ankle_height_mm
    toe = motion.at[f"{side}_toe"][:, 2] - body.ankle_height_mm - body.landmarks_mm["l_toe"][2]
    flat = (np.abs(sole) < 2.0) & (np.abs(toe) < 2.0)
    return flat[1:] & flat[:-1]


def drift_mm(motion):
    return np.concatenate(
        [
            speeds_mm_per_frame(motion.at[f"{side}_foot"][:, :2])[planted(motion, side)]
            for side in "lr"
        ]
    )


def test_every_action_of_human36m_can_be_drawn():
    assert set(ACTIONS) == set(HUMAN36M_ACTIONS)


@pytest.mark.parametrize("num_frames", [1, 2, 77])
def test_a_motion_is_as_long_as_asked_for(body, num_frames):
    rng = np.random.default_rng(0)
    motion = draw_motion(body, "Posing", 2, rng=rng, num_frames=num_frames)
    assert motion.num_frames == num_frames
    assert motion.frames_per_s == 50
    assert all(turns.shape == (num_frames, 3, 3) for turns in motion.local.values())
    assert motion.source == "motion model, Posing 2"


def test_turns_are_rotations(watched):
    for motion in watched:
        for name, turns in motion.motion.local.items():
            products = turns @ np.swapaxes(turns, 1, 2)
            np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), turns.shape), atol=1e-9)
            assert np.linalg.det(turns).min() > 0, name


def test_nothing_jumps(watched):
    for motion in watched:
        check_speeds(motion)


def test_joints_keep_their_limits(watched):
    assert share_of([excess_deg(motion) > 1.0 for motion in watched]) < 0.01


def test_elbows_and_knees_are_hinges(watched):
    for motion in watched:
        for side, bone in itertools.product("lr", ("forearm", "shank")):
            assert np.abs(motion.rotvec(f"{side}_{bone}")[:, 1:]).max() < 1e-9


def test_limbs_are_seldom_inside_one_another(watched):
    assert share_of([depth_mm(motion) > 25.0 for motion in watched]) < 0.01


def test_planted_feet_do_not_slide(watched):
    for motion in watched:
        drift = drift_mm(motion)
        assert len(drift) > 50, motion.action
        assert np.median(drift) < 1.0
        assert drift.max() < 5.0, motion.action


def test_nothing_sinks_into_the_floor(watched):
    lows = [motion.skin(20)[..., 2].min(axis=1) for motion in watched]
    assert share_of([low < -10.0 for low in lows]) < 0.02
    assert min(low.min() for low in lows) > -30.0


def test_somebody_who_walks_always_has_a_foot_on_the_floor(body):
    motion = Watched(body, "Walking", 1, seed=3, num_frames=300)
    lows = []
    for side in "lr":
        toe = motion.at[f"{side}_toe"][:, 2] - body.ankle_height_mm - body.landmarks_mm["l_toe"][2]
        lows.append(np.minimum(toe, motion.at[f"{side}_foot"][:, 2] - body.ankle_height_mm))
    assert np.minimum(*lows).max() < 35.0  # a heel or a tip of toes may be the lowest point
    swings = [(low > 20.0).sum() for low in lows]
    assert min(swings) > 30  # and both feet swing


def test_walking_covers_ground_and_turns_to_all_sides(body):
    motion = Watched(body, "Walking", 2, seed=0, num_frames=800)
    pelvis = motion.at["pelvis"][:, :2]
    speed = speeds_mm_per_frame(pelvis) * 50.0
    assert 500.0 < np.median(speed) < 1500.0
    facing = motion.turn["pelvis"].apply([0.0, -1.0, 0.0])
    octants = np.unique(np.round(np.arctan2(facing[:, 1], facing[:, 0]) / (np.pi / 4)) % 8)
    assert len(octants) >= 6
    # People walk where they face.
    way = np.gradient(pelvis, axis=0)
    ahead = (way * facing[:, :2]).sum(axis=1) / np.maximum(np.linalg.norm(way, axis=1), 1e-9)
    assert np.median(ahead) > 0.9


def test_arms_swing_against_the_legs(body):
    motion = Watched(body, "Walking", 1, seed=5, num_frames=500)
    facing = motion.turn["pelvis"].apply([0.0, -1.0, 0.0]) * [1.0, 1.0, 0.0]
    ahead = {
        name: ((motion.at[f"l_{name}"] - motion.at[f"r_{name}"]) * facing).sum(axis=1)
        for name in ("hand", "foot")
    }
    assert np.corrcoef(ahead["hand"], ahead["foot"])[0, 1] < -0.6


def test_those_who_sit_touch_their_seat(body):
    motion = Watched(body, "Sitting", 2, seed=1, num_frames=600)
    seat = motion.motion.seat
    assert seat is not None
    sits = motion.at["pelvis"][:, 2] < seat.size_mm[2] + 130.0
    assert sits.mean() > 0.5
    c, s = np.cos(seat.heading_rad), np.sin(seat.heading_rad)
    pelvis = (motion.at["pelvis"][:, :2] - seat.centre_mm) @ np.array([[c, -s], [s, c]])
    assert (np.abs(pelvis[sits]) <= seat.size_mm[:2] / 2).all()
    facing = motion.turn["pelvis"].apply([0.0, -1.0, 0.0])[sits]
    assert (facing[:, :2] @ [s, -c]).min() > 0.7
    weights = body.model.weights[:, [body.index["pelvis"], body.index["l_hip_twist"]]]
    skin = motion.skin(10)[:, weights.sum(axis=1) > 0.7, 2].min(axis=1)
    over = skin[sits[::10]] - seat.size_mm[2]
    assert np.median(np.abs(over)) < 22.0  # flesh gives way


@pytest.mark.long
def test_somebody_who_sits_down_on_the_floor_gets_up_again(body):
    motion = Watched(body, "SittingDown", 1, seed=0, num_frames=3000)
    height = motion.at["pelvis"][:, 2]
    sits = np.flatnonzero(height < 160.0)
    assert len(sits)
    assert height[sits[0] :].max() > 800.0


def test_a_phone_is_held_to_the_head(body):
    motion = Watched(body, "Phoning", 1, seed=0, num_frames=400)
    gaps = [np.linalg.norm(motion.at[f"{s}_hand"] - motion.at["head"], axis=1) for s in "lr"]
    assert (np.minimum(*gaps) < 230.0).mean() > 0.9


def test_motion_follows_from_the_generator_and_takes_differ(body):
    def joints(seed, take):
        rng = np.random.default_rng(seed)
        motion = draw_motion(body, "Greeting", take, rng=rng, num_frames=120)
        return body.joints_mm(body.pose_frames(motion.local, motion.root_mm))

    first = joints(1, 1)
    np.testing.assert_array_equal(first, joints(1, 1))
    for other in (joints(2, 1), joints(1, 2)):
        relative = (first - first[:, :1]) - (other - other[:, :1])
        assert np.linalg.norm(relative, axis=-1).mean() > 50.0


def test_all_cameras_see_people_whole(watched):
    for motion, name in itertools.product(watched, HUMAN36M_CAMERA_NAMES):
        camera, (width, height) = subject_camera(1, name), IMAGE_SIZES_PX[1, name]
        points = np.stack([motion.at[n] for n in ("head_top", "l_hand", "r_hand")], axis=1)
        feet = np.stack([motion.at[n] for n in ("l_toe", "r_toe", "pelvis")], axis=1)
        points = torch.from_numpy(np.concatenate([points, feet], axis=1))
        image_px = camera.camera_to_image(camera.world_to_camera(points)).numpy()
        inside = (image_px > 0) & (image_px < [width, height])
        assert inside.all(axis=(1, 2)).mean() > 0.98, (motion.action, name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Dancing", 1, 10), "unknown action 'Dancing'"),
        (("Walking", 3, 10), "a take is 1 or 2, got 3"),
        (("Walking", 1, 0), "at least 1 frame, got num_frames=0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(body, arguments, message):
    action, take, num_frames = arguments
    with pytest.raises(ValueError, match=message):
        draw_motion(body, action, take, rng=np.random.default_rng(0), num_frames=num_frames)


@pytest.mark.long
def test_all_actions_and_takes_keep_the_laws(model):
    shapes = [{"gender": 0.1, "height": 0.3}, {"gender": 0.9, "height": 0.8, "weight": 0.6}]
    bodies = [Body(model, **shape) for shape in shapes]
    excess, deep, drift = [], [], []
    for i, (action, take) in enumerate(itertools.product(ACTIONS, (1, 2))):
        motion = Watched(bodies[i % 2], action, take, seed=i, num_frames=1500)
        check_speeds(motion)
        excess.append(excess_deg(motion) > 1.0)
        deep.append(depth_mm(motion) > 25.0)
        drift.append(drift_mm(motion))
        assert excess[-1].mean() < 0.03, (action, take)
        assert deep[-1].mean() < 0.03, (action, take)
        assert drift[-1].max() < 5.0, (action, take)
    assert share_of(excess) < 0.01
    assert share_of(deep) < 0.01
    assert np.median(np.concatenate(drift)) < 1.0
