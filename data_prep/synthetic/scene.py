"""One synthetic photograph: who does what where, lit and drawn in the store's crop, with labels."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from data_prep.synthetic.backdrop import Backdrop, draw_room_plan
from data_prep.synthetic.body import Body, load_body_model
from data_prep.synthetic.cameras import IMAGE_SIZES_PX, subject_camera
from data_prep.synthetic.furniture import seat_triangles
from data_prep.synthetic.lighting import (
    Light,
    draw_light,
    face_normals,
    is_front,
    shadow_mask,
    smooth_shade,
)
from data_prep.synthetic.poses import Pose, draw_pose
from data_prep.synthetic.renderers import Renderer, draw_triangles
from data_prep.synthetic.rotations import rotation_z
from data_prep.synthetic.slots import Slot, slot_of
from data_prep.synthetic.subjects import SUBJECTS, FaceRegions, face_colours
from pose3d.data.store import SPLITS
from pose3d.geometry.camera import Camera
from pose3d.geometry.crop import (
    box_from_joints,
    crop_from_image,
    invert_map,
    square_box,
    transform_points,
)

BOX_ENLARGE = 1.2
BOX_DEFINITION = "square around the 17 projected joints, its side 1.2 times the longer extent"

DEPTH_RANGE_MM = (3000.0, 6500.0)
AREA_HALF_MM = (1300.0, 1600.0)
FRAME_RIM_PX = 12.0
NEAREST_SHADOW_MM = 500.0
NUM_PLACEMENTS = 60
NUM_POSES = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """A drawn record before it is encoded."""

    slot: Slot
    image: UInt8[np.ndarray, "size size 3"]
    """The crop, RGB."""
    vertices_world_mm: Float[np.ndarray, "vertices 3"]
    joints_camera_mm: Float[np.ndarray, "17 3"]
    joints_store_px: Float[np.ndarray, "17 2"]
    camera: Camera
    store_from_image: Float[np.ndarray, "3 3"]
    box_image_px: Float[np.ndarray, "3"]
    pose: Pose


@dataclass(frozen=True, kw_only=True, eq=False)
class _Placed:
    """A posed person in the world."""

    vertices_mm: Float[np.ndarray, "vertices 3"]
    joints_mm: Float[np.ndarray, "17 3"]
    seat_mm: Float[np.ndarray, "triangles 3 3"]


class Studio:
    """Everything that records share, once per process.

    Args:
        seed: Every record follows from (seed, split, index) alone.
        crop_size_px: Side of the crops.
        margin: What a crop shows over the side of the person's square.
        renderer: Draws the triangles.
    """

    def __init__(self, seed: int, *, crop_size_px: int, margin: float, renderer: Renderer) -> None:
        self.seed = seed
        self.crop_size_px = crop_size_px
        self.margin = margin
        self._renderer = renderer
        self._model = load_body_model()
        self._regions = FaceRegions(self._model)
        self._bodies: dict[int, Body] = {}
        self._cameras: dict[tuple[int, str], Camera] = {}
        self._backdrop = Backdrop(seed)
        noise = np.random.default_rng((seed, 104729))
        side = crop_size_px + 128
        self._noise = noise.standard_normal((side, side, 3), dtype=np.float32)

    def body(self, subject: int) -> Body:
        """A subject's body."""
        if subject not in self._bodies:
            self._bodies[subject] = Body(self._model, **SUBJECTS[subject].phenotypes)
        return self._bodies[subject]

    def camera(self, subject: int, name: str) -> Camera:
        """A camera as it stood for a subject."""
        if (subject, name) not in self._cameras:
            self._cameras[subject, name] = subject_camera(subject, name)
        return self._cameras[subject, name]

    def shoot(self, split: str, index: int) -> Shot:
        """Draw one record.

        Args:
            split: "train" or "test".
            index: Number of the record in its split.
        """
        slot = slot_of(split, index)
        rng = np.random.default_rng((self.seed, SPLITS.index(split), index))
        camera = self.camera(slot.subject, slot.camera_name)
        pose, placed, square = self._draw_placed_pose(slot, rng)
        store_from_image = crop_from_image(
            square * torch.tensor([1.0, 1.0, self.margin]), crop_size_px=self.crop_size_px
        )
        image = self._draw(slot, placed, store_from_image, rng)
        joints_camera = camera.world_to_camera(torch.from_numpy(placed.joints_mm))
        joints_store = transform_points(store_from_image, camera.camera_to_image(joints_camera))
        return Shot(
            slot=slot,
            image=image,
            vertices_world_mm=placed.vertices_mm,
            joints_camera_mm=joints_camera.numpy(),
            joints_store_px=joints_store.numpy(),
            camera=camera,
            store_from_image=store_from_image.numpy(),
            box_image_px=square.numpy(),
            pose=pose,
        )

    def silhouette(self, shot: Shot) -> UInt8[np.ndarray, "size size"]:
        """How much of each pixel the person covers, without furniture; 255 = all."""
        store_from_image = torch.from_numpy(shot.store_from_image)
        pixels, depths = self._project(shot.camera, shot.vertices_world_mm, store_from_image)
        faces = self._model.faces
        white = np.full((len(faces), 3), 255, np.uint8)
        size = self.crop_size_px
        drawn, tile = draw_triangles(
            self._renderer, pixels[faces], depths[faces], white, size_px=size
        )
        coverage = np.zeros((size, size), np.uint8)
        coverage[tile] = drawn[..., 3]
        return coverage

    def _draw_placed_pose(
        self, slot: Slot, rng: np.random.Generator
    ) -> tuple[Pose, _Placed, torch.Tensor]:
        """Draw a pose and its place; where none is found, draw another pose."""
        for _ in range(NUM_POSES):
            pose = draw_pose(self.body(slot.subject), slot.action, rng=rng)
            found = self._place(slot, pose, rng)
            if found is not None:
                return pose, *found
        raise ValueError(
            f"{slot.split} record {slot.index}: none of {NUM_POSES} poses of {slot.action} fits "
            f"into the image of subject {slot.subject}'s camera {slot.camera_name}; choose "
            "another seed"
        )

    def _place(
        self, slot: Slot, pose: Pose, rng: np.random.Generator
    ) -> tuple[_Placed, torch.Tensor] | None:
        """Put the posed body on the floor where its camera sees all of it; with its square."""
        body, camera = self.body(slot.subject), self.camera(slot.subject, slot.camera_name)
        skeleton = body.pose(pose.local, np.zeros(3))
        vertices, joints = body.skin(skeleton), body.joints_mm(skeleton)
        lift = np.array([0.0, 0.0, -vertices[:, 2].min()])
        seat = np.zeros((0, 3, 3))
        if pose.sits_on_chair:
            height = float((vertices + lift)[self._seat_vertices, 2].min())
            seat = seat_triangles(max(height, 150.0), rng=rng)
        turn = rotation_z(rng.uniform(0.0, 2.0 * np.pi))
        vertices, joints = (vertices + lift) @ turn.T, (joints + lift) @ turn.T
        width, height_px = IMAGE_SIZES_PX[slot.subject, slot.camera_name]
        for attempt in range(NUM_PLACEMENTS):
            # From anywhere in the capture area, nearer to its middle where that does not fit.
            spread = np.array(AREA_HALF_MM) * (1.0 - attempt / NUM_PLACEMENTS)
            shift = np.append(rng.uniform(-spread, spread), 0.0)
            seen = camera.world_to_camera(torch.from_numpy(joints + shift))
            if not DEPTH_RANGE_MM[0] <= float(seen[0, 2]) <= DEPTH_RANGE_MM[1]:
                continue
            image_px = camera.camera_to_image(seen)
            low, high = image_px.min(0).values, image_px.max(0).values
            rim = FRAME_RIM_PX + 0.06 * float((high - low).max())
            limits = torch.tensor([width - rim, height_px - rim], dtype=torch.float64)
            if bool((low > rim).all() and (high < limits).all()):
                placed = _Placed(
                    vertices_mm=vertices + shift,
                    joints_mm=joints + shift,
                    seat_mm=seat @ turn.T + shift,
                )
                tight_box = box_from_joints(image_px, enlarge=1.0)
                return placed, square_box(tight_box, enlarge=BOX_ENLARGE)
        return None

    @property
    def _seat_vertices(self) -> np.ndarray:
        """Vertices of the mesh that a seat carries."""
        names = self._model.bone_names
        columns = [names.index(n) for n in ("pelvis", "l_hip_twist", "r_hip_twist")]
        return self._model.weights[:, columns].sum(axis=1) > 0.7

    def _project(
        self, camera: Camera, points_mm: np.ndarray, store_from_image: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Crop pixels and depths of world points, through the lens."""
        points = torch.from_numpy(np.ascontiguousarray(points_mm.reshape(-1, 3)))
        seen = camera.world_to_camera(points)
        pixels = transform_points(store_from_image, camera.camera_to_image(seen))
        shape = points_mm.shape[:-1]
        return pixels.numpy().reshape(*shape, 2), seen[:, 2].numpy().reshape(shape)

    def _draw(
        self,
        slot: Slot,
        placed: _Placed,
        store_from_image: torch.Tensor,
        rng: np.random.Generator,
    ) -> UInt8[np.ndarray, "size size 3"]:
        """Light and draw person, seat, shadow and room; develop the picture."""
        camera = self.camera(slot.subject, slot.camera_name)
        faces = self._model.faces
        light = draw_light(rng)
        colours = face_colours(self._regions, SUBJECTS[slot.subject], rng=rng)
        body_shade = smooth_shade(placed.vertices_mm, faces, light)
        corners_mm = placed.vertices_mm[faces]
        pixels, depths = self._project(camera, placed.vertices_mm, store_from_image)
        corners_px, corner_depths = pixels[faces], depths[faces]
        shaded = colours * body_shade[:, None] * light.tint
        seat = placed.seat_mm
        if len(seat):
            seat_px, seat_depths = self._project(camera, seat, store_from_image)
            corners_px = np.concatenate([corners_px, seat_px])
            corner_depths = np.concatenate([corner_depths, seat_depths])
            corners_mm = np.concatenate([corners_mm, seat])
            shade = light.shade(face_normals(seat))[:, None]
            seat_colour = rng.uniform(0.08, 0.7) * rng.uniform(0.75, 1.0, size=3)
            shaded = np.concatenate([shaded, shade * seat_colour * light.tint])
        rgb = np.clip(255.0 * shaded, 0.0, 255.0).astype(np.uint8)
        front = is_front(corners_px)
        drawn, tile = draw_triangles(
            self._renderer,
            corners_px[front],
            corner_depths[front],
            rgb[front],
            size_px=self.crop_size_px,
        )
        picture = self._background(camera, slot, corners_mm, light, store_from_image, rng)
        clear = 1.0 - drawn[..., 3:].astype(np.float32) / 255.0
        picture[tile] = picture[tile] * clear + drawn[..., :3]
        return self._develop(picture, slot, store_from_image, rng)

    def _background(
        self,
        camera: Camera,
        slot: Slot,
        corners_mm: np.ndarray,
        light: Light,
        store_from_image: torch.Tensor,
        rng: np.random.Generator,
    ) -> Float[np.ndarray, "size size 3"]:
        """The room, with the shadow of what stands on its floor."""
        image_from_store = invert_map(store_from_image).numpy()
        room = draw_room_plan(rng)
        picture, is_floor = self._backdrop.draw(
            room,
            camera,
            slot.camera_name,
            image_from_store=image_from_store,
            size=self.crop_size_px,
        )
        points = corners_mm.mean(axis=1)
        on_floor = points - points[:, 2:] / light.direction[2] * light.direction
        # A long shadow may reach behind the camera.
        depths = camera.world_to_camera(torch.from_numpy(on_floor))[:, 2].numpy()
        pixels, _ = self._project(camera, on_floor[depths > NEAREST_SHADOW_MM], store_from_image)
        mask = shadow_mask(pixels, self.crop_size_px)
        darkening = np.where(is_floor, mask, 0.0).astype(np.float32) * np.float32(light.strength)
        return picture * (light.tint.astype(np.float32) * (1.0 - darkening[..., None]))

    def _develop(
        self,
        picture: np.ndarray,
        slot: Slot,
        store_from_image: torch.Tensor,
        rng: np.random.Generator,
    ) -> UInt8[np.ndarray, "size size 3"]:
        """Exposure, gamma, softness and noise of a camera; black beyond the full image."""
        if rng.random() < 0.4:
            sigma = float(rng.uniform(0.3, 0.8))
            picture = cv2.GaussianBlur(picture, (0, 0), sigma)
        size = self.crop_size_px
        top, left = rng.integers(0, 128, size=2)
        grain = np.float32(rng.uniform(0.5, 5.0))
        picture = picture + grain * self._noise[top : top + size, left : left + size]
        levels = np.linspace(0.0, 1.0, 256)[:, None] ** rng.uniform(0.8, 1.25)
        levels = levels * rng.uniform(0.8, 1.15) * rng.normal(1.0, 0.04, size=3)
        table = np.clip(255.0 * levels, 0.0, 255.0).astype(np.uint8)
        developed = cv2.LUT(np.clip(picture, 0.0, 255.0).astype(np.uint8), table[None])
        scale, shift_x, shift_y = (float(store_from_image[i]) for i in ((0, 0), (0, 2), (1, 2)))
        width, height = IMAGE_SIZES_PX[slot.subject, slot.camera_name]
        for axis, (shift, extent) in enumerate(((shift_y, height), (shift_x, width))):
            place = (np.arange(size) - shift) / scale
            outside = (place < -0.5) | (place > extent - 0.5)
            developed[(slice(None),) * axis + (outside,)] = 0
        return developed
