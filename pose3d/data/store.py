"""The store: person crops and their 3-D labels in one folder of HDF5 shards.

    STORE/store.json     manifest: format, schema_version, the header's fields, joint_names,
                         num_records, digest, shards [{name, count, bytes, digest}],
                         skipped [{name, reason}]
    STORE/plan.json      what the shards were made from; lets an interrupted run continue
    STORE/shard-*.h5     the records, in the order of the shards' names (see `pose3d.data.shard`)

The manifest is written last, by renaming. The store's digest covers the header and the shards'
digests, so that neither time nor the order in which shards were written changes it. Labels are read
when the store is opened; every process maps the image bytes lazily for itself and no HDF5 handle
stays open, so that a store may be used after a fork, from threads, and be pickled.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8

from pose3d.data.shard import (
    CAMERA_SHAPES,
    FORMAT,
    HUMAN36M_ACTIONS,
    HUMAN36M_FIRST_ACTION,
    INT32_MAX,
    SCHEMA_VERSION,
    SPLITS,
    Shard,
    ShardWriter,
    StoreHeader,
    StoreRecord,
    check_jpeg,
    content_digest,
    decode_texts,
    header_attributes,
    is_abandoned,
    one_line,
    parse_header,
    read_shard,
    sync,
    temporary_name,
)
from pose3d.geometry.camera import HUMAN36M_CAMERA_NAMES, Camera
from pose3d.geometry.skeleton import skeleton_by_name

__all__ = [
    "FORMAT",
    "HUMAN36M_ACTIONS",
    "HUMAN36M_FIRST_ACTION",
    "INT32_MAX",
    "SCHEMA_VERSION",
    "SPLITS",
    "Records",
    "ShardWriter",
    "Store",
    "StoreHeader",
    "StoreRecord",
    "begin_store",
    "check_jpeg",
    "finalise_store",
    "open_store",
    "read_plan",
]

MANIFEST_NAME = "store.json"
PLAN_NAME = "plan.json"


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
        # Another machine that begins the same store may have its plan under a temporary name yet.
        content = {
            path.name for path in directory.iterdir() if not path.name.startswith(f".{PLAN_NAME}.")
        }
        if content and not content & {PLAN_NAME, MANIFEST_NAME}:
            raise ValueError(f"{directory} exists and is not a store; name a new or empty folder")
        if overwrite:
            # The manifest last, the plan replaced: an interrupted run leaves what is a store.
            for path in [*directory.glob("shard-*.h5"), directory / MANIFEST_NAME]:
                path.unlink(missing_ok=True)
        elif content and not (plan_path.is_file() and plan_path.read_text("utf-8") == text):
            raise ValueError(
                f"{directory} holds a store made from another source or with other settings "
                f"({_plan_difference(plan_path, plan)}); name another folder or pass --overwrite"
            )
        for stray in directory.glob(".shard-*"):  # of a run that was killed, or still goes on
            if is_abandoned(stray):
                stray.unlink(missing_ok=True)
        _write_text(plan_path, text)
    except OSError as error:
        raise OSError(f"cannot write the store {directory}: {one_line(error)}") from error
    return {path.name for path in directory.glob("shard-*.h5")}


def read_plan(directory: Path | str) -> dict[str, Any]:
    """The plan that a store's folder was begun with; empty where there is none to be read."""
    try:
        plan = json.loads((Path(directory) / PLAN_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return plan if isinstance(plan, dict) else {}


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
    shards = [read_shard(path) for path in sorted(directory.glob("shard-*.h5"))]
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
        **header_attributes(header),
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

    def __init__(self, path: Path, shards: list[Shard], *, digest: str) -> None:
        self.path = path
        self.header = shards[0].header
        self.skeleton = skeleton_by_name(self.header.skeleton)
        self.digest = digest
        self.skipped = [pair for shard in shards for pair in shard.skipped]
        table, index = _merge_cameras(shards)
        self.cameras = Camera.from_parameters(
            **{name: table[name] for name in CAMERA_SHAPES}, dtype=torch.float64
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

    def image_bytes(self, index: SupportsIndex) -> bytes:
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

    def image(self, index: SupportsIndex) -> UInt8[np.ndarray, "size size 3"]:
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

    def source_file(self, index: SupportsIndex) -> str:
        """The source image of one record, relative to the source's image folder."""
        return self._source_files[index].decode("utf-8")

    def record_name(self, index: SupportsIndex) -> str:
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
            shard = read_shard(path)
            shard.columns["images/bytes"] = np.memmap(
                path, np.uint8, mode="r", offset=shard.blob_start, shape=(shard.blob_size,)
            )
            found = content_digest(shard.columns)
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

    Returns:
        The store: labels in memory (joints in camera millimetres), images read when asked for.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If it is not a finished store of this release's schema version, or incomplete.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no store at {path}; make one with pose3d-prep")
    if path.is_file():
        shard = read_shard(path)
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
        shards.append(read_shard(shard_path))
        if (shards[-1].count, shards[-1].digest) != (entry["count"], entry["digest"]):
            raise ValueError(
                f"{shard_path} is not the shard that the manifest names; convert again"
            )
    return Store(path, shards, digest=manifest["digest"])


def _plan_difference(path: Path, plan: Mapping[str, Any]) -> str:
    """Name what differs between the plan in a file and a new one."""
    old = read_plan(path.parent)
    if not old:
        return "its plan cannot be read"
    new = json.loads(json.dumps(plan))
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {old.get(name)} there, {new.get(name)} asked" for name in names)


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read and check store.json."""
    if not path.is_file():
        unfinished = (path.parent / PLAN_NAME).is_file()
        what = "is an unfinished store" if unfinished else "is not a store"
        todo = "run the same conversion again to finish it" if unfinished else "name a store"
        raise ValueError(f"{path.parent} {what} (no {MANIFEST_NAME}); {todo}")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if not isinstance(manifest, dict):
            raise TypeError(f"it holds a {type(manifest).__name__}")
        parse_header(manifest, path)
        if not (isinstance(manifest["digest"], str) and manifest["shards"]):
            raise ValueError("no shards")
        for entry in manifest["shards"]:
            _ = entry["count"], entry["bytes"], entry["digest"]
            if not isinstance(entry["name"], str):
                raise TypeError(f"a shard is named {entry['name']!r}")
    except (
        *(json.JSONDecodeError, UnicodeDecodeError, RecursionError),
        *(KeyError, TypeError, AttributeError, OverflowError),
    ) as error:
        raise ValueError(f"{path} is not a store's manifest ({error}); convert again") from error
    return manifest


def _store_digest(header: StoreHeader, entries: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over the header and the shards' names, counts and digests."""
    content = {
        "header": header_attributes(header),
        "shards": sorted([entry["name"], entry["count"], entry["digest"]] for entry in entries),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _merge_cameras(shards: Sequence[Shard]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One table of the distinct cameras of all shards, and each record's row in it."""
    names = ("name", "image_size_px", *CAMERA_SHAPES)
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
    if not rows:  # every record of a shard may have been left out
        return {name: shards[0].columns[f"cameras/{name}"] for name in names}, index[0]
    return {name: np.array(values) for name, values in parts.items()}, np.concatenate(index)


def _merge_records(
    shards: Sequence[Shard], table: Mapping[str, np.ndarray], *, camera_index: np.ndarray
) -> Records:
    """Concatenate the shards' columns and look their names up."""

    def column(name: str) -> np.ndarray:
        return np.concatenate([shard.columns[f"records/{name}"] for shard in shards])

    def integers(name: str) -> np.ndarray:
        return column(name).astype(np.int64)

    actions = [
        decode_texts(s.columns["names/actions"])[s.columns["records/action"]] for s in shards
    ]
    return Records(
        camera_index=camera_index,
        camera_name=decode_texts(table["name"])[camera_index],
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


def _known(kind: str, asked: Sequence[str], known: Sequence[str] | np.ndarray) -> None:
    """Refuse a name that does not occur."""
    unknown = [name for name in asked if name not in set(known)]
    if unknown:
        raise ValueError(
            f"unknown {kind} {', '.join(unknown)}; known: {', '.join(map(str, known))}"
        )


def _write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    temporary = path.with_name(temporary_name(path.name))
    try:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
