"""Write a metadata.xml like Human3.6M's: all 11 subjects, real names of files, real cameras."""

from collections.abc import Mapping
from xml.etree import ElementTree

import numpy as np
from scipy.spatial.transform import Rotation

from data_prep.human36m import SUBJECTS, sequences
from data_prep.human36m_cameras import IMAGE_SIZES_PX, subject_camera
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES

ALL_SUBJECTS = tuple(range(1, 12))
ACTION_NAMES = (
    *("Miscellaneous", "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing"),
    *("Purchases", "Sitting", "SittingDown", "Smoking", "TakingPhoto", "Waiting", "Walking"),
    *("WalkingDog", "WalkingTogether"),
)
"""`<actionnames>`, of which some are not the files'."""
SKELETON = (
    *("Hips", "RightUpLeg", "RightLeg", "RightFoot", "RightToeBase", "Site", "LeftUpLeg"),
    *("LeftLeg", "LeftFoot", "LeftToeBase", "Site", "Spine", "Spine1", "Neck", "Head", "Site"),
    *("LeftShoulder", "LeftArm", "LeftForeArm", "LeftHand", "LeftHandThumb", "Site"),
    *("L_Wrist_End", "Site", "RightShoulder", "RightArm", "RightForeArm", "RightHand"),
    *("RightHandThumb", "Site", "R_Wrist_End", "Site"),
)
FRAMES_OF_ALL = 9999
_TALL = (4, 7, 10)
"""Subjects of whom all four cameras have 1002 rows."""


def metadata_xml(num_frames: Mapping[tuple[int, int, int], tuple[int, ...]]) -> bytes:
    """The text of metadata.xml.

    Args:
        num_frames: By subject, action (2 to 16) and subaction, frames of the four videos and the
            number of poses of the four cameras together; the release's own where left out.
    """
    root = ElementTree.Element("a")
    _add_rows(root, "mapping", _mapping())
    _add_rows(root, "frames", [_frames_row(subject, num_frames) for subject in ALL_SUBJECTS])
    ElementTree.SubElement(root, "w0").text = f"[{' '.join(map(repr, _w0()))}]"
    cameras = ElementTree.SubElement(root, "dbcameras")
    _add_items(ElementTree.SubElement(cameras, "index2id"), HUMAN36M_CAMERA_NAMES)
    _add_items(ElementTree.SubElement(root, "actionnames"), ACTION_NAMES)
    for part in ("skel_angles", "skel_pos"):
        tree = ElementTree.SubElement(ElementTree.SubElement(root, part), "tree")
        for number, name in enumerate(SKELETON, start=1):
            item = ElementTree.SubElement(tree, "item")
            ElementTree.SubElement(item, "name").text = name
            ElementTree.SubElement(item, "id").text = str(number)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _add_rows(root: ElementTree.Element, name: str, rows: list[list[str]]) -> None:
    table = ElementTree.SubElement(root, name)
    for cells in rows:
        row = ElementTree.SubElement(table, "tr")
        for cell in cells:
            ElementTree.SubElement(row, "td").text = cell


def _add_items(parent: ElementTree.Element, texts: tuple[str, ...]) -> None:
    for text in texts:
        ElementTree.SubElement(parent, "item").text = text


def _mapping() -> list[list[str]]:
    """Rows 0 to 34: subjects, names of files, nicknames, image sizes."""
    rows = [["Action", "SubAction", *(f"S{subject}" for subject in ALL_SUBJECTS)]]
    for action in range(1, 17):
        for subaction in (1, 2):
            names = [_file_name(subject, action, subaction) for subject in ALL_SUBJECTS]
            rows.append([str(action), str(subaction), *names])
    rows.append(["", "", *(f"nickname {subject}" for subject in ALL_SUBJECTS)])
    rows.append(["", "", *(_image_sizes(subject) for subject in ALL_SUBJECTS)])
    return rows


def _file_name(subject: int, action: int, subaction: int) -> str:
    """The release's name; of subjects without public poses, S6's."""
    if action == 1:
        return "_ALL 1" if subaction == 1 else "_ALL"
    known = subject if subject in SUBJECTS else 6
    return sequences()[known, action, subaction].file_name


def _image_sizes(subject: int) -> str:
    """ "[height width;...]" of the four cameras."""
    rows = [
        1002 if subject in _TALL else IMAGE_SIZES_PX[1, name][1] for name in HUMAN36M_CAMERA_NAMES
    ]
    return f"[{';'.join(f'{height} 1000' for height in rows)}]"


def _frames_row(
    subject: int, num_frames: Mapping[tuple[int, int, int], tuple[int, ...]]
) -> list[str]:
    cells = [""]
    for action in range(1, 17):
        for subaction in (1, 2):
            known = sequences().get((subject, action, subaction))
            poses = known.num_poses if known else FRAMES_OF_ALL
            numbers = (*[poses + 2] * 4, 4 * poses)
            numbers = num_frames.get((subject, action, subaction), numbers)
            cells.append(f"[{' '.join(map(str, numbers))}]")
    return cells


def _w0() -> list[float]:
    """Extrinsics of every camera and subject (S1's for those not known), then intrinsics."""
    numbers: list[float] = []
    for name in HUMAN36M_CAMERA_NAMES:
        for subject in ALL_SUBJECTS:
            camera = subject_camera(subject if subject in SUBJECTS else 1, name)
            angles = Rotation.from_matrix(camera.rotation.numpy()).as_euler("XYZ")
            numbers += [*angles.tolist(), *camera.centre_world_mm.tolist()]
    for name in HUMAN36M_CAMERA_NAMES:
        camera = subject_camera(1, name)
        lens = (camera.focal_px, camera.principal_point_px, camera.radial, camera.tangential)
        numbers += np.concatenate([part.numpy() for part in lens]).tolist()
    return numbers
