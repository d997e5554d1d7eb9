"""Cameras in whatever convention: Human3.6M's are recognised, others read as documented."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from data_prep.human36m_cameras import subject_camera
from data_prep.readers.views import recognised_camera

OWN_ROTATION = Rotation.from_euler("xyz", [1.7, 0.3, 0.4]).as_matrix()  # camera from world
OWN_CENTRE_MM = np.array([1200.0, -4300.0, 1500.0])
INTRINSICS = {
    "focal_px": np.array([1150.0, 1148.0]),
    "principal_point_px": np.array([510.0, 505.0]),
    "radial": np.array([-0.2, 0.25, 0.0]),
    "tangential": np.array([-0.001, 0.0005]),
}
WRITTEN = {
    ("camera from world", "the centre in mm"): (OWN_ROTATION, OWN_CENTRE_MM),
    ("world from camera", "the centre in mm"): (OWN_ROTATION.T, OWN_CENTRE_MM),
    ("camera from world", "−R·C in mm"): (OWN_ROTATION, -OWN_ROTATION @ OWN_CENTRE_MM),
    ("world from camera", "the centre in m"): (OWN_ROTATION.T, OWN_CENTRE_MM / 1000),
}


def read(rotation, translation, documented, *, subject=5, camera_name="55011271"):
    return recognised_camera(
        subject,
        camera_name,
        rotation=rotation,
        translation=translation,
        documented=documented,
        name="cameras.file, camera 2",
        **INTRINSICS,
    )


@pytest.mark.parametrize("documented", WRITTEN)
def test_a_camera_of_nobody_is_read_as_the_layout_is_documented(documented):
    camera, how = read(*WRITTEN[documented], documented)
    joint_mm = np.array([[100.0, 200.0, 900.0]])
    expected = OWN_ROTATION @ (joint_mm[0] - OWN_CENTRE_MM)
    found = camera.world_to_camera(torch.from_numpy(joint_mm))
    np.testing.assert_allclose(found[0], expected, atol=1e-9)
    assert "not Human3.6M's camera" in how


@pytest.mark.parametrize("documented", WRITTEN)
def test_human36ms_camera_is_recognised_whatever_is_documented(documented):
    known = subject_camera(5, "55011271")
    rotation, centre_mm = known.rotation.numpy(), known.centre_world_mm.numpy()
    camera, how = read(rotation, -rotation @ centre_mm / 1000, documented)
    np.testing.assert_allclose(camera.centre_world_mm, centre_mm, atol=1e-9)
    np.testing.assert_allclose(camera.rotation, rotation, atol=1e-12)
    assert "camera from world" in how
    assert "−R·C in m" in how


@pytest.mark.parametrize(
    ("rotation", "message"),
    [
        (np.eye(3), "neither R nor its transpose"),
        (2 * OWN_ROTATION, "neither R nor its transpose"),
        (OWN_ROTATION * [1, 1, -1], "neither R nor its transpose"),
        (np.full((3, 3), np.nan), "neither R nor its transpose"),
        (subject_camera(5, "60457274").rotation.numpy(), "of camera 60457274, not of 55011271"),
    ],
)
def test_what_is_no_rotation_or_anothers_is_refused(rotation, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(rotation, OWN_CENTRE_MM, ("camera from world", "the centre in mm"))
    assert "cameras.file, camera 2" in str(caught.value)
