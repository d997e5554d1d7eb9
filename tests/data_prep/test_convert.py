"""Conversion: choice, resumption, parts of several machines, errors, counts, flat memory."""

import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from data_prep import convert as conversion
from data_prep.convert import convert
from data_prep.human36m import PROTOCOLS, action_name, sequences
from data_prep.lookalike.world import WorldReader, direct_take, make_world, unit_name
from data_prep.selection import ConversionConfig, Part, compare_counts, select_jobs
from data_prep.takes import Rejection
from pose3d.data.store import begin_store, finalise_store, open_store

CONFIG = ConversionConfig(crop_size_px=48, jpeg_quality=80)


@pytest.fixture(scope="module")
def world():
    """Two subjects, S9's shifted Greeting among what they do, before two cameras."""
    return make_world(
        subjects=(1, 9),
        actions=(5,),
        num_poses=3,
        camera_names=("54138969", "60457274"),
    )


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """The store that one uninterrupted run makes."""
    path = tmp_path_factory.mktemp("convert") / "whole"
    return convert(WorldReader(world), path, config=CONFIG)


class ChangedReader(WorldReader):
    """A world of which one unit is read otherwise."""

    def __init__(self, world, change, *, only=0):
        super().__init__(world)
        self._change, self._only = change, only

    def units(self):
        units = super().units()
        take = (self.world, self.world.performances[0], self.world.camera_names[self._only])
        units[self._only] = replace(
            units[self._only],
            read=partial(lambda change, t: change(direct_take(*t)), self._change, take),
        )
        return units


def test_one_shard_per_sequence_and_camera(whole, world):
    names = {path.name for path in whole.path.glob("shard-*.h5")}
    assert names == {
        f"shard-{'train' if p.subject == 1 else 'test'}-{unit_name(p, camera)}.h5"
        for p in world.performances
        for camera in world.camera_names
    }
    assert whole.num_records == 2 * sum(len(p) for p in world.performances)


class Killed(BaseException):
    """Ends a process wherever it is."""


@pytest.mark.parametrize("moment", [0, 1, 7, 16, 29])
def test_a_run_killed_at_any_moment_goes_on_to_the_same_store(
    world, whole, tmp_path, monkeypatch, moment
):
    made = []
    make_record = conversion.make_record

    def until(people, row, image, **rest):
        if len(made) == moment:
            raise Killed
        made.append(people.take.pictures.names[row])
        return make_record(people, row, image, **rest)

    monkeypatch.setattr(conversion, "make_record", until)
    with pytest.raises(Killed):
        convert(WorldReader(world), tmp_path / "store", config=CONFIG)
    with pytest.raises(ValueError, match="is an unfinished store"):
        open_store(tmp_path / "store")
    first = list(made)
    monkeypatch.setattr(conversion, "make_record", make_record)
    result = convert(WorldReader(world), tmp_path / "store", config=CONFIG)
    lengths = np.cumsum([len(p) for p in world.performances for _ in world.camera_names])
    assert result.num_resumed == (lengths <= len(first)).sum()
    assert result.digest == whole.digest
    assert not list((tmp_path / "store").glob(".shard*"))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_process_killed_for_good_loses_nothing(tmp_path):
    script = (
        "import sys\n"
        "from data_prep.convert import ConversionConfig, convert\n"
        "from data_prep.lookalike.world import WorldReader, make_world\n"
        "if __name__ == '__main__':\n"
        "    world = make_world(subjects=(1, 9), actions=(5,), num_poses=30)\n"
        "    config = ConversionConfig(crop_size_px=48, num_jobs=2)\n"
        "    print(convert(WorldReader(world), sys.argv[1], config=config).digest)\n"
    )
    (tmp_path / "run.py").write_text(script)

    def run(name, **options):
        command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / name)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    began_s = time.monotonic()
    expected = run("whole").stdout
    lasted_s = time.monotonic() - began_s
    assert len(expected) == 65
    num_killed = 0
    for share in np.random.default_rng(0).uniform(0.3, 0.8, 3):
        try:
            run("killed", timeout=share * lasted_s)  # ends in SIGKILL; the workers follow it
        except subprocess.TimeoutExpired:
            num_killed += 1
    assert num_killed > 0
    assert run("killed").stdout == expected


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_in_any_order_make_the_store_of_one_run(world, whole, tmp_path, order):
    results = [
        convert(WorldReader(world), tmp_path / "s", config=CONFIG, part=Part(number=n, count=3))
        for n in order
    ]
    assert [result.digest is None for result in results] == [True, True, False]
    assert results[-1].digest == whole.digest
    assert results[-1].num_records == whole.num_records
    assert results[0].num_missing == 8 - len(range(order[0] - 1, 8, 3))


@pytest.mark.long
def test_processes_and_parallel_parts_make_the_same_store(world, whole, tmp_path):
    config = replace(CONFIG, num_jobs=2)
    result = convert(WorldReader(world), tmp_path / "jobs", config=config)
    assert result.digest == whole.digest
    script = (
        "import sys\n"
        "from data_prep.convert import ConversionConfig, Part, convert\n"
        "from data_prep.lookalike.world import WorldReader, make_world\n"
        "world = make_world(subjects=(1, 9), actions=(5,), num_poses=3,\n"
        "                   camera_names=('54138969', '60457274'))\n"
        "config = ConversionConfig(crop_size_px=48, jpeg_quality=80)\n"
        "convert(WorldReader(world), sys.argv[1], config=config, part=Part.parse(sys.argv[2]))\n"
    )
    commands = [
        [sys.executable, "-c", script, str(tmp_path / "parts"), f"{number}/3"]
        for number in (1, 2, 3)
    ]
    running = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert open_store(tmp_path / "parts").digest == whole.digest


def test_a_part_of_another_plan_is_refused(world, tmp_path):
    part = Part(number=1, count=2)
    convert(WorldReader(world), tmp_path / "s", config=CONFIG, part=part)
    for other, what in (
        ({"jpeg_quality": 70}, "quality: 80 there, 70 asked"),
        ({"protocol": "hmr-1"}, "protocol: full there, hmr-1 asked"),
        ({"lens": "pinhole"}, "lens: source there, pinhole asked"),
        ({"shifted": "correct"}, "shifted: protocol there, correct asked"),
        ({"shifted": "block"}, "shards: "),
    ):
        with pytest.raises(ValueError, match="made from another source or with") as caught:
            convert(
                WorldReader(world),
                tmp_path / "s",
                config=replace(CONFIG, **other),
                part=Part(number=2, count=2),
            )
        assert what in str(caught.value)
    shorter = make_world(
        subjects=(1, 9), actions=(5,), num_poses=4, camera_names=("54138969", "60457274")
    )
    with pytest.raises(ValueError, match="performances: "):
        convert(WorldReader(shorter), tmp_path / "s", config=CONFIG, part=part)


def test_a_finished_store_is_made_again_only_if_asked(world, whole, tmp_path, monkeypatch):
    convert(WorldReader(world), tmp_path / "s", config=CONFIG)
    made, make_record = [], conversion.make_record

    def count(*arguments, **rest):
        made.append(1)
        return make_record(*arguments, **rest)

    monkeypatch.setattr(conversion, "make_record", count)
    again = convert(WorldReader(world), tmp_path / "s", config=CONFIG)
    assert (len(made), again.num_resumed, again.digest) == (0, 8, whole.digest)
    anew = convert(WorldReader(world), tmp_path / "s", config=CONFIG, overwrite=True)
    assert (len(made), anew.num_resumed, anew.digest) == (whole.num_records, 0, whole.digest)


def lose_a_joint(take):
    joints = take.joints_camera_mm.copy()
    joints[1, 3] = np.nan
    return replace(take, joints_camera_mm=joints)


def reject(take):
    return replace(take, rejections=(Rejection(name="x.jpg", reason="is odd", split="train"),))


def refuse(take):
    raise ValueError("file a.cdf is cut off; fetch it again")


FAULTS = {
    "label": (lose_a_joint, "_000002", "the position of R_Ankle is not finite", 1),
    "record": (reject, "x.jpg", "is odd", 0),
    "file": (refuse, "s_01_act_05_subact_01_ca_01", "file a.cdf is cut off; fetch it again", 3),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_what_cannot_be_converted_ends_in_one_line_or_is_left_out(world, whole, tmp_path, kind):
    change, name, reason, lost = FAULTS[kind]
    reader = ChangedReader(world, change)
    with pytest.raises(ValueError, match="--on-error skip leaves such records out") as caught:
        convert(reader, tmp_path / "s", config=CONFIG)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("train record ")
    assert f"{name}: {reason}" in text
    result = convert(reader, tmp_path / "s", config=replace(CONFIG, on_error="skip"))
    assert result.num_records == whole.num_records - lost
    ((found, why),) = result.skipped
    assert found.endswith(name)
    assert why == reason
    with pytest.raises(ValueError, match=r"made earlier with --on-error skip, lacks record"):
        convert(reader, tmp_path / "s", config=CONFIG)


def test_the_first_missing_file_is_named_and_how_many_more(world, tmp_path):
    reader = WorldReader(world)
    reader.missing = ["video a.mp4 is missing", "video b.mp4 is missing"]
    with pytest.raises(ValueError, match=r"^video a\.mp4 is missing \(and 1 more; --dry-run"):
        convert(reader, tmp_path / "s", config=CONFIG)
    convert(reader, tmp_path / "s", config=replace(CONFIG, on_error="skip"))


def chosen(world, **settings):
    selection = select_jobs(WorldReader(world), replace(CONFIG, **settings))
    return selection, [(job.unit.name, job.split, job.is_shifted) for job in selection.jobs]


def test_the_shifted_sequences_are_blocked_corrected_or_kept(world):
    shifted = {"s_09_act_05_subact_02_ca_01", "s_09_act_05_subact_02_ca_04"}
    for settings, kept, corrected in (
        ({"shifted": "block"}, False, False),
        ({"shifted": "correct"}, True, True),
        ({"shifted": "keep"}, True, False),
        ({"protocol": "rle-2"}, False, False),
        ({"protocol": "posenet-2"}, True, False),
        ({"protocol": "rle-2", "shifted": "keep"}, True, False),
    ):
        selection, jobs = chosen(world, **settings)
        names = {name for name, _, _ in jobs}
        assert shifted <= names if kept else not shifted & names
        assert {name for name, _, mended in jobs if mended} == (shifted if corrected else set())
        assert selection.is_shifted_kept == kept
        assert any("its poses are 200 mm off" in note for note in selection.notes) != kept


def test_corrected_poses_differ_by_the_shift_and_no_others(world, whole, tmp_path):
    config = replace(CONFIG, shifted="correct")
    result = convert(WorldReader(world), tmp_path / "s", config=config)
    before, after = open_store(whole.path), open_store(result.path)
    for row in range(len(before)):
        rotation = before.cameras.rotation[before.records.camera_index[row]].numpy()
        moved = after.records.joints_camera_mm[row] - before.records.joints_camera_mm[row]
        is_shifted = before.record_name(row).startswith("s_09_act_05_subact_02")
        expected = [-200.0, 0, 0] if is_shifted else [0, 0, 0]
        np.testing.assert_allclose(moved @ rotation, np.tile(expected, (17, 1)), atol=2e-3)


def test_protocols_choose_subjects_cameras_and_frames(tmp_path):
    world = make_world(
        subjects=(1, 11),
        actions=(14,),
        subactions=(1,),
        num_poses=66,
        camera_names=("54138969", "60457274"),
    )
    for protocol, cameras, train, test in (
        ("rle-2", 2, range(0, 66, 5), [0, 64]),
        ("hmr-2", 1, range(0, 66, 5), range(0, 67, 5)),
    ):
        config = replace(CONFIG, protocol=protocol, crop_size_px=16)
        store = open_store(convert(WorldReader(world), tmp_path / protocol, config=config).path)
        for subject, split, frames in ((1, "train", train), (11, "test", test)):
            rows = store.records.subject == subject
            assert set(store.records.split[rows]) == {split}
            assert sorted(store.records.frame[rows]) == sorted([*frames] * cameras)


def release_keys():
    return {
        (fact.subject, action_name(fact.action), fact.subaction) for fact in sequences().values()
    }


def test_counts_are_compared_for_the_whole_release_only():
    full = PROTOCOLS["full"]
    counts = Counter(train=1_559_752, test=548_819)
    arguments = {"is_shifted_kept": True, "num_skipped": 0}
    assert compare_counts(release_keys(), full, counts, **arguments) == [
        "train: 1559752 images, as all of Human3.6M has",
        "test: 548819 images, as all of Human3.6M has",
    ]
    part = {key for key in release_keys() if key[0] != 7}
    assert compare_counts(part, full, counts, **arguments) == []
    fewer = Counter(train=1_559_750, test=550_644)
    lines = compare_counts(release_keys(), full, fewer, **arguments)
    assert lines[0].startswith(
        "train: 1559750 images, 2 fewer than the 1559752 of all of Human3.6M"
    )
    assert lines[1].startswith("test: 550644 images, 1825 more than the 548819 of all of Human3.6M")
    (line, _) = compare_counts(release_keys(), full, fewer, is_shifted_kept=True, num_skipped=2)
    assert line.endswith("under full; 2 records were left out, see the manifest")


def test_a_missing_performance_explains_the_difference():
    keys = release_keys() - {(11, "Directions", 2)}  # as in VideoPose3D's files
    counts = Counter(train=1_559_752, test=543_344)  # its published count
    arguments = {"is_shifted_kept": True, "num_skipped": 0}
    assert compare_counts(keys, PROTOCOLS["full"], counts, **arguments) == [
        "train: 1559752 images, as all of Human3.6M has",
        "test: 543344 images, 5475 fewer than the 548819 of all of Human3.6M under full; 5475 of "
        "them are of S11 Directions, which is not there",
    ]
    fewer = Counter(train=1_559_752, test=543_343)
    (_, line) = compare_counts(keys, PROTOCOLS["full"], fewer, **arguments)
    assert "5476 fewer" in line
    assert "5475 of them are of S11 Directions, which is not there; sequences are short" in line


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5"])
def test_a_part_must_be_one_of_n(text):
    with pytest.raises(ValueError, match="--shard must"):
        Part.parse(text)


@pytest.mark.parametrize(
    "settings",
    [
        {"box": "tight"},
        {"shifted": "mend"},
        {"lens": "wide"},
        {"on_error": "ignore"},
        {"enlarge": 0},
        {"protocol": "rle"},
        {"num_jobs": 0},
    ],
)
def test_unknown_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"must be|unknown protocol"):
        ConversionConfig(**settings)


def test_a_box_that_the_layout_lacks_is_refused(world, tmp_path):
    for box in ("annotation", "mask"):
        with pytest.raises(ValueError, match="this layout has no boxes"):
            convert(WorldReader(world), tmp_path / "s", config=replace(CONFIG, box=box))


def test_a_source_of_which_nothing_takes_part_is_refused(world, tmp_path):
    alone = make_world(subjects=(9,), actions=(5,), subactions=(2,), num_poses=2)
    with pytest.raises(ValueError, match=r"nothing of look-alike world takes part: .*200 mm off"):
        convert(WorldReader(alone), tmp_path / "s", config=replace(CONFIG, shifted="block"))


FLAT = """
import resource, sys
import numpy as np
from pathlib import Path
from data_prep.lookalike.world import WorldReader, make_world
from data_prep.convert import store_header
from data_prep.selection import ConversionConfig
from data_prep.people import people_of
from data_prep.crops import Place, make_record
from dataclasses import replace
from pose3d.data.store import ShardWriter

world = make_world(subjects=(1,), actions=(5,), subactions=(1,), num_poses=2)
reader = WorldReader(world)
header = store_header(reader, ConversionConfig(crop_size_px=64))
people = people_of(reader.units()[0].load(), box="joints", enlarge=1.0)
image = next(iter(people.take.pictures.frames()))
place = Place(subject=1, action="Greeting", subaction=1, split="train")
record = make_record(people, 0, image, place=place, header=header)
jpeg = record.image_jpeg[:-2] + bytes(200_000) + b"\\xff\\xd9"
record = replace(record, image_jpeg=jpeg)

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000

with ShardWriter(Path(sys.argv[1]) / "shard-a.h5", header=header) as shard:
    shard.add(record)
    before = peak_mb()
    for frame in range(1000):
        shard.add(replace(record, frame=frame))
    print(peak_mb() - before)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_images_of_a_shard(tmp_path):
    """200 MB of images go through a writer."""
    command = [sys.executable, "-c", FLAT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60
    assert (tmp_path / "shard-a.h5").stat().st_size > 200e6


def test_an_empty_store_is_refused(world, tmp_path):
    begin_store(tmp_path / "s", plan={})
    with pytest.raises(ValueError, match="holds no records"):
        finalise_store(tmp_path / "s", conversion.store_header(WorldReader(world), CONFIG))
