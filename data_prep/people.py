"""Takes become annotated people: lens, shifted sequences, plausible joints.

What holds for every layout, whatever its files look like.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from data_prep.bones import bone_lengths_mm
from data_prep.boxes import person_squares
from data_prep.conventions import share_in_view
from data_prep.human36m import SHIFT_MM
from data_prep.takes import Take
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera, human36m_intrinsics
from pose3d.geometry.skeleton import Skeleton, skeleton_by_name

LENSES = ("source", "distorted", "pinhole")
MAX_BONE_MM = 800.0
HUMAN36M_IMAGE_SIZES = ((1000, 1000), (1000, 1002))
NOMINAL_DEPTH_MM = 5000.0
NOMINAL_FOCAL_PX = 1500.0


@dataclass(frozen=True, kw_only=True, eq=False)
class People:
    """The people of a take, ready to be cut out; n frames.

    Attributes:
        take: The take, with its final camera and joints.
        image_px: Joints in the full image, pixels; NaN for a frame whose labels cannot be used.
        weight: As `Take.weight`, 0 for implausible joints.
        visibility: 1 where a joint lies in the image and is not known to be hidden or wrong.
        square_box_px: Nominal person squares: centre x, centre y, side, pixels.
        faults: Why a frame cannot be used, by position.
        implausible: How often each joint was found implausible, by name.
    """

    take: Take
    image_px: Float[np.ndarray, "n joints 2"]
    weight: Float[np.ndarray, "n joints 3"]
    visibility: Bool[np.ndarray, "n joints"]
    square_box_px: Float[np.ndarray, "n 3"]
    faults: dict[int, str]
    implausible: Counter[str]


def people_of(
    take: Take, *, box: str, enlarge: float, lens: str = "source", is_shifted: bool = False
) -> People:
    """Complete the labels of a take.

    Args:
        take: As its reader yields it.
        box: One of `data_prep.boxes.BOXES`.
        enlarge: Factor on the side of that box's square.
        lens: "source" leaves the camera as the layout has it; "distorted" gives it the lens of
            Human3.6M's camera of that name, so that labels sit on the pixels; "pinhole" takes the
            distortion away, as PoseNet and RLE have it: labels and back-projection agree with each
            other, and both miss the pixels near the image's edges by up to 16 px.
        is_shifted: Correct Human3.6M's 200 mm shift along the world's x axis.

    Raises:
        ValueError: If the lens is asked of a camera that is not Human3.6M's.
    """
    take = replace(take, camera=with_lens(take.camera, take.camera_name, lens=lens))
    if is_shifted:
        take = without_shift(take)
    skeleton = skeleton_by_name(take.skeleton)
    joints = take.joints_camera_mm
    weight = np.ones((*joints.shape[:2], 3)) if take.weight is None else take.weight
    labelled = np.any(weight > 0, axis=-1)
    faults = _label_faults(joints, labelled, skeleton)
    sound = np.array([row not in faults for row in range(len(take))], bool)
    image_px = project(take, sound)
    has_depth = weight[..., 2] > 0
    plausible = np.ones(joints.shape[:2], bool)
    implausible: Counter[str] = Counter()
    has_long_bone = (bone_lengths_mm(joints, has_depth, skeleton) > MAX_BONE_MM).any(1)
    for row in np.flatnonzero(sound & has_long_bone):
        plausible[row] = plausible_joints(joints[row], skeleton, counted=has_depth[row])
        implausible.update(skeleton.joint_names[j] for j in np.flatnonzero(~plausible[row]))
    size = take.image_size_px[:, None]
    inside = ((image_px >= -0.5) & (image_px < size - 0.5)).all(-1)
    seen = np.ones_like(inside) if take.visibility is None else take.visibility > 0
    usable = plausible & labelled
    squares, box_faults = person_squares(
        take, image_px, usable, sound, skeleton, box=box, enlarge=enlarge, plausible=plausible
    )
    return People(
        take=take,
        image_px=image_px,
        weight=weight * plausible[..., None],
        visibility=inside & usable & seen,
        square_box_px=squares,
        faults={**box_faults, **faults},
        implausible=implausible,
    )


def project(take: Take, sound: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "n joints 2"]:
    """Joints in the full image, pixels; NaN for rows that are not sound."""
    image_px = np.full((*take.joints_camera_mm.shape[:2], 2), np.nan)
    if sound.any():
        camera = take.camera
        if camera.batch_shape:
            camera = camera[torch.from_numpy(np.flatnonzero(sound))]
        joints = torch.from_numpy(np.asarray(take.joints_camera_mm[sound], np.float64))
        image_px[sound] = camera.camera_to_image(joints).numpy()
    return image_px


def _label_faults(
    joints_mm: Float[np.ndarray, "n joints 3"],
    labelled: Bool[np.ndarray, "n joints"],
    skeleton: Skeleton,
) -> dict[int, str]:
    """Frames whose joints are not finite, not in front of the camera, or all without weight."""
    faults = {}
    is_finite = np.isfinite(joints_mm).all(-1)
    is_behind = ~(np.nan_to_num(joints_mm[..., 2], nan=1.0) > 0)
    for row in np.flatnonzero(~is_finite.all(1) | is_behind.any(1) | ~labelled.any(1)):
        bad = np.flatnonzero(~is_finite[row])
        if len(bad):
            names = ", ".join(skeleton.joint_names[j] for j in bad)
            faults[int(row)] = f"the position of {names} is not finite"
        elif is_behind[row].any():
            depth_mm = joints_mm[row, :, 2].min()
            faults[int(row)] = (
                f"a joint has depth {depth_mm:.0f} mm (behind the camera); camera and joints must "
                "belong together, in millimetres"
            )
        else:
            faults[int(row)] = "no joint is labelled"
    return faults


def with_lens(camera: Camera, name: str, *, lens: str) -> Camera:
    """The camera with the lens that is asked for, see `people_of`.

    Raises:
        ValueError: If the lens is unknown, or distortion is asked of a camera that is not
            Human3.6M's.
    """
    match lens:
        case "source":
            return camera
        case "pinhole":
            return camera.without_distortion()
        case "distorted":
            if name not in HUMAN36M_CAMERA_NAMES:
                raise ValueError(
                    f"--lens distorted knows Human3.6M's cameras only, not {name}; "
                    "leave --lens source"
                )
            known = human36m_intrinsics(name)
            return replace(
                camera,
                radial=known.radial.expand_as(camera.radial).clone(),
                tangential=known.tangential.expand_as(camera.tangential).clone(),
            )
        case _:
            raise ValueError(f"lens must be one of {', '.join(LENSES)}, got {lens!r}")


def without_shift(take: Take) -> Take:
    """Take Human3.6M's shift off the joints of a take, and move its boxes along.

    A box moves with the projection of the root and shrinks as the root's depth grows.
    """
    root = skeleton_by_name(take.skeleton).root
    turned = take.camera.rotation.numpy() @ np.array(SHIFT_MM)
    moved = replace(take, joints_camera_mm=take.joints_camera_mm - turned[..., None, :])
    if take.box_xywh_px is None:
        return moved
    everything = np.ones(len(take), bool)
    before, after = (project(t, everything)[:, root] for t in (take, moved))
    zoom = take.joints_camera_mm[:, root, 2] / moved.joints_camera_mm[:, root, 2]
    size = take.box_xywh_px[:, 2:]
    centre = take.box_xywh_px[:, :2] + size / 2
    centre = after + (centre - before) * zoom[:, None]
    size = size * zoom[:, None]
    return replace(moved, box_xywh_px=np.concatenate([centre - size / 2, size], axis=1))


def plausible_joints(
    joints_mm: Float[np.ndarray, "joints 3"],
    skeleton: Skeleton,
    *,
    counted: Bool[np.ndarray, " joints"],
) -> Bool[np.ndarray, " joints"]:
    """Joints that no bone longer than `MAX_BONE_MM` speaks against.

    A wrongly reconstructed joint makes all its bones long: the joint with the most long bones is
    taken out (of several, the one furthest from the root), until no long bone is left.

    Args:
        joints_mm: Joints, millimetres.
        skeleton: Their joint set.
        counted: Joints whose depth is known; bones of others say nothing.
    """
    lengths_mm = bone_lengths_mm(joints_mm[None], counted[None], skeleton)[0]
    long = [skeleton.bones[bone] for bone in np.flatnonzero(lengths_mm > MAX_BONE_MM)]
    plausible = np.ones(len(joints_mm), bool)
    while long:
        counts = np.bincount(np.ravel(long), minlength=len(joints_mm))
        candidates = np.flatnonzero(counts == counts.max()).tolist()
        joint = max(candidates, key=lambda j: _bones_to_root(j, skeleton))
        plausible[joint] = False
        long = [bone for bone in long if joint not in bone]
    return plausible


def _bones_to_root(joint: int, skeleton: Skeleton) -> int:
    """Number of bones between a joint and the root."""
    parent = skeleton.parents[joint]
    return 0 if parent < 0 else 1 + _bones_to_root(parent, skeleton)


def decide_translation(
    rotation: Float[np.ndarray, "n 3 3"],
    translation_mm: Float[np.ndarray, "n 3"],
    focal_px: Float[np.ndarray, "n 2"],
    principal_point_px: Float[np.ndarray, "n 2"],
    joints_world_mm: Float[np.ndarray, "n joints 3"],
    image_size_px: Int[np.ndarray, "n 2"],
    *,
    asked: str,
    name: str,
) -> tuple[str, str]:
    """Whether a camera's t is its centre C ("centre") or −R·C ("minus-rc").

    Args:
        rotation: Camera from world.
        translation_mm: t, millimetres.
        focal_px: Pixels.
        principal_point_px: Pixels.
        joints_world_mm: Millimetres.
        image_size_px: Width and height.
        asked: "centre", "minus-rc", or "auto" for the reading that puts people before the cameras
            and into their images; the centre wins a tie.
        name: What t is called in the source, for messages.

    Returns:
        The reading, and a sentence that says why.

    Raises:
        ValueError: If "auto" is asked and neither reading puts most people into their images.
    """
    if asked not in ("auto", "centre", "minus-rc"):
        raise ValueError(f"translation must be auto, centre or minus-rc, got {asked!r}")
    if asked != "auto" or not len(rotation):
        return (asked if asked != "auto" else "centre"), f"{name} is read as asked for"
    turned = np.einsum("nij,nkj->nki", rotation, joints_world_mm)
    centred = np.einsum("nij,nkj->nki", rotation, joints_world_mm - translation_mm[:, None])
    lens = Camera.from_parameters(focal_px=focal_px, principal_point_px=principal_point_px)
    everything = np.ones(joints_world_mm.shape[:2], bool)
    share = {
        "centre": share_in_view(centred, lens, image_size_px, everything),
        "minus-rc": share_in_view(
            turned + translation_mm[:, None], lens, image_size_px, everything
        ),
    }
    best = max(share, key=lambda reading: share[reading])
    found = f"centre C: {share['centre']:.0%}, −R·C: {share['minus-rc']:.0%} of the people in view"
    if share[best] < 0.5:
        raise ValueError(
            f"no reading of {name} puts the people before the cameras and into the images "
            f"({found}); cameras and joints must belong together, in millimetres"
        )
    if best == "minus-rc":
        return best, f"{name} is read as −R·C, not as the camera's centre ({found})"
    return best, f"{name} is the camera's centre ({found})"


def check_millimetres(joints_mm: Float[np.ndarray, "n joints 3"], *, name: str) -> None:
    """Refuse joints in metres.

    Raises:
        ValueError: If most people are smaller than 100 mm.
    """
    if len(joints_mm):
        sizes_mm = np.ptp(joints_mm, axis=1).max(-1)
        if np.median(sizes_mm) < 100:
            raise ValueError(
                f"people are {np.median(sizes_mm):.3g} units large in {name}; expected millimetres"
            )


def camera_name_of(number: int, *, image_size_px: Sequence[int]) -> str:
    """Human3.6M's name for its cameras 1 to 4, told by the image's size; else ca_01 and so on."""
    size = (int(image_size_px[0]), int(image_size_px[1]))
    if size in HUMAN36M_IMAGE_SIZES and 1 <= number <= len(HUMAN36M_CAMERA_NAMES):
        return HUMAN36M_CAMERA_NAMES[number - 1]
    return f"ca_{number:02d}"


def flat_take_geometry(
    joints_px: Float[np.ndarray, "n joints 2"], image_size_px: Float[np.ndarray, "n 2"]
) -> tuple[Float[np.ndarray, "n joints 3"], Camera]:
    """Camera and joints for 2-D labels: a nominal camera, all joints in one plane.

    The plane lies 5000 mm before a pinhole camera of 1500 px whose axis meets the image's middle;
    the depths mean nothing and must get weight 0, while the projection is the label exactly.

    Args:
        joints_px: Joints in the full image, pixels.
        image_size_px: Width and height of each image.
    """
    point_px = (image_size_px - 1) / 2
    depth = np.full((*joints_px.shape[:2], 1), NOMINAL_DEPTH_MM)
    flat = (joints_px - point_px[:, None]) / NOMINAL_FOCAL_PX * NOMINAL_DEPTH_MM
    camera = Camera.from_parameters(
        focal_px=np.full((len(joints_px), 2), NOMINAL_FOCAL_PX), principal_point_px=point_px
    )
    return np.concatenate([flat, depth], axis=-1), camera
