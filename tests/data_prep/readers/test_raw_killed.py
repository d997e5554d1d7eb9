"""A conversion that is killed at any moment goes on, and ends as if it had not been."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from data_prep.lookalike.raw import write_raw
from data_prep.lookalike.world import make_world
from pose3d.data.store import open_store

NUM_KILLS = 10


def start(tree, store):
    """`pose3d-prep raw` in a process group of its own, so that all of it can be killed."""
    code = "from data_prep.cli import main; main()"
    options = ("--size", "64", "--protocol", "full", "--jobs", "2", "--box", "mask")
    arguments = [sys.executable, "-c", code, "raw", str(tree), str(store), *options]
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_kill_at_ten_random_moments_loses_nothing(tmp_path):
    world = make_world(subjects=(1, 9), actions=(2, 14), num_poses=8)
    tree = tmp_path / "tree"
    write_raw(world, tree)
    began_s = time.monotonic()
    whole = start(tree, tmp_path / "whole")
    out, _ = whole.communicate()
    assert whole.returncode == 0, out
    lasted_s = time.monotonic() - began_s
    moments = random.Random(0)
    kept = []
    for _ in range(NUM_KILLS):
        process = start(tree, tmp_path / "store")
        time.sleep(moments.uniform(0.2, 0.7) * lasted_s)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        shards = {path.name: path.read_bytes() for path in (tmp_path / "store").glob("shard-*")}
        for earlier in kept[-1:]:
            assert {name: shards.get(name) for name in earlier} == earlier
        kept.append(shards)
    last = start(tree, tmp_path / "store")
    out, _ = last.communicate()
    assert last.returncode == 0, out
    found, expected = (open_store(tmp_path / name) for name in ("store", "whole"))
    found.verify_digest()
    assert found.digest == expected.digest
    assert len(found) == 4 * sum(len(performance) for performance in world.performances)
    assert not list((tmp_path / "store").glob(".shard-*"))
