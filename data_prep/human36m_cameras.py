"""Human3.6M's four cameras where they stood for each subject.

Source:
    Human3.6M, Ionescu et al., PAMI 2014. Orientations (quaternion w, x, y, z, world from camera)
    and positions (mm, world) as listed in VideoPose3D's common/h36m_dataset.py; they agree with
    the data set's own metadata.xml to 2e-7.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera, human36m_intrinsics

_NUM_ROWS = {"54138969": 1002, "55011271": 1000, "58860488": 1000, "60457274": 1002}

# One row per camera, in the order of HUMAN36M_CAMERA_NAMES: quaternion w, x, y, z; position mm.
_EXTRINSICS: dict[int, tuple[tuple[float, ...], ...]] = {
    1: (
        (0.14070565, -0.15007018, -0.75524080, 0.62232804, 1841.1071, 4955.2847, 1563.4454),
        (0.61571878, -0.76483631, -0.14833826, 0.11794741, 1761.2786, -5078.0068, 1606.2650),
        (0.14651473, -0.14647852, 0.76530236, -0.60941756, -1846.7777, 5215.0464, 1491.9724),
        (0.58340085, -0.78531623, 0.14548823, -0.14749594, -1794.7897, -3722.6990, 1574.8927),
    ),
    5: (
        (0.14673772, -0.16237096, -0.75518930, 0.61789387, 2097.3916, 4880.9448, 1605.7324),
        (0.61597586, -0.76267922, -0.15728192, 0.11898150, 2031.7008, -5167.9331, 1612.9231),
        (0.14291371, -0.12907842, 0.76783848, -0.61101431, -1620.5948, 5171.6587, 1496.4370),
        (0.59204799, -0.78142178, 0.12747486, -0.15036418, -1637.1737, -3867.3174, 1547.0332),
    ),
    6: (
        (0.13378978, -0.15692396, -0.75710905, 0.61988795, 1935.4518, 4950.2456, 1618.0839),
        (0.61471975, -0.76288128, -0.16174768, 0.11819245, 1969.8040, -5128.7388, 1632.7788),
        (0.15299481, -0.13529131, 0.76460963, -0.61127812, -1769.5964, 5185.3613, 1476.9934),
        (0.59161013, -0.78047740, 0.12832271, -0.15615939, -1721.6687, -3884.1313, 1540.4879),
    ),
    7: (
        (0.14352418, -0.16313368, -0.75483286, 0.61888248, 1974.5129, 4926.3545, 1597.8326),
        (0.61416727, -0.76382625, -0.15966456, 0.11779299, 1937.0585, -5119.7900, 1631.5665),
        (0.14550060, -0.12874816, 0.76605165, -0.61271393, -1741.8112, 5208.2495, 1464.8246),
        (0.59128481, -0.78217643, 0.12445474, -0.15196487, -1734.7106, -3832.4214, 1548.5830),
    ),
    8: (
        (0.14110588, -0.15589868, -0.75619173, 0.61964405, 2150.6519, 4896.1611, 1611.9047),
        (0.61696017, -0.76476681, -0.14846350, 0.11158158, 2219.9656, -5148.4531, 1613.0441),
        (0.14714441, -0.13377120, 0.76701283, -0.61003697, -1571.2216, 5137.0186, 1498.1761),
        (0.59278244, -0.78258705, 0.12147816, -0.14631996, -1476.9133, -3896.7412, 1547.9722),
    ),
    9: (
        (0.15540588, -0.15548216, -0.75320953, 0.61995947, 2044.4585, 4935.1172, 1481.2275),
        (0.61878449, -0.76347351, -0.14132239, 0.11933968, 1990.9597, -5123.8105, 1568.8048),
        (0.13357827, -0.13671005, 0.76894546, -0.61007386, -1670.9922, 5211.9858, 1528.3879),
        (0.58793992, -0.78234071, 0.14276144, -0.14794870, -1696.0435, -3827.0999, 1591.4127),
    ),
    11: (
        (0.15232472, -0.15442321, -0.75475633, 0.61910701, 2098.4402, 4926.5547, 1500.2786),
        (0.61894494, -0.76009172, -0.15300633, 0.12552583, 2083.1824, -4912.1729, 1561.0786),
        (0.14943229, -0.15650228, 0.76812339, -0.60263044, -1609.8153, 5177.3359, 1537.8967),
        (0.58942515, -0.78188771, 0.13991211, -0.14715362, -1590.7380, -3854.1689, 1578.0176),
    ),
}

IMAGE_SIZES_PX: dict[tuple[int, str], tuple[int, int]] = {
    (subject, name): (1000, 1002 if subject == 7 else rows)
    for subject in _EXTRINSICS
    for name, rows in _NUM_ROWS.items()
}
"""Width and height of the full images by subject and camera; subject 7's all have 1002 rows."""


def subject_camera(subject: int, name: str) -> Camera:
    """One of Human3.6M's cameras as it stood for a subject; float64.

    Args:
        subject: 1, 5, 6, 7, 8, 9 or 11.
        name: One of `HUMAN36M_CAMERA_NAMES`.

    Raises:
        ValueError: If there is no such subject or camera.
    """
    intrinsics = human36m_intrinsics(name)
    if subject not in _EXTRINSICS:
        raise ValueError(f"no cameras are known for subject {subject}, only {list(_EXTRINSICS)}")
    row = _EXTRINSICS[subject][HUMAN36M_CAMERA_NAMES.index(name)]
    world_from_camera = Rotation.from_quat(np.array(row[:4]), scalar_first=True)
    return replace(
        intrinsics,
        rotation=torch.from_numpy(world_from_camera.inv().as_matrix()),
        centre_world_mm=torch.tensor(row[4:], dtype=torch.float64),
    )
