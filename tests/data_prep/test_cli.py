"""The command line: what it prints, its exit codes, and never a traceback."""

import sys

import pytest

from data_prep import cli
from data_prep.boxes import BOXES
from data_prep.people import LENSES
from data_prep.selection import SHIFTED_SEQUENCES
from pose3d.data.store import open_store


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a verb; gives exit code, standard output and standard error."""

    def run_verb(*arguments):
        monkeypatch.setattr(sys, "argv", ["pose3d-prep", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run_verb


SMALL = ("--size", 96, "--jobs", 1)


def test_convert_then_verify(run, lookalike, tmp_path):
    store = tmp_path / "store"
    code, out, err = run("rle-json", lookalike.folder, store, *SMALL)
    assert code == 0
    assert f"8 records in {store}, digest {open_store(store).digest}" in out
    assert f"train set: {lookalike.annotation_path('train')}\n" in err
    assert "centre" in err
    code, out, _ = run("verify", store, "--sheet", tmp_path / "sheet.png", "--rows", 2)
    assert code == 0
    assert "no problems in 8 records" in out
    assert "Eating: 8" in out
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_verify_lists_problems_and_ends_with_one(run, lookalike, tmp_path):
    store = tmp_path / "store"
    run("rle-json", lookalike.folder, store, *SMALL)
    shard = store / "shard-train-s_05_act_04_subact_02_ca_01.h5"
    content = bytearray(shard.read_bytes())
    image = open_store(store).image_bytes(open_store(store).select(split="train")[0])
    start = content.find(image)
    content[start + len(image) - 40 : start + len(image)] = bytes(40)
    shard.write_bytes(content)
    code, out, err = run("verify", store)
    assert code == 1
    assert "2 problems:" in out
    assert (store / "overlay.png").stat().st_size > 10_000
    assert "shard-train-s_05_act_04_subact_02_ca_01.h5 has changed" in out
    assert "s_05_act_04_subact_02_ca_01_000001" in out
    assert "truncated JPEG" in out
    assert err == ""


def test_skipped_records_are_counted_and_listed(run, lookalike, tmp_path):
    lookalike.image_path(3).unlink()
    code, out, _ = run(
        "rle-json", lookalike.folder, tmp_path / "store", *SMALL, "--on-error", "skip"
    )
    assert code == 0
    assert "7 records in" in out
    assert "left out 1 records:" in out
    assert "000004.jpg is missing" in out


@pytest.mark.parametrize("kind", ["record", "source", "output", "store", "foreign"])
def test_an_error_is_one_line_and_exit_code_two(run, lookalike, tmp_path, kind):
    lookalike.image_path(3).unlink()
    (tmp_path / "file").write_text("")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    verbs = {
        "record": ("rle-json", lookalike.folder, tmp_path / "store", *SMALL),
        "source": ("rle-json", tmp_path / "nowhere", tmp_path / "store"),
        "output": (
            *("rle-json", lookalike.folder, tmp_path / "file" / "store", *SMALL),
            *("--on-error", "skip"),
        ),
        "foreign": (
            *("rle-json", lookalike.folder, tmp_path / "mine", *SMALL),
            *("--on-error", "skip"),
        ),
        "store": ("verify", tmp_path / "nowhere"),
    }
    code, _, err = run(*verbs[kind])
    assert code == 2
    errors = err[err.index("error:") :].strip()
    assert "\n" not in errors
    assert "Traceback" not in err
    expected = {
        "record": "--on-error skip leaves such records out",
        "source": "SOURCE must hold annotations/ and images/",
        "output": "cannot write the store",
        "foreign": "exists and is not a store",
        "store": "no store at",
    }
    assert expected[kind] in errors


def test_the_choices_are_those_that_the_modules_know():
    assert [choice.value for choice in cli.Box] == list(BOXES)
    assert [choice.value for choice in cli.Lens] == list(LENSES)
    assert [choice.value for choice in cli.Shifted] == list(SHIFTED_SEQUENCES)


def test_unknown_choices_name_the_known_ones(run, tmp_path):
    code, _, err = run("rle-json", tmp_path, tmp_path / "store", "--box", "tight")
    assert code == 2
    for choice in ("annotation", "joints", "metric"):
        assert choice in err


def test_synthetic_hands_its_options_over(run, monkeypatch, tmp_path):
    asked = {}

    class Generate:
        @staticmethod
        def generate_synthetic(path, **options):
            asked.update(options, path=path)
            return "d1935"

    monkeypatch.setitem(sys.modules, "data_prep.synthetic.generate", Generate)
    options = ("--train", 5, "--test", 2, "--seed", 3, "--overwrite")
    code, out, _ = run("synthetic", tmp_path / "s", *options)
    assert code == 0
    assert "7 records" in out
    assert "d1935" in out
    assert asked["path"] == tmp_path / "s"
    expected = {"num_train": 5, "num_test": 2, "seed": 3, "crop_size_px": 256, "renderer": "auto"}
    expected["overwrite"] = True
    assert {**asked, **expected} == asked
