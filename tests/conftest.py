"""Fixtures that several rooms share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real photographs in the layout of the released RLE code; skips where missing."""
    default = REPOSITORY.parent / "shared" / "data" / "real_multiview"
    folder = Path(os.environ.get("POSE3D_REAL_DATA", default))
    if not (folder / "annotations").is_dir():
        pytest.skip(
            f"no real photographs at {folder}; set POSE3D_REAL_DATA to a folder with "
            "annotations/ and images/ in the layout of the released RLE code"
        )
    return folder
