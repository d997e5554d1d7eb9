"""A small look-alike of the annotation layout of the released RLE code."""

import json

import cv2
import numpy as np
import pytest

WIDTH, HEIGHT = 400, 300
STANDING_MM = np.array(
    [
        *([0, 0, 900], [-130, 0, 900], [-130, -20, 480], [-130, 30, 60]),
        *([130, 0, 900], [130, -20, 480], [130, 30, 60]),
        *([0, 10, 1130], [0, 0, 1400], [0, -60, 1500], [0, -30, 1620]),
        *([170, 0, 1370], [230, 0, 1090], [240, -60, 840]),
        *([-170, 0, 1370], [-230, 0, 1090], [-240, -60, 840]),
    ],
    dtype=float,
)


def look_at(centre):
    """Rotation of a camera at `centre` that looks at the middle of a person, z up in the world."""
    forward = np.array([0, 0, 900.0]) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


CAMERAS = [
    {"centre": np.array(centre), "rotation": look_at(np.array(centre)), "f": f, "c": c}
    for centre, f, c in (
        ([400.0, -4500, 1300], [520.0, 515], [203.0, 148]),
        ([-4200.0, 1500, 1500], [500.0, 505], [196.0, 151]),
    )
]
DISTORTION = {"k": [-0.2, 0.24, -0.003], "p": [-0.0014, -0.001]}


def lens_px(joints_camera_mm, *, focal_px, principal_point_px, radial, tangential):
    """Human3.6M's camera as its documentation writes it, in plain NumPy.

    Joints (..., J, 3) by one camera, whose numbers have no batch axes, or by one camera each.
    """
    x, y, z = np.moveaxis(np.asarray(joints_camera_mm, float), -1, 0)
    x, y = x / z, y / z
    k1, k2, k3 = np.moveaxis(np.asarray(radial), -1, 0)[..., None]
    p1, p2 = np.moveaxis(np.asarray(tangential), -1, 0)[..., None]
    r2 = x * x + y * y
    factor = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * y + p2 * x
    bent = np.stack([x * factor + p2 * r2, y * factor + p1 * r2], axis=-1)
    focal, point = np.asarray(focal_px), np.asarray(principal_point_px)
    return bent * focal[..., None, :] + point[..., None, :]


@pytest.fixture(scope="session")
def seen_px():
    """Joints in the frame of a `Camera` to pixels of its full image, without the camera's code."""

    def project_by_hand(joints_camera_mm, camera):
        names = ("focal_px", "principal_point_px", "radial", "tangential")
        return lens_px(joints_camera_mm, **{name: getattr(camera, name).numpy() for name in names})

    return project_by_hand


def project(joints_world_mm, camera, *, distorted):
    """Pixels of the look-alike's cameras."""
    return lens_px(
        (joints_world_mm - camera["centre"]) @ camera["rotation"].T,
        focal_px=camera["f"],
        principal_point_px=camera["c"],
        radial=DISTORTION["k"] if distorted else np.zeros(3),
        tangential=DISTORTION["p"] if distorted else np.zeros(2),
    )


class Lookalike:
    """A source folder that can be damaged before it is converted.

    Every image is grey with a white dot at joint `frame % 17`.
    """

    def __init__(self, folder, *, num_train=6, num_test=2, distorted=True):
        self.folder = folder
        self.content = {"train": {"images": [], "annotations": []}}
        self.content["test"] = {"images": [], "annotations": []}
        (folder / "annotations").mkdir(parents=True)
        rng = np.random.default_rng(0)
        self.joints_world_mm = {}
        self.image_px = {}
        for number in range(num_train + num_test):
            split = "train" if number < num_train else "test"
            camera_index = number % len(CAMERAS)
            joints = STANDING_MM + rng.normal(0, 15, (17, 3)) + [*rng.normal(0, 150, 2), 0]
            image_px = project(joints, CAMERAS[camera_index], distorted=distorted)
            self._add(number, split, camera_index, joints, image_px, distorted=distorted)
        self.save()

    def _add(self, number, split, camera_index, joints, image_px, *, distorted):
        camera = CAMERAS[camera_index]
        name = f"s_05_act_04_subact_02_ca_{camera_index + 1:02d}"
        file_name = f"{name}/{name}_{number + 1:06d}.jpg"
        low, high = image_px.min(0), image_px.max(0)
        size = 1.2 * (high - low)
        self.content[split]["images"].append(
            {
                "id": number,
                "file_name": file_name,
                "width": WIDTH,
                "height": HEIGHT,
                "subject": 5,
                "action_idx": 4,
                "subaction_idx": 2,
                "cam_idx": camera_index + 1,
                "frame_idx": number,
                "cam_param": {
                    "R": camera["rotation"].tolist(),
                    "t": camera["centre"].tolist(),
                    "f": camera["f"],
                    "c": camera["c"],
                    **(DISTORTION if distorted else {}),
                },
            }
        )
        self.content[split]["annotations"].append(
            {
                "id": number,
                "image_id": number,
                "bbox": [*((low + high) / 2 - size / 2), *size],
                "keypoints_world": joints.tolist(),
            }
        )
        self.joints_world_mm[file_name], self.image_px[file_name] = joints, image_px
        image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        centre = (image_px[number % 17] * 16).round().astype(int).tolist()
        cv2.circle(image, centre, 4 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
        path = self.image_path(number, split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 98])

    def image(self, number, *, split="train"):
        """The JSON's image of this number within the split."""
        offset = self.content[split]["images"][0]["id"]
        return self.content[split]["images"][number - offset]

    def annotation(self, number, *, split="train"):
        """The JSON's annotation of this number within the split."""
        offset = self.content[split]["images"][0]["id"]
        return self.content[split]["annotations"][number - offset]

    def image_path(self, number, *, split="train"):
        """The image's file."""
        return self.folder / "images" / self.image(number, split=split)["file_name"]

    def annotation_path(self, split):
        """The split's annotation file."""
        kind = {"train": "trainmin_train", "test": "64_test"}[split]
        return self.folder / "annotations" / f"Sample_{kind}_Human36M_protocol_2.json"

    def save(self):
        """Write the annotation files (again)."""
        for split, content in self.content.items():
            if content["images"]:
                self.annotation_path(split).write_text(json.dumps(content))


@pytest.fixture
def lookalike(tmp_path):
    """A look-alike source of six training and two test images with distorted cameras."""
    return Lookalike(tmp_path / "source")


@pytest.fixture
def make_lookalike(tmp_path):
    """Makes look-alike sources with options."""
    return lambda **options: Lookalike(tmp_path / "source", **options)
