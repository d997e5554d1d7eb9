"""Result files are read together; what is missing or damaged is said in one line."""

import json

import numpy as np
import pytest

from pose3d.report.results import read_results


def copy_of(run, folder):
    """The results of a run in another folder."""
    (folder / "results").mkdir(parents=True)
    for file in (run / "results").iterdir():
        (folder / "results" / file.name).write_bytes(file.read_bytes())
    return folder


def test_bones_join_each_joint_to_its_parent(run):
    results = read_results(run)
    names = results.predictions.joint_names
    bones = {(names[parent], names[child]) for parent, child in results.bones}
    assert len(results.bones) == 16
    assert {("Pelvis", "L_Hip"), ("L_Elbow", "L_Wrist"), ("Nose", "Head")} <= bones
    assert results.sides[names.index("R_Wrist")] == "right"
    assert results.sides[names.index("Neck")] == "centre"


def test_bones_skip_joints_that_are_not_evaluated(fabricate, tmp_path):
    predictions = fabricate.predictions(num_samples=30, metadata={"skeleton": "human36m_18"})
    results = read_results(fabricate.run(tmp_path / "run", predictions))
    assert {child for _, child in results.bones} == set(range(1, 17))


def test_a_run_that_was_not_evaluated_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="pose3d evaluate"):
        read_results(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"epoch": 1}'])
def test_metrics_that_are_none_are_refused(run, tmp_path, content):
    folder = copy_of(run, tmp_path / "run")
    (folder / "results" / "metrics.json").write_text(content)
    with pytest.raises(ValueError, match=r"metrics\.json"):
        read_results(folder)


def test_examples_of_different_lengths_are_refused(run, tmp_path):
    folder = copy_of(run, tmp_path / "run")
    np.savez(
        folder / "results" / "examples.npz",
        images=np.zeros((2, 8, 8, 3), np.uint8),
        rows=np.zeros(2, int),
        kind=np.array(["best"]),
    )
    with pytest.raises(ValueError, match="same length"):
        read_results(folder)


def test_a_log_cut_off_in_its_last_line_is_read_up_to_it(run, tmp_path):
    folder = copy_of(run, tmp_path / "run")
    line = json.dumps({"event": "epoch", "epoch": 1, "loss": 2.0})
    (folder / "log.jsonl").write_text(f'{line}\n{line}\n{{"event": "ep')
    assert len(read_results(folder).log) == 2
    (folder / "log.jsonl").write_text(f'{{"event": "ep\n{line}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_results(folder)
