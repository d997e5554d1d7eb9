"""One take: a body in motion, what it wears, the room it is in, light and cameras.

Everything but the pose stays as it is for the whole take. What a take holds follows from the seed,
the subject, the action, the take's number and its number of frames.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from data_prep.human36m_cameras import IMAGE_SIZES_PX, subject_camera
from data_prep.synthetic.body import Body, BodyModel, PosedSkeletons
from data_prep.synthetic.develop import Exposure, draw_exposure
from data_prep.synthetic.furniture import Piece, draw_piece, seat_piece
from data_prep.synthetic.lighting import Light, draw_light
from data_prep.synthetic.motion import Motion
from data_prep.synthetic.performances import Motions
from data_prep.synthetic.rooms import Painter, Room
from data_prep.synthetic.subjects import draw_phenotypes
from data_prep.synthetic.surface import BodySurface
from data_prep.synthetic.wardrobe import Look, draw_look
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera

FRAME_RIM_PX = 12.0
NEAREST_PERSON_MM = 1500.0
CLEARANCE_MM = 700.0
"""Least distance of furniture from where the pelvis goes."""
CAMERA_CLEARANCE_MM = 1300.0
OCCLUDED_SHARE = 0.4
"""Share of takes with furniture between cameras and the person."""
NUM_OCCLUDERS = 4
NEAREST_FURNITURE_MM = 900.0
MOST_HIDDEN = 0.4
"""Largest share of the joints that one piece may hide from a camera over a take."""
JITTER_RAD = np.deg2rad(0.7)
JITTER_MM = 25.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Take:
    """A sequence that cameras can look at."""

    subject: int
    action: str
    number: int
    body: Body
    motion: Motion
    skeletons: PosedSkeletons
    joints_mm: Float[np.ndarray, "frames 17 3"]
    cameras: Mapping[str, Camera]
    fits: Mapping[str, Bool[np.ndarray, " frames"]]
    """By camera, frames in which all joints lie well inside the image."""
    look: Look
    light: Light
    room: Room
    seat: Piece | None
    furniture: tuple[Piece, ...]
    exposures: Mapping[str, Exposure]

    @property
    def num_frames(self) -> int:
        """How many frames there are."""
        return len(self.joints_mm)

    @property
    def fits_all(self) -> Bool[np.ndarray, " frames"]:
        """Frames in which every camera sees the whole person."""
        return np.all(list(self.fits.values()), axis=0)


class Stage:
    """Prepares takes.

    Args:
        seed: Everything follows from it.
        model: The body model.
        surface: Its surface.
        motions: Where motion comes from.
        has_jitter: Whether cameras are moved a little, anew for each take.
    """

    def __init__(
        self,
        seed: int,
        *,
        model: BodyModel,
        surface: BodySurface,
        motions: Motions,
        has_jitter: bool,
    ) -> None:
        self._seed = seed
        self._model = model
        self._surface = surface
        self._motions = motions
        self._has_jitter = has_jitter
        self._painter = Painter(seed)

    def prepare(self, subject: int, action: str, number: int, *, num_frames: int) -> Take:
        """Prepare a take.

        Raises:
            ValueError: If there is no such subject, or no motion for the action.
        """

        def rng(purpose: str) -> np.random.Generator:
            # One stream each, so that a change of one thing leaves the others as they were.
            texts = (zlib.crc32(text.encode()) for text in (action, purpose))
            return np.random.default_rng((self._seed, subject, number, *texts))

        phenotypes = draw_phenotypes(subject, rng("body"))
        body = Body(self._model, **phenotypes)
        motion = self._motions.motion(
            body, subject, action, number, rng=rng("motion"), num_frames=num_frames
        )
        look = draw_look(rng("look"), femininity=phenotypes["gender"])
        body.rest_vertices_mm = self._surface.room_for_clothes(body.rest_vertices_mm, look)
        skeletons = body.pose_frames(motion.local, motion.root_mm)
        joints = body.joints_mm(skeletons)
        jitter = rng("jitter") if self._has_jitter else None
        cameras = {name: _camera(subject, name, jitter) for name in HUMAN36M_CAMERA_NAMES}
        room = self._painter.paint(rng("room"))
        exposure = rng("exposure")
        return Take(
            subject=subject,
            action=action,
            number=number,
            body=body,
            motion=motion,
            skeletons=skeletons,
            joints_mm=joints,
            cameras=cameras,
            fits={
                name: _fits(joints, camera, IMAGE_SIZES_PX[subject, name])
                for name, camera in cameras.items()
            },
            look=look,
            light=draw_light(rng("light")),
            room=room,
            seat=None if motion.seat is None else seat_piece(motion.seat, rng("seat")),
            furniture=_furnish(room, joints, cameras, rng("furniture")),
            exposures={name: draw_exposure(exposure) for name in HUMAN36M_CAMERA_NAMES},
        )


def _camera(subject: int, name: str, rng: np.random.Generator | None) -> Camera:
    """A camera as it stood for a subject, or near there."""
    camera = subject_camera(subject, name)
    if rng is None:
        return camera
    turn = Rotation.from_rotvec(rng.normal(0.0, JITTER_RAD, size=3)).as_matrix()
    shift = torch.from_numpy(rng.normal(0.0, JITTER_MM, size=3))
    return replace(
        camera,
        rotation=torch.from_numpy(turn) @ camera.rotation,
        centre_world_mm=camera.centre_world_mm + shift,
    )


def _fits(
    joints_mm: Float[np.ndarray, "frames 17 3"], camera: Camera, image_size_px: tuple[int, int]
) -> Bool[np.ndarray, " frames"]:
    """Frames in which the whole person is seen, flesh included, and not too near."""
    seen = camera.world_to_camera(torch.from_numpy(joints_mm.reshape(-1, 3)))
    depth = seen[:, 2].numpy().reshape(joints_mm.shape[:2])
    is_before = depth.min(axis=1) > NEAREST_PERSON_MM
    seen[:, 2] = seen[:, 2].clamp(min=NEAREST_PERSON_MM)
    image = camera.camera_to_image(seen).numpy().reshape(*joints_mm.shape[:2], 2)
    low, high = image.min(axis=1), image.max(axis=1)
    rim = FRAME_RIM_PX + 0.06 * (high - low).max(axis=1, keepdims=True)
    is_inside = (low > rim).all(axis=1) & (high < np.array(image_size_px) - rim).all(axis=1)
    return is_before & is_inside


def _furnish(
    room: Room,
    joints_mm: Float[np.ndarray, "frames 17 3"],
    cameras: Mapping[str, Camera],
    rng: np.random.Generator,
) -> tuple[Piece, ...]:
    """Furniture along the walls, and in some takes between a camera and the person."""
    path = joints_mm[:, 0, :2]
    centres = np.stack([camera.centre_world_mm[:2].numpy() for camera in cameras.values()])
    drawn: list[tuple[Piece, np.ndarray, float]] = []
    if room.noise is None:
        for _ in range(int(rng.integers(0, 6))):
            place = rng.uniform(room.low_mm + 500.0, room.high_mm - 500.0)
            axis, end = rng.integers(0, 2, size=2)
            wall = (room.low_mm if end else room.high_mm)[axis]
            place[axis] = wall + rng.uniform(400.0, 1500.0) * (1 if end else -1)
            drawn.append((draw_piece(rng), place, 0.0))
    if rng.random() < OCCLUDED_SHARE:
        for _ in range(NUM_OCCLUDERS):  # not all find a place
            camera = centres[int(rng.integers(len(centres)))]
            start = path[int(rng.integers(len(path)))]
            place = start + rng.uniform(0.25, 0.65) * (camera - start) + rng.normal(0.0, 250.0, 2)
            drawn.append((draw_piece(rng, low=True), place, MOST_HIDDEN))
    turns = rng.uniform(0.0, 2.0 * np.pi, size=len(drawn))
    placed = []
    for (shape, place, most_hidden), turn in zip(drawn, turns, strict=True):
        piece = shape.placed(place, float(turn))
        radius = float(np.linalg.norm(shape.vertices_mm[:, :2], axis=1).max())
        is_clear = np.linalg.norm(path - place, axis=1).min() > CLEARANCE_MM + radius
        is_clear &= np.linalg.norm(centres - place, axis=1).min() > CAMERA_CLEARANCE_MM + radius
        if is_clear and _hidden_share(piece, joints_mm, cameras) <= most_hidden:
            placed.append(piece)
    return tuple(placed)


def _hidden_share(
    piece: Piece, joints_mm: Float[np.ndarray, "frames 17 3"], cameras: Mapping[str, Camera]
) -> float:
    """Share of the joints that lie behind the box around a piece, in the camera with the most."""
    sampled = np.linspace(0, len(joints_mm) - 1, min(len(joints_mm), 16)).astype(int)
    points = torch.from_numpy(joints_mm[sampled].reshape(-1, 3))
    corners = torch.from_numpy(piece.vertices_mm)
    shares = []
    for camera in cameras.values():
        joints, box = camera.world_to_camera(points), camera.world_to_camera(corners)
        if -1000.0 < float(box[:, 2].min()) < NEAREST_FURNITURE_MM:
            return 1.0  # beside the camera, perhaps before its lens
        # Straight rays do: the lens bends both alike.
        rays = joints[:, :2] / joints[:, 2:].clamp(min=1.0)
        sides = box[:, :2] / box[:, 2:].clamp(min=100.0)
        within = ((rays > sides.amin(0)) & (rays < sides.amax(0))).all(dim=1)
        behind = (joints[:, 2] > box[:, 2].min()) & (box[:, 2].max() > 0)
        shares.append(float((within & behind).double().mean()))
    return max(shares)
