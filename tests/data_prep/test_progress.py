"""Work in several processes gives what work in one gives, and errors arrive as they are."""

import importlib
from functools import partial

import pytest

from data_prep.progress import work_through

WORK = """
import os
import signal


def square(number, advance):
    advance(1)
    return number, number**2


def fail_at(number, advance, *, bad):
    if number == bad:
        raise ValueError(f"record {number} has no joints; mend it")
    return number


def run_out_of_disk(number, advance):
    raise OSError(28, "No space left on device", f"shard-{number}.h5")


def die(number, advance):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A module that fresh processes can import too."""
    (tmp_path / "work_of_a_test.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("work_of_a_test")


def run(tasks, work, *, jobs):
    results = []
    work_through(tasks, work, jobs=jobs, description="", total=len(tasks), take=results.append)
    return results


@pytest.mark.long
def test_two_processes_give_what_one_gives(work):
    assert run(range(5), work.square, jobs=1) == [(n, n**2) for n in range(5)]
    assert sorted(run(range(5), work.square, jobs=2)) == [(n, n**2) for n in range(5)]


def test_nothing_to_do_is_done(work):
    assert run([], work.square, jobs=1) == run([], work.square, jobs=4) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_arrives_as_it_is(work, jobs):
    with pytest.raises(ValueError, match=r"^record 2 has no joints; mend it$"):
        run(range(4), partial(work.fail_at, bad=2), jobs=jobs)


def test_a_full_disk_stays_an_oserror_with_its_file(work):
    with pytest.raises(OSError, match=r"No space left on device: 'shard-0\.h5'"):
        run([0], work.run_out_of_disk, jobs=1)


@pytest.mark.long
def test_a_killed_worker_is_told(work):
    with pytest.raises(ValueError, match=r"a worker of 2 was killed.*with fewer --jobs") as caught:
        run(range(3), work.die, jobs=2)
    assert "\n" not in str(caught.value)


def test_preparation_runs_before_the_first_task_and_not_for_none(work):
    seen = []
    work_through([1], lambda task, advance: seen.append(task), jobs=1, description="", total=1,
                 prepare=lambda: seen.append("prepared"))  # fmt: skip
    assert seen == ["prepared", 1]
    work_through(
        [], work.square, jobs=1, description="", total=0, prepare=lambda: seen.append("again")
    )
    assert seen == ["prepared", 1]
