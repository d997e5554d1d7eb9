"""Checkpoints: whole or not at all, never code, and wrong ones named in a line."""

import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from pose3d.engine import checkpoint
from pose3d.engine.checkpoint import (
    load_checkpoint,
    load_state,
    random_state,
    restore_random_state,
    save_checkpoint,
)

CONTENTS = {"weights": {"a": torch.arange(3.0)}, "step": 4, "words": "x", "list": [1, 2.5, None]}


def test_what_was_saved_is_loaded(tmp_path):
    save_checkpoint(tmp_path / "new" / "last.pt", CONTENTS)
    loaded = load_checkpoint(tmp_path / "new" / "last.pt")
    assert torch.equal(loaded["weights"]["a"], torch.arange(3.0))
    assert (loaded["step"], loaded["words"], loaded["list"]) == (4, "x", [1, 2.5, None])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.pt"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, CONTENTS)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk is full")))
    with pytest.raises(OSError, match="disk is full"):
        save_checkpoint(path, {"step": 5})
    assert path.read_bytes() == before


@pytest.mark.parametrize("can_link", [True, False])
def test_the_second_name_keeps_its_contents_when_the_first_is_written_again(
    tmp_path, monkeypatch, can_link
):
    if not can_link:
        monkeypatch.setattr(checkpoint.os, "link", _refuse)
    save_checkpoint(tmp_path / "last.pt", {"step": 1}, also=tmp_path / "best.pt")
    save_checkpoint(tmp_path / "last.pt", {"step": 2})
    save_checkpoint(tmp_path / "last.pt", {"step": 3}, also=tmp_path / "best.pt")
    save_checkpoint(tmp_path / "last.pt", {"step": 4})
    assert load_checkpoint(tmp_path / "best.pt")["step"] == 3
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 4


def _refuse(*_):
    raise OSError("no hard links here")


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "text"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weights": torch.zeros(1000)})
    data = bytearray(path.read_bytes())
    match damage:
        case "flip":
            data[data.index(bytes(400)) + 200] ^= 1
        case "truncate":
            data = data[: len(data) // 2]
        case "empty":
            data = bytearray()
        case "text":
            data = bytearray(b"hello")
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"last\.pt is damaged") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


class Payload:
    ran = False

    def __reduce__(self):
        return (_run_payload, ())


def _run_payload():
    Payload.ran = True
    return {}


def test_loading_never_runs_code(tmp_path):
    torch.save({"format": checkpoint.FORMAT, "version": 1, "x": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint") as caught:
        load_checkpoint(tmp_path / "evil.pt")
    assert "\n" not in str(caught.value)
    assert not Payload.ran
    pickle.loads(pickle.dumps(Payload()))  # the payload does work
    assert Payload.ran


def test_another_file_of_tensors_is_no_checkpoint(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="is not a checkpoint of pose3d"):
        load_checkpoint(tmp_path / "weights.pt")


def test_another_version_is_refused(tmp_path):
    torch.save({"format": checkpoint.FORMAT, "version": 99, "pose3d": "9.9"}, tmp_path / "new.pt")
    with pytest.raises(ValueError, match=r"version 99, this release reads 1; .* pose3d 9\.9"):
        load_checkpoint(tmp_path / "new.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*best\.pt"):
        load_checkpoint(tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Linear(3, 5), r"weight has shape \(5, 3\), expected \(4, 3\); bias has shape \(5,\)"),
        (nn.Linear(3, 4, bias=False), "bias is missing"),
        (nn.Bilinear(3, 3, 4), r"weight has shape \(4, 3, 3\)"),
        (nn.Sequential(nn.Linear(3, 4)), r"weight is missing; bias is missing; 0\.weight is unkn"),
    ],
)
def test_parameters_of_another_model_are_named(other, message):
    with pytest.raises(ValueError, match=f"^here is of another model: .*{message}"):
        load_state(nn.Linear(3, 4), other.state_dict(), source="here")


def test_random_states_come_back():
    state = random_state()
    drawn = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    restore_random_state(state)
    again = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    assert torch.equal(drawn[0], again[0])
    assert np.array_equal(drawn[1], again[1])
