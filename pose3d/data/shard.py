"""One shard of a store: what a record is, how a file of records is written and read.

A shard is one HDF5 file. Its attributes are format, schema_version, the fields of `StoreHeader`,
joint_names and digest; its datasets, schema version 1, for N records of C cameras and J joints:

    images/bytes   uint8 (bytes)       all JPEG crops end to end, contiguous, memory-mapped
    images/offsets int64 (N + 1)       crop i is bytes[offsets[i] : offsets[i + 1]]
    cameras/*      C rows              name, rotation (3, 3) camera from world, centre_world_mm (3),
                                       focal_px (2), principal_point_px (2), radial (3) k1 k2 k3,
                                       tangential (2) p1 p2, image_size_px (2) width height
    records/*      N rows              camera_index int32, joints_camera_mm float32 (J, 3),
                                       weight float32 (J, 3), visibility uint8 (J),
                                       store_from_image float64 (3, 3), box_image_px float64 (3),
                                       subject, action, subaction, frame int32, split uint8,
                                       source_file UTF-8 (action and split index the names)
    names/actions  UTF-8               names of this shard's actions, sorted
    skipped        UTF-8 (K, 2)        name and reason of each source record that was left out

The digest is SHA-256 of the contents (names, types, shapes, values; `skipped` aside), so that the
time of writing does not change it. A file is written under a temporary name, then renamed.
"""

import hashlib
import os
import re
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from jaxtyping import Float, Shaped

from pose3d.geometry.camera import Camera
from pose3d.geometry.skeleton import Skeleton, skeleton_by_name

FORMAT = "pose3d-store"
SCHEMA_VERSION = 1
SPLITS = ("train", "test")
INT32_MAX = 2**31 - 1
ABANDONED_AFTER_S = 24 * 3600.0
HUMAN36M_FIRST_ACTION = 2
HUMAN36M_ACTIONS = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases"),
    *("Sitting", "SittingDown", "Smoking", "Photo", "Waiting", "Walking", "WalkDog"),
    "WalkTogether",
)
"""Action names of Human3.6M; the file names count them from `HUMAN36M_FIRST_ACTION`."""

CAMERA_SHAPES = {
    "rotation": (3, 3),
    "centre_world_mm": (3,),
    "focal_px": (2,),
    "principal_point_px": (2,),
    "radial": (3,),
    "tangential": (2,),
}
_SUMMED_GROUPS = ("images", "cameras", "records", "names")
_DAMAGE = (OSError, KeyError, TypeError, RuntimeError, AttributeError, ValueError, IndexError)
"""What h5py raises on files that are damaged, or lack what is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreHeader:
    """What holds for every record of a store.

    Attributes:
        skeleton: Name of the joint set, see `pose3d.geometry.skeleton`.
        source: Where the records come from, in words.
        box_definition: How the nominal person square was made, in words.
        crop_size_px: Side S of the stored square crops, pixels.
        margin: Side of the region the crop shows over the side of the nominal person square.
        jpeg_quality: JPEG quality of the stored crops, 1 to 100.
    """

    skeleton: str
    source: str
    box_definition: str
    crop_size_px: int
    margin: float
    jpeg_quality: int

    def __post_init__(self) -> None:
        skeleton_by_name(self.skeleton)
        if self.crop_size_px < 16:
            raise ValueError(f"crop_size_px must be at least 16, got {self.crop_size_px}")
        if not self.margin >= 1:
            raise ValueError(f"margin must be at least 1, got {self.margin}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must be 1 to 100, got {self.jpeg_quality}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoreRecord:
    """One person in one image.

    Attributes:
        image_jpeg: The square crop of S x S pixels as a JPEG file.
        joints_camera_mm: Joints in the camera frame, millimetres, x right, y down, z forward.
        weight: Weight of each joint's axes (u, v, d) in a loss, >= 0; 0 leaves the label out.
        visibility: 1 where the joint lies in the source image and is not known to be hidden.
        camera: The full image's camera, without batch axes.
        camera_name: Name of the camera, e.g. "54138969".
        store_from_image: Map from full-image pixels to pixels of the stored crop.
        box_image_px: Nominal person square in the full image: centre x, centre y, side, pixels.
        subject: Subject's number.
        action: Action's name, e.g. one of `HUMAN36M_ACTIONS`.
        subaction: Number of the take of this action.
        frame: Frame within the sequence, from 0.
        split: "train" or "test".
        source_file: The image's file in the source, relative to it.
        image_size_px: Width and height of the full image, pixels.
    """

    image_jpeg: bytes
    joints_camera_mm: Float[np.ndarray, "joints 3"]
    weight: Float[np.ndarray, "joints 3"]
    visibility: Shaped[np.ndarray, " joints"]
    camera: Camera
    camera_name: str
    store_from_image: Float[np.ndarray, "3 3"]
    box_image_px: Float[np.ndarray, " 3"]
    subject: int
    action: str
    subaction: int
    frame: int
    split: str
    source_file: str
    image_size_px: tuple[int, int]


def check_jpeg(data: bytes) -> None:
    """Refuse bytes that are not one whole JPEG file.

    OpenCV may fill the missing part of a truncated JPEG with grey and tell the caller nothing, so
    the end-of-image marker is looked for after the start of the scan (an EXIF thumbnail before it
    has an end marker of its own). Damage within the compressed data is not seen by this: decoders
    warn about it at most.

    Raises:
        ValueError: If a marker is missing.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG (no start-of-image marker)")
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":
        if data[position + 1 : position + 2] == b"\xff":  # a fill byte
            position += 1
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    if data[position : position + 2] != b"\xff\xda":
        raise ValueError("truncated JPEG (its header ends before the image data)")
    if data.rfind(b"\xff\xd9", position) < 0:
        raise ValueError("truncated JPEG (no end-of-image marker)")


def _check_record(record: StoreRecord, skeleton: Skeleton) -> None:
    """Raise ValueError, naming the record's source file, where a record cannot be stored."""

    def need(holds: bool | np.bool_, message: str) -> None:
        if not holds:
            raise ValueError(f"record {record.source_file}: {message}")

    joints = np.asarray(record.joints_camera_mm)
    shape = (skeleton.num_joints, 3)
    need(joints.shape == shape, f"joints_camera_mm must be {shape}, got {joints.shape}")
    bad = [skeleton.joint_names[j] for j in np.flatnonzero(~np.isfinite(joints).all(-1))]
    need(not bad, f"joint {', '.join(bad)} is not finite")
    need((joints[:, 2] > 0).all(), f"a joint has depth {joints[:, 2].min():.1f} mm, must be > 0")
    weight = np.asarray(record.weight)
    need(weight.shape == shape, f"weight must be {shape}, got {weight.shape}")
    need((np.isfinite(weight) & (weight >= 0)).all(), "weights must be finite and >= 0")
    need(record.visibility.shape == shape[:1], f"visibility must be {shape[:1]}")
    box = np.asarray(record.box_image_px)
    need(np.isfinite(box).all() and box[2] > 0, f"box {box.tolist()} px has no area")
    matrix = np.asarray(record.store_from_image)
    need(np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 1e-12, "map has no inverse")
    width, height = record.image_size_px
    need(min(width, height) > 0, f"image_size_px is {width} x {height}, must be > 0")
    numbers = {name: getattr(record, name) for name in ("subject", "subaction", "frame")}
    for name, number in {**numbers, "image_size_px": max(width, height)}.items():
        need(abs(number) <= INT32_MAX, f"{name} {number} does not fit into 32 bits")
    need(record.split in SPLITS, f"split must be one of {SPLITS}, got {record.split!r}")
    try:
        check_jpeg(record.image_jpeg)
    except ValueError as error:
        raise ValueError(f"record {record.source_file}: crop is {error}") from error


def temporary_name(name: str) -> str:
    """A hidden name beside a file's own that tells host and process, see `is_abandoned`."""
    return f".{name}.{_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"


def is_abandoned(temporary: Path) -> bool:
    """Whether no running process writes this file: its process is dead, or it is a day old."""
    try:
        age_s = time.time() - temporary.stat().st_mtime
    except FileNotFoundError:
        return False  # finished in the meantime
    if age_s > ABANDONED_AFTER_S:
        return True
    _, host, process, _ = ["", "", "", *temporary.name.rsplit(".", 3)][-4:]
    if host != _host() or not process.isdecimal() or not hasattr(os, "register_at_fork"):
        return False  # another host's process cannot be asked for, nor one where kill(0) kills
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # somebody else's
    return False


def _host() -> str:
    """This host's name, fit for the middle of a file's name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())


def sync(path: Path) -> None:
    """Wait until a file's content is on the disk, so that renaming it cannot be ahead of it."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ShardWriter:
    """Write one shard; one writer per shard and process.

    Images go to a temporary file beside the shard as they come, labels stay in memory (about 2 kB a
    record), so that memory does not grow with the images. Leaving the `with` block without an
    exception writes the file under a temporary name and renames it to `path`; leaving it with one
    writes nothing.

    Args:
        path: The shard's file, named shard-*.h5 inside the store's folder.
        header: What holds for every record; must be the same for all shards of a store.
    """

    def __init__(self, path: Path | str, *, header: StoreHeader) -> None:
        self.path = Path(path)
        self.header = header
        if not (self.path.name.startswith("shard-") and self.path.suffix == ".h5"):
            raise ValueError(f"a shard must be named shard-*.h5, got {self.path.name}")
        self._skeleton = skeleton_by_name(header.skeleton)
        self._records: list[StoreRecord] = []
        self._image_sizes: list[int] = []
        self._images_path = self.path.with_name(temporary_name(f"{self.path.stem}.images"))
        self._images: BinaryIO | None = None
        self._skipped: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self._records)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *rest: object) -> None:
        if exception_type is None:
            self.close()
        else:
            self._drop_images()

    def add(self, record: StoreRecord) -> None:
        """Append a record.

        Raises:
            ValueError: Naming the record, if a value is not finite, a depth not positive, the box
                without area, the JPEG incomplete or a shape not the skeleton's.
            OSError: If the images cannot be written.
        """
        _check_record(record, self._skeleton)
        try:
            if self._images is None:
                self._images = self._images_path.open("wb")
            self._images.write(record.image_jpeg)
        except OSError as error:
            raise OSError(f"cannot write {self.path}: {one_line(error)}") from error
        self._image_sizes.append(len(record.image_jpeg))
        self._records.append(replace(record, image_jpeg=b""))

    def skip(self, name: str, *, reason: str) -> None:
        """Note a source record that is left out and why."""
        self._skipped.append((name, reason))

    def close(self) -> None:
        """Write the shard; the file appears complete or not at all."""
        temporary = self.path.with_name(temporary_name(self.path.name))
        try:
            columns = self._columns()
            with h5py.File(temporary, "w") as file:
                for name, value in (header_attributes(self.header)).items():
                    file.attrs[name] = value
                file.attrs["digest"] = content_digest(columns)
                for name, array in columns.items():
                    file.create_dataset(name, data=array, track_times=False)
                skipped = _encode([text for pair in self._skipped for text in pair]).reshape(-1, 2)
                file.create_dataset("skipped", data=skipped, track_times=False)
            sync(temporary)
            os.replace(temporary, self.path)
        except (OSError, RuntimeError) as error:  # HDF5 tells of a full disk by either
            raise OSError(f"cannot write {self.path}: {one_line(error)}") from error
        finally:
            temporary.unlink(missing_ok=True)
            self._drop_images()

    def _image_bytes(self) -> np.ndarray:
        """All images end to end, mapped from the temporary file."""
        if self._images is None:
            return np.zeros(0, np.uint8)
        self._images.flush()
        return np.memmap(self._images_path, np.uint8, mode="r")

    def _drop_images(self) -> None:
        """Remove the temporary file of images."""
        if self._images is not None:
            self._images.close()
            self._images = None
            self._images_path.unlink(missing_ok=True)

    def _columns(self) -> dict[str, np.ndarray]:
        """All summed datasets by path."""
        records = self._records
        num_joints = self._skeleton.num_joints
        actions = sorted({record.action for record in records})
        cameras, camera_index = self._camera_table()
        sizes = np.array(self._image_sizes, np.int64)

        def column(values: list, dtype: type, *shape: int) -> np.ndarray:
            return np.asarray(values, dtype=dtype).reshape(len(records), *shape)

        return {
            "images/bytes": self._image_bytes(),
            "images/offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]),
            "names/actions": _encode(actions),
            **{f"cameras/{name}": table for name, table in cameras.items()},
            "records/camera_index": column(camera_index, np.int32),
            "records/joints_camera_mm": column(
                [r.joints_camera_mm for r in records], np.float32, num_joints, 3
            ),
            "records/weight": column([r.weight for r in records], np.float32, num_joints, 3),
            "records/visibility": column([r.visibility for r in records], np.uint8, num_joints),
            "records/store_from_image": column(
                [r.store_from_image for r in records], np.float64, 3, 3
            ),
            "records/box_image_px": column([r.box_image_px for r in records], np.float64, 3),
            "records/subject": column([r.subject for r in records], np.int32),
            "records/action": column([actions.index(r.action) for r in records], np.int32),
            "records/subaction": column([r.subaction for r in records], np.int32),
            "records/frame": column([r.frame for r in records], np.int32),
            "records/split": column([SPLITS.index(r.split) for r in records], np.uint8),
            "records/source_file": _encode([r.source_file for r in records]),
        }

    def _camera_table(self) -> tuple[dict[str, np.ndarray], list[int]]:
        """Distinct cameras in order of appearance, and each record's row in that table."""
        rows: dict[tuple, int] = {}
        index = []
        for record in self._records:
            values = [
                np.asarray(getattr(record.camera, name), np.float64).reshape(shape)
                for name, shape in CAMERA_SHAPES.items()
            ]
            key = (
                record.camera_name,
                tuple(record.image_size_px),
                *(value.tobytes() for value in values),
            )
            index.append(rows.setdefault(key, len(rows)))
        table = {"name": _encode([key[0] for key in rows])}
        sizes = [key[1] for key in rows]
        table["image_size_px"] = np.array(sizes, np.int32).reshape(len(rows), 2)
        for position, (name, shape) in enumerate(CAMERA_SHAPES.items()):
            blob = b"".join(key[2 + position] for key in rows)
            table[name] = np.frombuffer(blob, np.float64).reshape(len(rows), *shape)
        return table, index


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """The contents of a shard except its image bytes, and where those lie in the file."""

    path: Path
    header: StoreHeader
    digest: str
    count: int
    columns: dict[str, np.ndarray]
    skipped: list[tuple[str, str]]
    blob_start: int
    blob_size: int


def read_shard(path: Path) -> Shard:
    """Read everything but the image bytes; no handle stays open."""
    try:
        with h5py.File(path, "r") as file:
            header = parse_header(file.attrs, path)
            blob = file["images/bytes"]
            columns = {
                f"{group}/{name}": dataset[()]
                for group in _SUMMED_GROUPS
                for name, dataset in file[group].items()
                if dataset != blob
            }
            blob_start = blob.id.get_offset()
            if blob.dtype != np.uint8 or blob.ndim != 1 or (blob.size and blob_start is None):
                raise ValueError("images/bytes is not a contiguous row of bytes")
            _check_columns(columns, skeleton_by_name(header.skeleton), blob_size=blob.size)
            return Shard(
                path=path,
                header=header,
                digest=str(file.attrs["digest"]),
                count=len(columns["images/offsets"]) - 1,
                columns=columns,
                skipped=[(a.decode(), b.decode()) for a, b in file["skipped"][()]],
                blob_start=blob_start or 0,
                blob_size=blob.size,
            )
    except _VersionError:
        raise
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is not a whole shard of a store ({one_line(error)}); copy or convert again"
        ) from error


_INTEGER_COLUMNS = ("camera_index", "subject", "action", "subaction", "frame")


def _check_columns(
    columns: Mapping[str, np.ndarray], skeleton: Skeleton, *, blob_size: int
) -> None:
    """Raise ValueError or KeyError where a shard's datasets do not fit together."""
    offsets = columns["images/offsets"]
    if offsets.ndim != 1 or not len(offsets) or offsets.dtype.kind != "i":
        raise ValueError(f"images/offsets is {offsets.dtype} {offsets.shape}, expected int64 (N+1)")
    if offsets[0] != 0 or offsets[-1] != blob_size or (np.diff(offsets) < 0).any():
        raise ValueError(f"images/offsets do not ascend from 0 to the {blob_size} bytes there are")
    num_records, num_cameras = len(offsets) - 1, len(columns["cameras/name"])
    num_joints = skeleton.num_joints
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "names/actions": (columns["names/actions"].shape[:1], "S"),
        "cameras/name": ((num_cameras,), "S"),
        "cameras/image_size_px": ((num_cameras, 2), "iu"),
        **{f"cameras/{name}": ((num_cameras, *s), "f") for name, s in CAMERA_SHAPES.items()},
        **{f"records/{name}": ((num_records,), "iu") for name in (*_INTEGER_COLUMNS, "split")},
        "records/source_file": ((num_records,), "S"),
        "records/joints_camera_mm": ((num_records, num_joints, 3), "f"),
        "records/weight": ((num_records, num_joints, 3), "f"),
        "records/visibility": ((num_records, num_joints), "iu"),
        "records/store_from_image": ((num_records, 3, 3), "f"),
        "records/box_image_px": ((num_records, 3), "f"),
    }
    for name, (shape, kinds) in expected.items():
        found = columns[name]
        if found.shape != shape or found.dtype.kind not in kinds:
            raise ValueError(f"{name} is {found.dtype} {found.shape}, expected the shape {shape}")
    for name in ("names/actions", "cameras/name"):
        decode_texts(columns[name])
    for name, limit in (
        ("camera_index", num_cameras),
        ("action", len(columns["names/actions"])),
        ("split", len(SPLITS)),
    ):
        index = columns[f"records/{name}"]
        if len(index) and not (index.min() >= 0 and index.max() < limit):
            raise ValueError(f"records/{name} must be 0 to {limit - 1}, got up to {index.max()}")


def header_attributes(header: StoreHeader) -> dict[str, Any]:
    """The header's fields with format, version and joint names, as attributes or JSON."""
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        **asdict(header),
        "joint_names": list(skeleton_by_name(header.skeleton).joint_names),
    }


class _VersionError(ValueError):
    """A whole file, but not one that this release reads; its message names the file."""


def parse_header(attributes: Mapping[str, Any], path: Path) -> StoreHeader:
    """Check format and version, then build the header."""
    if attributes.get("format") != FORMAT:
        raise _VersionError(f"{path} is not part of a {FORMAT}; name a store made by pose3d-prep")
    version = int(attributes["schema_version"])
    if version != SCHEMA_VERSION:
        raise _VersionError(
            f"{path} has schema version {version}; this release reads version {SCHEMA_VERSION}: "
            "convert the source again"
        )
    values = {field.name: attributes[field.name] for field in fields(StoreHeader)}
    for name, kind in (("crop_size_px", int), ("margin", float), ("jpeg_quality", int)):
        values[name] = kind(values[name])
    header = StoreHeader(**values)
    joint_names = tuple(str(name) for name in attributes["joint_names"])
    if joint_names != skeleton_by_name(header.skeleton).joint_names:
        raise _VersionError(f"{path} has joints {joint_names}, not those of {header.skeleton}")
    return header


def content_digest(columns: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(columns):
        array = np.ascontiguousarray(columns[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.view(np.uint8).data if array.size else b"")
    return total.hexdigest()


def _encode(texts: Sequence[str]) -> np.ndarray:
    """Texts as fixed-width UTF-8."""
    return np.array([text.encode("utf-8") for text in texts] or [], dtype=np.bytes_)


def decode_texts(texts: np.ndarray) -> np.ndarray:
    """Fixed-width UTF-8 as an array of str."""
    return np.array([text.decode("utf-8") for text in texts], dtype=np.str_)


def one_line(error: BaseException) -> str:
    """The system's reason for an error, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())
