"""Write a world in the annotation layout of the released RLE code; see its reader."""

import json
from pathlib import Path
from typing import Any

from data_prep.human36m import PROTOCOLS
from data_prep.lookalike.image_trees import write_image_tree
from data_prep.lookalike.posenet_json import camera_values, frame_labels
from data_prep.lookalike.world import World

FILES = {
    "train": "Sample_trainmin_train_Human36M_protocol_2.json",
    "test": "Sample_64_test_Human36M_protocol_2.json",
}


def write_rle_json(
    world: World, folder: Path, *, train_every: int = 5, test_every: int = 64
) -> None:
    """Write the tree: both annotation files, where t is the camera's centre, and all images.

    Args:
        world: What was recorded; S1, S5, S6, S7 and S8 train, S9 and S11 test.
        folder: The tree's folder.
        train_every: Label training frames whose number from 0 is a multiple of this.
        test_every: The same for the test set.

    Raises:
        OSError: If a file cannot be written.
    """
    write_image_tree(world, folder, kind="posenet")
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, every in (("train", train_every), ("test", test_every)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for performance in world.performances:
            if PROTOCOLS["rle-2"].split_of(performance.subject) != split:
                continue
            for name in world.camera_names:
                camera = camera_values(world, performance.subject, name, "centre")
                for frame in range(0, len(performance), every):
                    image, annotation, _ = frame_labels(
                        world, performance, name, frame, number=len(images)
                    )
                    joints = performance.joints_world_mm[frame].tolist()
                    images.append({**image, "cam_param": camera})
                    annotations.append({**annotation, "keypoints_world": joints})
        if images:
            content = {"images": images, "annotations": annotations}
            (folder / "annotations" / FILES[split]).write_text(json.dumps(content))
