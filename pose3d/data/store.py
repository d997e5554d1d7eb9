"""The store: person crops and their 3-D labels in one folder of HDF5 shards.

Layout, schema version 1 (docs/store.md holds the same tables with the reasons):

    STORE/store.json     manifest: format, schema_version, the header's fields, joint_names,
                         num_records, digest, shards [{name, count, bytes, digest}],
                         skipped [{name, reason}]
    STORE/shard-*.h5     the records, in the order of the shards' names

A shard is one HDF5 file and opens alone as well. Its attributes are the header's fields, and

    images/bytes   uint8 (bytes)       all JPEG crops end to end, contiguous, memory-mapped
    images/offsets int64 (N + 1)       crop i is bytes[offsets[i] : offsets[i + 1]]
    cameras/*      C rows              name, rotation (3, 3) camera from world, centre_world_mm (3),
                                       focal_px (2), principal_point_px (2), radial (3) k1 k2 k3,
                                       tangential (2) p1 p2, image_size_px (2) width height
    records/*      N rows              camera_index int32, joints_camera_mm float32 (J, 3),
                                       weight float32 (J, 3), visibility uint8 (J),
                                       store_from_image float64 (3, 3), box_image_px float64 (3),
                                       subject, action, subaction, frame int32, split uint8,
                                       source_file UTF-8 (action and split index the names below)
    names/actions  UTF-8               names of the actions of this shard, sorted
    skipped        UTF-8 (K, 2)        name and reason of each source record that was left out

Shards and manifest are written under a temporary name and renamed, the manifest last. Digests are
SHA-256 of the contents (names, types, shapes, values), so that neither the time of writing nor the
order in which shards were written changes them. Every process maps image bytes lazily for itself;
no HDF5 handle stays open, so a store may be used after a fork, from threads, and be pickled.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import cv2
import h5py
import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8

from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera
from pose3d.geometry.crop import transform_points
from pose3d.geometry.skeleton import Skeleton, skeleton_by_name

FORMAT = "pose3d-store"
SCHEMA_VERSION = 1
MANIFEST_NAME = "store.json"
PLAN_NAME = "plan.json"
SPLITS = ("train", "test")
HUMAN36M_FIRST_ACTION = 2
HUMAN36M_ACTIONS = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases"),
    *("Sitting", "SittingDown", "Smoking", "Photo", "Waiting", "Walking", "WalkDog"),
    "WalkTogether",
)
"""Action names of Human3.6M; the file names count them from `HUMAN36M_FIRST_ACTION`."""

_CAMERA_SHAPES = {
    "rotation": (3, 3),
    "centre_world_mm": (3,),
    "focal_px": (2,),
    "principal_point_px": (2,),
    "radial": (3,),
    "tangential": (2,),
}
_SUMMED_GROUPS = ("images", "cameras", "records", "names")


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

    OpenCV fills the missing part of a truncated JPEG with grey and says nothing to the caller, so
    the end-of-image marker is looked for after the start of the scan (an EXIF thumbnail before it
    has an end marker of its own). Damage within the compressed data is not seen by this.

    Raises:
        ValueError: If a marker is missing.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG (no start-of-image marker)")
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":
        if data[position + 1] == 0xFF:  # a fill byte
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
    need(record.split in SPLITS, f"split must be one of {SPLITS}, got {record.split!r}")
    try:
        check_jpeg(record.image_jpeg)
    except ValueError as error:
        raise ValueError(f"record {record.source_file}: crop is {error}") from error


class ShardWriter:
    """Write one shard, in memory until it is closed; one writer per shard and process.

    Leaving the `with` block without an exception writes the file under a temporary name and renames
    it to `path`; leaving it with one writes nothing. Keep a shard below about 2000 records.

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
        self._skipped: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self._records)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *rest: object) -> None:
        if exception_type is None:
            self.close()

    def add(self, record: StoreRecord) -> None:
        """Append a record.

        Raises:
            ValueError: Naming the record, if a value is not finite, a depth not positive, the box
                without area, the JPEG incomplete or a shape not the skeleton's.
        """
        _check_record(record, self._skeleton)
        self._records.append(record)

    def skip(self, name: str, *, reason: str) -> None:
        """Note a source record that is left out and why."""
        self._skipped.append((name, reason))

    def close(self) -> None:
        """Write the shard; the file appears complete or not at all."""
        columns = self._columns()
        temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with h5py.File(temporary, "w") as file:
                for name, value in (_header_attributes(self.header)).items():
                    file.attrs[name] = value
                file.attrs["digest"] = _content_digest(columns)
                for name, array in columns.items():
                    file.create_dataset(name, data=array, track_times=False)
                skipped = _encode([text for pair in self._skipped for text in pair]).reshape(-1, 2)
                file.create_dataset("skipped", data=skipped, track_times=False)
            os.replace(temporary, self.path)
        except OSError as error:
            raise OSError(f"cannot write {self.path}: {_reason(error)}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _columns(self) -> dict[str, np.ndarray]:
        """All summed datasets by path."""
        records = self._records
        num_joints = self._skeleton.num_joints
        actions = sorted({record.action for record in records})
        cameras, camera_index = self._camera_table()
        sizes = np.array([len(record.image_jpeg) for record in records], np.int64)

        def column(values: list, dtype: type, *shape: int) -> np.ndarray:
            return np.asarray(values, dtype=dtype).reshape(len(records), *shape)

        return {
            "images/bytes": np.frombuffer(b"".join(r.image_jpeg for r in records), np.uint8),
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
                for name, shape in _CAMERA_SHAPES.items()
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
        for position, (name, shape) in enumerate(_CAMERA_SHAPES.items()):
            blob = b"".join(key[2 + position] for key in rows)
            table[name] = np.frombuffer(blob, np.float64).reshape(len(rows), *shape)
        return table, index


def begin_store(
    directory: Path | str, *, plan: Mapping[str, Any], overwrite: bool = False
) -> set[str]:
    """Make or take up a store's folder before its shards are written.

    Args:
        directory: The store's folder.
        plan: Everything the shards depend on (source, settings, seed), as JSON values. It is
            kept in the folder; only a run with the same plan may continue an unfinished store.
        overwrite: Drop the shards and the manifest that are there, if it is a store.

    Returns:
        Names of the shards that are already there and need not be written again.

    Raises:
        ValueError: If the folder holds something else, or a store made with another plan.
        OSError: If the folder cannot be made or written.
    """
    directory = Path(directory)
    text = json.dumps(plan, indent=1, sort_keys=True)
    plan_path = directory / PLAN_NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        content = {path.name for path in directory.iterdir()}
        if content and not content & {PLAN_NAME, MANIFEST_NAME}:
            raise ValueError(f"{directory} exists and is not a store; name a new or empty folder")
        if overwrite:
            for path in [directory / MANIFEST_NAME, plan_path, *directory.glob("shard-*.h5")]:
                path.unlink(missing_ok=True)
        elif content and not (plan_path.is_file() and plan_path.read_text("utf-8") == text):
            raise ValueError(
                f"{directory} holds a store made from another source or with other settings "
                f"({_plan_difference(plan_path, plan)}); name another folder or pass --overwrite"
            )
        for stray in directory.glob(".shard-*"):  # left by a run that was killed
            stray.unlink(missing_ok=True)
        _write_text(plan_path, text)
    except OSError as error:
        raise OSError(f"cannot write the store {directory}: {_reason(error)}") from error
    return {path.name for path in directory.glob("shard-*.h5")}


def _plan_difference(path: Path, plan: Mapping[str, Any]) -> str:
    """Name what differs between the plan in a file and a new one."""
    try:
        old = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return "its plan cannot be read"
    new = json.loads(json.dumps(plan))
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {old.get(name)} there, {new.get(name)} asked" for name in names)


def finalise_store(directory: Path | str, header: StoreHeader) -> str:
    """Gather the shards of a folder into a store by writing its manifest, atomically.

    Args:
        directory: Folder with shard-*.h5 files.
        header: The header that every shard must have.

    Returns:
        The store's digest.

    Raises:
        ValueError: If a shard is not readable, has another header, or there is no record at all.
    """
    directory = Path(directory)
    shards = [_read_shard(path) for path in sorted(directory.glob("shard-*.h5"))]
    for shard in shards:
        if shard.header != header:
            raise ValueError(
                f"{shard.path} has another header ({shard.header}) than the store ({header}); "
                "convert again into an empty folder"
            )
    if not any(shard.count for shard in shards):
        raise ValueError(f"{directory} holds no records; every source record was left out")
    entries = [
        {
            "name": shard.path.name,
            "count": shard.count,
            "bytes": shard.path.stat().st_size,
            "digest": shard.digest,
        }
        for shard in shards
    ]
    digest = _store_digest(header, entries)
    manifest = {
        **_header_attributes(header),
        "num_records": sum(shard.count for shard in shards),
        "digest": digest,
        "shards": entries,
        "skipped": [
            {"name": name, "reason": why} for shard in shards for name, why in shard.skipped
        ],
    }
    _write_text(directory / MANIFEST_NAME, json.dumps(manifest, indent=1))
    return digest


@dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """The labels of all records, one row each, as arrays.

    Attributes: see `StoreRecord`; `camera_index` is the row in `Store.cameras`.
    """

    camera_index: Int64[np.ndarray, " n"]
    camera_name: Shaped[np.ndarray, " n"]
    image_size_px: Shaped[np.ndarray, "n 2"]
    joints_camera_mm: Float[np.ndarray, "n joints 3"]
    weight: Float[np.ndarray, "n joints 3"]
    visibility: UInt8[np.ndarray, "n joints"]
    store_from_image: Float[np.ndarray, "n 3 3"]
    box_image_px: Float[np.ndarray, "n 3"]
    subject: Int64[np.ndarray, " n"]
    action: Shaped[np.ndarray, " n"]
    subaction: Int64[np.ndarray, " n"]
    frame: Int64[np.ndarray, " n"]
    split: Shaped[np.ndarray, " n"]


class Store:
    """Random access to a store; made by `open_store`.

    Labels are in memory. Image bytes are mapped when first used, once per process.

    Attributes:
        path: The store's folder, or the file of a lone shard.
        header: What holds for every record.
        skeleton: The joint set of the labels.
        digest: SHA-256 of header and contents as the manifest states it.
        records: All labels as arrays.
        cameras: The table of cameras, batched, float64, camera from world.
        skipped: Name and reason of each source record that was left out.
    """

    def __init__(self, path: Path, shards: "list[_Shard]", *, digest: str) -> None:
        self.path = path
        self.header = shards[0].header
        self.skeleton = skeleton_by_name(self.header.skeleton)
        self.digest = digest
        self.skipped = [pair for shard in shards for pair in shard.skipped]
        table, index = _merge_cameras(shards)
        self.cameras = Camera.from_parameters(
            **{name: table[name] for name in _CAMERA_SHAPES}, dtype=torch.float64
        )
        self.records = _merge_records(shards, table, camera_index=index)
        self._source_files = np.concatenate([s.columns["records/source_file"] for s in shards])
        self._shard_paths = [shard.path for shard in shards]
        self._shard_digests = [shard.digest for shard in shards]
        self._blob_starts = [shard.blob_start for shard in shards]
        self._shard_of = np.repeat(np.arange(len(shards)), [shard.count for shard in shards])
        offsets = [shard.columns["images/offsets"] for shard in shards]
        self._starts = np.concatenate([part[:-1] for part in offsets])
        self._ends = np.concatenate([part[1:] for part in offsets])
        self._blobs: dict[int, np.memmap] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {len(self)} records, {self.header.skeleton})"

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_blobs": {},
        }  # maps are opened again by the process that needs them

    def image_bytes(self, index: int) -> bytes:
        """The crop of one record as a JPEG file."""
        shard = int(self._shard_of[index])
        blob = self._blobs.get(shard)
        if blob is None:
            path = self._shard_paths[shard]
            try:
                blob = np.memmap(path, np.uint8, mode="r", offset=self._blob_starts[shard])
            except (OSError, ValueError) as error:
                raise ValueError(f"{path} cannot be read: {error}; convert again") from error
            self._blobs[shard] = blob
        return blob[self._starts[index] : self._ends[index]].tobytes()

    def image(self, index: int) -> UInt8[np.ndarray, "size size 3"]:
        """The crop of one record, RGB.

        Raises:
            ValueError: Naming store, record and source file, if the JPEG is bad.
        """
        data = self.image_bytes(index)
        size = self.header.crop_size_px
        try:
            check_jpeg(data)
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if image is None or image.shape != (size, size, 3):
                found = "nothing" if image is None else f"{image.shape}"
                raise ValueError(f"decodes to {found}, expected {(size, size, 3)}")
        except (ValueError, cv2.error) as error:
            raise ValueError(
                f"store {self.path}: crop of record {index} ({self.record_name(index)}, from "
                f"{self.source_file(index)}) is bad: {error}; convert again"
            ) from error
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def source_file(self, index: int) -> str:
        """The source image of one record, relative to the source's image folder."""
        return self._source_files[index].decode("utf-8")

    def record_name(self, index: int) -> str:
        """A name in Human3.6M's manner, e.g. s_01_act_02_subact_01_ca_01_000041 (frame from 1)."""
        records = self.records
        action, camera = str(records.action[index]), str(records.camera_name[index])
        if action in HUMAN36M_ACTIONS:
            action = f"{HUMAN36M_ACTIONS.index(action) + HUMAN36M_FIRST_ACTION:02d}"
        if camera in HUMAN36M_CAMERA_NAMES:
            camera = f"{HUMAN36M_CAMERA_NAMES.index(camera) + 1:02d}"
        return (
            f"s_{records.subject[index]:02d}_act_{action}_subact_{records.subaction[index]:02d}"
            f"_ca_{camera.removeprefix('ca_')}_{records.frame[index] + 1:06d}"
        )

    def select(
        self,
        *,
        split: str | None = None,
        subjects: Sequence[int] | None = None,
        actions: Sequence[str] | None = None,
        cameras: Sequence[str] | None = None,
        every: int | None = None,
    ) -> Int64[np.ndarray, " selected"]:
        """Rows that satisfy every condition given, ascending; possibly none.

        Args:
            split: "train" or "test".
            subjects: Subjects' numbers; those that the store lacks select nothing.
            actions: Names of actions that the store holds.
            cameras: Names of cameras that the store holds.
            every: Keep frames whose number is a multiple of this.

        Raises:
            ValueError: If a split, action or camera is unknown, or `every` is below 1.
        """
        records = self.records
        keep = np.ones(len(self), bool)
        if split is not None:
            _known("split", [split], SPLITS)
            keep &= records.split == split
        if subjects is not None:
            keep &= np.isin(records.subject, list(subjects))
        if actions is not None:
            _known("action", actions, np.unique(records.action))
            keep &= np.isin(records.action, list(actions))
        if cameras is not None:
            _known("camera", cameras, np.unique(records.camera_name))
            keep &= np.isin(records.camera_name, list(cameras))
        if every is not None:
            if every < 1:
                raise ValueError(f"every must be at least 1, got {every}")
            keep &= records.frame % every == 0
        return np.flatnonzero(keep).astype(np.int64)

    def verify_digest(self) -> None:
        """Read everything again and compare it with the digests that were written.

        Raises:
            ValueError: Naming the shard whose contents have changed.
        """
        entries = []
        for path, expected in zip(self._shard_paths, self._shard_digests, strict=True):
            shard = _read_shard(path)
            shard.columns["images/bytes"] = np.memmap(
                path, np.uint8, mode="r", offset=shard.blob_start, shape=(shard.blob_size,)
            )
            found = _content_digest(shard.columns)
            if found != expected:
                raise ValueError(
                    f"{path} has changed: digest {found}, expected {expected}; convert again"
                )
            entries.append({"name": path.name, "count": shard.count, "digest": found})
        if (found := _store_digest(self.header, entries)) != self.digest:
            raise ValueError(f"{self.path} has digest {found}, its manifest states {self.digest}")


def open_store(path: Path | str) -> Store:
    """Open a store's folder, or one shard of it, for reading.

    The manifest's format, schema version and each shard's presence and size are checked; the
    contents only by `Store.verify_digest`.

    Args:
        path: A folder with store.json, or a shard-*.h5 file.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If it is not a finished store of this release's schema version, or incomplete.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no store at {path}; make one with pose3d-prep")
    if path.is_file():
        shard = _read_shard(path)
        entry = {"name": path.name, "count": shard.count, "digest": shard.digest}
        return Store(path, [shard], digest=_store_digest(shard.header, [entry]))
    manifest = _read_manifest(path / MANIFEST_NAME)
    shards = []
    for entry in manifest["shards"]:
        shard_path = path / entry["name"]
        if not shard_path.is_file():
            raise ValueError(f"store {path} lacks its shard {entry['name']}; convert again")
        size = shard_path.stat().st_size
        if size != entry["bytes"]:
            raise ValueError(
                f"{shard_path} has {size} bytes, the manifest states {entry['bytes']}; "
                "it is truncated or was replaced: copy or convert again"
            )
        shards.append(_read_shard(shard_path))
        if (shards[-1].count, shards[-1].digest) != (entry["count"], entry["digest"]):
            raise ValueError(
                f"{shard_path} is not the shard that the manifest names; convert again"
            )
    return Store(path, shards, digest=manifest["digest"])


def check_records(store: Store, *, decode: bool = True) -> list[str]:
    """Look for records that cannot be right.

    Checked: finite joints, maps and boxes; positive depths; at least half of the weighted joints
    in the stored crop; projection and back-projection agreeing to 0.01 mm; the crop showing
    `margin` times the box; no bone longer than `MAX_BONE_MM`; each JPEG decoding.

    Args:
        store: An open store.
        decode: Also decode every image.

    Returns:
        One line per problem, each naming its record; empty if all is well.
    """
    problems: list[str] = []
    for start in range(0, len(store), 4096):
        rows = np.arange(start, min(start + 4096, len(store)))
        problems += _check_rows(store, rows)
    if decode:
        for index in range(len(store)):
            try:
                store.image(index)
            except ValueError as error:
                problems.append(str(error))
    return problems


MAX_BONE_MM = 800.0
"""No bone of the joint sets is longer; a tall man's thigh, the longest, has about 550 mm."""


def _check_rows(store: Store, rows: Int64[np.ndarray, " n"]) -> list[str]:
    """The checks of `check_records` that need labels only."""
    records = store.records
    joints = records.joints_camera_mm[rows].astype(np.float64)
    finite = np.isfinite(joints).all((1, 2)) & np.isfinite(records.weight[rows]).all((1, 2))
    finite &= np.isfinite(records.box_image_px[rows]).all(1)
    finite &= np.isfinite(records.store_from_image[rows]).all((1, 2))
    positive = (np.nan_to_num(joints[..., 2]) > 0).all(1)
    problems = [f"{store.record_name(i)}: a label is not finite" for i in rows[~finite]]
    problems += [f"{store.record_name(i)}: a depth is not positive" for i in rows[~positive]]
    rows, joints = rows[finite & positive], joints[finite & positive]
    if not len(rows):
        return problems
    weighted = np.all(records.weight[rows][..., :2] > 0, axis=-1)
    camera = store.cameras[torch.from_numpy(records.camera_index[rows])]
    image_px = camera.camera_to_image(torch.from_numpy(joints))
    again = camera.image_to_camera(image_px, torch.from_numpy(joints[..., 2])).numpy()
    error_mm = np.abs(again - joints).max((1, 2))
    maps = records.store_from_image[rows]
    crop_px = transform_points(torch.from_numpy(maps), image_px).numpy()
    size = store.header.crop_size_px
    inside = ((crop_px >= -0.5) & (crop_px < size - 0.5)).all(-1)
    share = (inside & weighted).sum(1) / np.maximum(weighted.sum(1), 1)
    shown_px = size / np.sqrt(np.abs(np.linalg.det(maps[:, :2, :2])))
    expected_px = records.box_image_px[rows, 2] * store.header.margin
    bones = np.array(store.skeleton.bones)
    length_mm = np.linalg.norm(joints[:, bones[:, 0]] - joints[:, bones[:, 1]], axis=-1)
    length_mm *= np.all(weighted[:, bones], axis=-1)
    for i, row in enumerate(rows):
        name = store.record_name(row)
        if error_mm[i] > 0.01:
            problems.append(f"{name}: projecting and back misses by {error_mm[i]:.3g} mm")
        if share[i] < 0.5:
            problems.append(f"{name}: only {share[i]:.0%} of the joints fall into the crop")
        if abs(shown_px[i] / expected_px[i] - 1) > 0.01:
            problems.append(
                f"{name}: the crop shows {shown_px[i]:.0f} px, expected {expected_px[i]:.0f} px"
            )
        for bone in np.flatnonzero(length_mm[i] > MAX_BONE_MM):
            ends = " to ".join(store.skeleton.joint_names[j] for j in bones[bone])
            problems.append(f"{name}: {ends} is {length_mm[i, bone]:.0f} mm long")
    return problems


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shard:
    """The contents of a shard except its image bytes, and where those lie in the file."""

    path: Path
    header: StoreHeader
    digest: str
    count: int
    columns: dict[str, np.ndarray]
    skipped: list[tuple[str, str]]
    blob_start: int
    blob_size: int


def _read_shard(path: Path) -> _Shard:
    """Read everything but the image bytes; no handle stays open."""
    try:
        with h5py.File(path, "r") as file:
            header = _parse_header(file.attrs, path)
            blob = file["images/bytes"]
            columns = {
                f"{group}/{name}": dataset[()]
                for group in _SUMMED_GROUPS
                for name, dataset in file[group].items()
                if dataset != blob
            }
            return _Shard(
                path=path,
                header=header,
                digest=str(file.attrs["digest"]),
                count=len(columns["images/offsets"]) - 1,
                columns=columns,
                skipped=[(a.decode(), b.decode()) for a, b in file["skipped"][()]],
                blob_start=blob.id.get_offset() or 0,
                blob_size=blob.size,
            )
    except (OSError, KeyError) as error:
        raise ValueError(
            f"{path} is not a whole shard of a store ({_reason(error)}); copy or convert again"
        ) from error


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read and check store.json."""
    if not path.is_file():
        unfinished = (path.parent / PLAN_NAME).is_file()
        what = "is an unfinished store" if unfinished else "is not a store"
        todo = "run the same conversion again to finish it" if unfinished else "name a store"
        raise ValueError(f"{path.parent} {what} (no {MANIFEST_NAME}); {todo}")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        _parse_header(manifest, path)
        if not (isinstance(manifest["digest"], str) and manifest["shards"]):
            raise ValueError("no shards")
        for entry in manifest["shards"]:
            _ = entry["name"], entry["count"], entry["bytes"], entry["digest"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a store's manifest ({error}); convert again") from error
    return manifest


def _header_attributes(header: StoreHeader) -> dict[str, Any]:
    """The header's fields with format, version and joint names, as attributes or JSON."""
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        **asdict(header),
        "joint_names": list(skeleton_by_name(header.skeleton).joint_names),
    }


def _parse_header(attributes: Mapping[str, Any], path: Path) -> StoreHeader:
    """Check format and version, then build the header."""
    if attributes.get("format") != FORMAT:
        raise ValueError(f"{path} is not part of a {FORMAT}; name a store made by pose3d-prep")
    version = int(attributes["schema_version"])
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {version}; this release reads version {SCHEMA_VERSION}: "
            "convert the source again"
        )
    values = {field.name: attributes[field.name] for field in fields(StoreHeader)}
    for name, kind in (("crop_size_px", int), ("margin", float), ("jpeg_quality", int)):
        values[name] = kind(values[name])
    header = StoreHeader(**values)
    joint_names = tuple(str(name) for name in attributes["joint_names"])
    if joint_names != skeleton_by_name(header.skeleton).joint_names:
        raise ValueError(f"{path} has joints {joint_names}, not those of {header.skeleton}")
    return header


def _content_digest(columns: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(columns):
        array = np.ascontiguousarray(columns[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.view(np.uint8).data if array.size else b"")
    return total.hexdigest()


def _store_digest(header: StoreHeader, entries: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over the header and the shards' names, counts and digests."""
    content = {
        "header": _header_attributes(header),
        "shards": sorted([entry["name"], entry["count"], entry["digest"]] for entry in entries),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _merge_cameras(shards: Sequence[_Shard]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One table of the distinct cameras of all shards, and each record's row in it."""
    names = ("name", "image_size_px", *_CAMERA_SHAPES)
    rows: dict[tuple, int] = {}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    index = []
    for shard in shards:
        tables = [shard.columns[f"cameras/{name}"] for name in names]
        local = np.empty(len(tables[0]), np.int64)
        for i, values in enumerate(zip(*tables, strict=True)):
            key = tuple(np.asarray(value).tobytes().rstrip(b"\0") for value in values)
            if key not in rows:
                rows[key] = len(rows)
                for name, value in zip(names, values, strict=True):
                    parts[name].append(value)
            local[i] = rows[key]
        index.append(local[shard.columns["records/camera_index"]])
    return {name: np.array(values) for name, values in parts.items()}, np.concatenate(index)


def _merge_records(
    shards: Sequence[_Shard], table: Mapping[str, np.ndarray], *, camera_index: np.ndarray
) -> Records:
    """Concatenate the shards' columns and look their names up."""

    def column(name: str) -> np.ndarray:
        return np.concatenate([shard.columns[f"records/{name}"] for shard in shards])

    def integers(name: str) -> np.ndarray:
        return column(name).astype(np.int64)

    actions = [_decode(s.columns["names/actions"])[s.columns["records/action"]] for s in shards]
    return Records(
        camera_index=camera_index,
        camera_name=_decode(table["name"])[camera_index],
        image_size_px=table["image_size_px"][camera_index],
        joints_camera_mm=column("joints_camera_mm"),
        weight=column("weight"),
        visibility=column("visibility"),
        store_from_image=column("store_from_image"),
        box_image_px=column("box_image_px"),
        subject=integers("subject"),
        action=np.concatenate(actions),
        subaction=integers("subaction"),
        frame=integers("frame"),
        split=np.array(SPLITS)[column("split")],
    )


def _encode(texts: Sequence[str]) -> np.ndarray:
    """Texts as fixed-width UTF-8."""
    return np.array([text.encode("utf-8") for text in texts] or [], dtype=np.bytes_)


def _decode(texts: np.ndarray) -> np.ndarray:
    """Fixed-width UTF-8 as an array of str."""
    return np.array([text.decode("utf-8") for text in texts], dtype=np.str_)


def _known(kind: str, asked: Sequence[str], known: Sequence[str] | np.ndarray) -> None:
    """Refuse a name that does not occur."""
    unknown = [name for name in asked if name not in set(known)]
    if unknown:
        raise ValueError(
            f"unknown {kind} {', '.join(unknown)}; known: {', '.join(map(str, known))}"
        )


def _write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    """The system's reason for an error, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())
