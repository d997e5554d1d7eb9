"""Visibility against rays that are cast through every triangle."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.synthetic.body import load_body_model
from data_prep.synthetic.furniture import block, join
from data_prep.synthetic.raster import rasterise
from data_prep.synthetic.renderers import open_renderer
from data_prep.synthetic.scene import Studio
from data_prep.synthetic.visibility import FLESH_MM, OWN_BONES, Sight
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES
from pose3d.geometry.skeleton import HUMAN36M_17

NAMES = HUMAN36M_17.joint_names
WALK = (6, "Walking", 1)


@pytest.fixture(scope="module")
def studio():
    return Studio(4, crop_size_px=256, margin=1.84, renderer=open_renderer("numpy"))


def first_hit(origin, towards, triangles):
    """Number of the first triangle on a segment and the place along it (0 to 1), else -1, inf.

    Source: Möller and Trumbore, 1997.
    """
    direction = towards - origin
    edge1, edge2 = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    across = np.cross(direction, edge2)
    determinant = (edge1 * across).sum(1)
    inverse = np.divide(1.0, determinant, where=np.abs(determinant) > 1e-9, out=0 * determinant)
    offset = origin - triangles[:, 0]
    u = inverse * (offset * across).sum(1)
    turned = np.cross(offset, edge1)
    v = inverse * (turned @ direction)
    t = inverse * (edge2 * turned).sum(1)
    hit = (inverse != 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (t < 1)
    if not hit.any():
        return -1, np.inf
    nearest = np.flatnonzero(hit)[np.argmin(t[hit])]
    return nearest, t[nearest]


def seen_by_rays(shot, take):
    """Both parts of the definition of visibility, with a ray from the camera to each joint.

    Returns:
        Whether what is seen is the joint's own flesh, and whether it is as near as that.
    """
    model = take.body.model
    pieces = [*take.furniture, *([take.seat] if take.seat else [])]
    furniture = join(pieces)
    body = shot.vertices_world_mm[model.faces]
    triangles = np.concatenate([body, furniture.vertices_mm[furniture.faces]])
    bones = np.array(model.bone_names)[model.weights[model.faces].sum(axis=1).argmax(axis=1)]
    camera = shot.camera.centre_world_mm.numpy()
    rotation = shot.camera.rotation.numpy()
    is_own, is_near = [], []
    for name, joint in zip(NAMES, shot.joints_camera_mm @ rotation + camera, strict=True):
        triangle, place = first_hit(camera, joint, triangles)
        depth = ((joint - camera) @ rotation.T)[2]
        kind, side = name.removeprefix("L_").removeprefix("R_"), name[0].lower()
        own = {bone.replace("*", side) for bone in OWN_BONES[kind]}
        bone = bones[triangle] if triangle < len(body) else "furniture"
        is_bone = bone in own or bone.removeprefix("l_").removeprefix("r_") in own
        is_own.append(triangle < 0 or is_bone)
        is_near.append(triangle < 0 or (1 - place) * depth < FLESH_MM[kind])
    return np.array(is_own), np.array(is_near)


@pytest.mark.parametrize("key", [WALK, (5, "Sitting", 1), (11, "SittingDown", 2)])
def test_visibility_is_what_rays_find(studio, key):
    take = studio.take(*key, num_frames=60)
    expected, found = [], []
    for number, camera in enumerate(HUMAN36M_CAMERA_NAMES):
        for frame in (5 + number, 45 + number):
            shot = studio.shoot(take, camera, frame)
            is_own, is_near = seen_by_rays(shot, take)
            expected.append(is_own & is_near)
            found.append(shot.visibility.astype(bool))
    agreement = np.equal(expected, found)
    assert agreement.mean() >= 0.96  # the buffer's samples beside the ray decide at edges
    assert 0.3 < np.mean(found) < 1.0


@pytest.mark.parametrize(
    ("bone", "seen"),
    [
        ("l_hand", {"L_Wrist"}),
        ("chest", {"Torso", "Neck", "L_Shoulder", "R_Shoulder"}),
        ("r_thigh", {"Pelvis", "R_Hip", "R_Knee"}),
        ("head", {"Head", "Nose", "Neck"}),
        (None, set()),  # a seat
    ],
)
def test_near_skin_shows_the_joints_of_its_own_bone_alone(bone, seen):
    """All joints lie 50 mm behind one large triangle, which follows one bone."""
    names = load_body_model().bone_names
    corners = np.array([[[-100.0, -100.0], [300.0, -100.0], [-100.0, 300.0]]])
    number = np.array([-1 if bone is None else names.index(bone)])
    free = np.full(17, np.inf)

    def visible(depth_mm, before_mm=free):
        tile = rasterise(
            open_renderer("numpy"), corners, np.full((1, 3), depth_mm), width_px=64, height_px=64
        )
        places = np.full((17, 2), 30.0)
        found = Sight(names).seen(tile, number, places, np.full(17, 3000.0), before_mm)
        return {name for name, is_seen in zip(NAMES, found, strict=True) if is_seen}

    assert visible(2950.0) == seen
    assert visible(2700.0) == set()  # too far before them to be their flesh
    assert visible(2950.0, before_mm=np.full(17, 2900.0)) == set()
    assert visible(2950.0, before_mm=np.full(17, 3100.0)) == seen


def test_a_board_before_the_person_hides_all_that_is_behind_it(studio):
    take = replace(studio.take(*WALK, num_frames=60), furniture=(), seat=None)
    name = HUMAN36M_CAMERA_NAMES[0]
    joints = take.joints_mm[30]
    camera = take.cameras[name].centre_world_mm.numpy()
    place = joints[0, :2] + 0.5 * (camera[:2] - joints[0, :2])
    turn = np.arctan2(*(camera[:2] - joints[0, :2])[::-1]) + np.pi / 2
    free = studio.shoot(take, name, 30)

    def visible_behind(height_mm):
        board = block((-1500.0, -10.0, 0.0), (1500.0, 10.0, height_mm)).placed(place, float(turn))
        return studio.shoot(replace(take, furniture=(board,)), name, 30).visibility

    assert free.visibility.sum() >= 8
    assert not visible_behind(2500.0).any()
    # A board half as far, h high, hides what lies below the line from the camera over its edge.
    height = 1300.0
    edge = camera[2] + (height - camera[2]) * 2.0
    half = visible_behind(height)
    clearly = np.abs(joints[:, 2] - edge) > 100
    np.testing.assert_array_equal(half[clearly], (free.visibility * (joints[:, 2] > edge))[clearly])
    assert 0 < half.sum() < free.visibility.sum()
    behind = block((-1500.0, -10.0, 0.0), (1500.0, 10.0, 2500.0))
    far = behind.placed(joints[0, :2] - 0.3 * (camera[:2] - joints[0, :2]), float(turn))
    shot = studio.shoot(replace(take, furniture=(far,)), name, 30)
    np.testing.assert_array_equal(shot.visibility, free.visibility)


def test_from_the_side_the_far_limbs_are_hidden_by_the_near(studio):
    """Over a walk seen from all around, who shows the left side hides more joints of the right."""
    take = replace(studio.take(*WALK, num_frames=60), furniture=(), seat=None)
    left = [i for i, name in enumerate(NAMES) if name.startswith("L_")]
    right = [NAMES.index(NAMES[i].replace("L_", "R_")) for i in left]
    num_near = num_far = 0
    for camera in HUMAN36M_CAMERA_NAMES:
        for frame in range(0, 60, 12):
            shot = studio.shoot(take, camera, frame)
            nearer = shot.joints_camera_mm[right, 2].mean() - shot.joints_camera_mm[left, 2].mean()
            if abs(nearer) > 120:
                near, far = (left, right) if nearer > 0 else (right, left)
                num_near += int(shot.visibility[near].sum())
                num_far += int(shot.visibility[far].sum())
    assert num_near > 1.3 * num_far > 0


def test_thickness_of_flesh_covers_the_distance_to_the_skin_across_the_limb(studio):
    """Rays outward from the joints of a standing body, front and back, without clothes."""
    body = studio.take(*WALK, num_frames=60).body
    skeleton = body.pose({}, np.zeros(3))
    vertices, joints = body.skin(skeleton), body.joints_mm(skeleton)
    triangles = vertices[body.model.faces]
    for name, joint in zip(NAMES, joints, strict=True):
        distances = []
        for direction in ([0, -1, 0], [0, 1, 0]):
            _, place = first_hit(joint, joint + 400.0 * np.array(direction), triangles)
            distances.append(400.0 * place)
        thickness = FLESH_MM[name.removeprefix("L_").removeprefix("R_")]
        assert 0.9 * min(distances) < thickness
        assert max(d for d in distances if d < 300) < thickness + 15, name
