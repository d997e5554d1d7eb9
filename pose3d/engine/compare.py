"""Train variants on one store under equal budgets, resumably, and put their numbers side by side.

The folder of a comparison:

=============================  ====================================================================
runs/NAME-seedN/               an ordinary run; resumed where it stopped
results/NAME-seedN.{json,npz}  what is kept of a finished (or failed) run, all that tables need
logs/NAME-seedN.txt            what a training beside others said
comparison.json                all numbers with definitions, commit, date, device and command
=============================  ====================================================================

The order of images and their augmentation hang on (seed, epoch, record), and the initial weights on
the seed, so that runs of one seed see the same images and, where they have the same backbone, begin
from the same weights of it. Trained is seed by seed, so that what is there so far is comparable.
"""

import fcntl
import json
import math
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pose3d.data.dataset import make_dataset
from pose3d.data.mixture import make_mixture
from pose3d.data.store import Store, open_store
from pose3d.engine.checkpoint import checkpoint_config, code_provenance, load_checkpoint
from pose3d.engine.config import (
    RunConfig,
    config_differences,
    config_from_dict,
    config_to_dict,
)
from pose3d.engine.infer import choose_device
from pose3d.engine.judge import judge_run
from pose3d.engine.scoreboard import DEFINITIONS, NUM_RESAMPLES, RunRecord, scoreboard
from pose3d.engine.session import FREE_SETTINGS
from pose3d.engine.train import StopSignals, train
from pose3d.engine.variants import Plan, check_seeds, load_plan
from pose3d.evaluation.npz import read_npz, write_npz

FORMAT = "pose3d-comparison"
SCHEMA_VERSION = 1
EXIT_DONE, EXIT_ERROR, EXIT_FAILED, EXIT_STOPPED = 0, 2, 3, 130
POLL_S = 0.2
LOCK_PATIENCE_S = 30.0
"""How long a run may still be held by a training that is just stopping."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One variant at one seed."""

    out: Path
    name: str
    seed: int
    config: RunConfig

    @property
    def label(self) -> str:
        """In file names."""
        return f"{self.name}-seed{self.seed}"

    @property
    def run(self) -> Path:
        """Folder of the run."""
        return self.out / "runs" / self.label

    @property
    def result(self) -> Path:
        """The JSON that says that it is finished."""
        return self.out / "results" / f"{self.label}.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What stands of a comparison."""

    out: Path
    numbers: dict[str, Any]
    """As comparison.json has them."""
    was_stopped: bool
    """Whether it was asked to stop before all runs were trained."""
    unfinished: dict[str, str]
    """Runs that ended without a result, with what is known of the reason."""

    @property
    def is_complete(self) -> bool:
        """Whether every variant has every seed."""
        return not any(row["missing"] or row["failed"] for row in self.numbers["variants"])


def compare(
    config: str | Path,
    *,
    store: str | Path | None,
    out: str | Path,
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    jobs: int = 1,
    table_only: bool = False,
    retry: bool = False,
    is_shown: bool = True,
) -> Comparison:
    """Train what is not trained yet of a comparison, judge it, and write its numbers.

    Args:
        config: YAML file, see the variants module.
        store: Folder of the store; None with ``table_only``.
        out: Folder of the comparison, new or of the same comparison: finished runs are kept,
            unfinished ones go on.
        only: Names of variants to train now; none = all.
        seeds: Seeds to train now; None = those of the file.
        jobs: Trainings side by side, which share the processor's threads.
        table_only: Train nothing.
        retry: Train those that failed again, from their last checkpoint.
        is_shown: False keeps the terminal silent.

    Returns:
        The numbers so far. SIGINT and SIGTERM end the trainings after the step in progress.

    Raises:
        ValueError: If the file makes no sense, the store does not fit its settings, or a run of
            another configuration or store is there.
        OSError: If a file cannot be read or written; with ``table_only``, if there is no folder.
    """
    plan, out = load_plan(config), Path(out)
    chosen = plan.seeds if seeds is None else check_seeds(list(seeds), source="seeds")
    names = [plan.variant(name).name for name in only] or [v.name for v in plan.variants]
    if jobs < 1:
        raise ValueError(f"jobs must be >= 1, got {jobs}")
    if store is None and not table_only:
        raise ValueError("name the store to train on")
    if table_only and not out.is_dir():
        raise FileNotFoundError(f"nothing was compared at {out}; name the folder of a comparison")
    everything = [
        Job(out=out, name=v.name, seed=seed, config=v.at_seed(seed))
        for seed in sorted({*plan.seeds, *chosen})
        for v in plan.variants
    ]
    opened = None if store is None else open_store(store)
    _check_kept_runs(everything, opened)
    was_stopped, unfinished = False, dict[str, str]()
    if not table_only:
        assert opened is not None
        wanted = [job for job in everything if job.name in names and job.seed in chosen]
        waiting = [job for job in wanted if _is_waiting(job, retry=retry)]
        _check_store(waiting, opened)
        if is_shown:
            print(f"{len(wanted)} runs, {len(wanted) - len(waiting)} finished before", flush=True)
        runner = _run_in_turn if jobs == 1 else _run_side_by_side
        was_stopped, unfinished = runner(waiting, opened, jobs=jobs, is_shown=is_shown)
    command = _kept_command(out) if table_only else ""
    command = command or _command(plan, config, None if table_only else store, out, chosen, jobs)
    header = _header(plan, command=command)
    numbers = _plain({**header, **_table(plan, everything)})
    write_json(out / "comparison.json", numbers)
    return Comparison(out=out, numbers=numbers, was_stopped=was_stopped, unfinished=unfinished)


def read_comparison(out: str | Path) -> dict[str, Any]:
    """DIR/comparison.json.

    Raises:
        FileNotFoundError: If nothing was compared there yet.
        ValueError: If it is no comparison of this version.
    """
    path = Path(out) / "comparison.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; run `pose3d compare` first")
    numbers = _read_json(path)
    if (numbers.get("format"), numbers.get("schema_version")) != (FORMAT, SCHEMA_VERSION):
        raise ValueError(f"{path} is no comparison that this release reads; make the table again")
    return numbers


def finish_run(job: Job, store: Store, *, jobs: int, is_shown: bool) -> int:
    """Train one run to its end and judge it; what came of it as an exit code.

    A ValueError of training or judging, such as too many steps that were not finite, is written
    down as the result of this run.
    """
    with _lock(job):
        if job.result.is_file():  # another call of the same comparison was faster
            return EXIT_DONE
        started = time.perf_counter()
        about = {"name": job.name, "seed": job.seed, "jobs": jobs, **_machine(job.config)}
        about |= {"config": config_to_dict(job.config), "store_digest": store.digest}
        try:
            trained = train(job.config, store=store, run=job.run, resume=True, is_shown=is_shown)
            if not trained.is_complete:
                return EXIT_STOPPED
            summary, arrays = judge_run(job.run, store=store, device=job.config.train.device)
        except ValueError as error:
            message = " ".join(str(error).split())
            write_json(job.result, {**about, "status": "failed", "message": message})
            return EXIT_FAILED
        write_npz(job.result.with_suffix(".npz"), arrays)
        seconds = time.perf_counter() - started
        kept = {**about, **summary, "status": "done", "seconds_of_last_call": seconds}
        write_json(job.result, kept)
        return EXIT_DONE


def work(text: str) -> int:
    """What a training beside others runs: `finish_run` of a job given as JSON."""
    given = json.loads(text)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    job = Job(
        out=Path(given["out"]),
        name=given["name"],
        seed=given["seed"],
        config=config_from_dict(given["config"]),
    )
    try:
        return finish_run(job, open_store(given["store"]), jobs=given["jobs"], is_shown=True)
    except KeyboardInterrupt:
        return EXIT_STOPPED
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_ERROR


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the whole new one; NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = json.dumps(_plain(values), indent=1, allow_nan=False, ensure_ascii=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    """The value as JSON gives it back."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); remove it to train that again") from error


def _is_waiting(job: Job, *, retry: bool) -> bool:
    """Whether there is something left to do; forgets a failure that is to be tried again."""
    if job.result.is_file() and retry and _read_json(job.result)["status"] == "failed":
        job.result.unlink()
    return not job.result.is_file()


def _check_kept_runs(jobs: Sequence[Job], store: Store | None) -> None:
    """Refuse to mix runs of different settings or stores."""
    for job in jobs:
        last = job.run / "checkpoints" / "last.pt"
        if job.result.is_file():
            kept = _read_json(job.result)
            trained, digest = config_from_dict(kept["config"]), kept["store_digest"]
        elif last.is_file():
            contents = load_checkpoint(last)
            trained, digest = checkpoint_config(contents, source=last), contents["digest"]
        else:
            continue
        changed = config_differences(trained, job.config, ignore=FREE_SETTINGS)
        advice = f"use another --out, or remove {job.run} and {job.result.with_suffix('.*')}"
        if changed:
            words = ", ".join(f"{name} was {old} and is now {new}" for name, old, new in changed)
            raise ValueError(f"{job.label} was trained with other settings: {words}; {advice}")
        if store is not None and digest != store.digest:
            raise ValueError(
                f"{job.label} was trained on another store than {store.path}; {advice}"
            )


def _check_store(jobs: Sequence[Job], store: Store) -> None:
    """Refuse settings that do not fit the store before a run fails of them, one after another."""
    for data in dict.fromkeys(job.config.data for job in jobs):
        make_mixture([store], data)
        make_dataset(store, data, role="test")


def _run_in_turn(
    waiting: Sequence[Job], store: Store, *, jobs: int, is_shown: bool
) -> tuple[bool, dict[str, str]]:
    """Train one after the other in this process; whether it was stopped, and what broke off."""
    unfinished = dict[str, str]()
    for number, job in enumerate(waiting, start=1):
        if is_shown:
            print(f"{job.label} ({number} of {len(waiting)})", flush=True)
        try:
            code = finish_run(job, store, jobs=jobs, is_shown=is_shown)
        except KeyboardInterrupt:
            return True, unfinished
        except RuntimeError as error:  # such as memory that does not suffice for this one
            unfinished[job.label] = " ".join(str(error).split())
            continue
        if code == EXIT_STOPPED:
            return True, unfinished
        if is_shown:
            print(_in_words(job), flush=True)
    return False, unfinished


def _run_side_by_side(
    waiting: Sequence[Job], store: Store, *, jobs: int, is_shown: bool
) -> tuple[bool, dict[str, str]]:
    """Train several at a time, each in a process of its own with its share of the threads."""
    queue, running, unfinished = list(waiting), dict[str, tuple[Job, subprocess.Popen[bytes]]](), {}
    error = ""
    with StopSignals() as stop:
        while queue or running:
            while queue and len(running) < jobs and not (stop.is_requested or error):
                job = queue.pop(0)
                running[job.label] = job, _start(job, store, jobs=jobs)
            time.sleep(POLL_S)
            for label, (job, process) in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[label]
                if code == EXIT_ERROR:
                    error = error or f"{label}: {_last_line(job)}"
                elif code not in (EXIT_DONE, EXIT_FAILED, EXIT_STOPPED):
                    unfinished[label] = f"ended with code {code}; {_last_line(job)}"
                elif is_shown and code != EXIT_STOPPED:
                    print(_in_words(job), flush=True)
            if stop.is_requested or error:
                _stop_all([process for _, process in running.values()])
                break
    if error:
        raise OSError(error)
    return stop.is_requested, unfinished


def _start(job: Job, store: Store, *, jobs: int) -> "subprocess.Popen[bytes]":
    """A process that trains one run; it ends when this one does, since its input then closes."""
    log = job.out / "logs" / f"{job.label}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    given = {"out": str(job.out), "name": job.name, "seed": job.seed, "jobs": jobs}
    given |= {"store": str(store.path), "config": config_to_dict(job.config)}
    code = "import sys; from pose3d.engine.compare import work; sys.exit(work(sys.argv[1]))"
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, num_processors() // jobs))
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": threads},
            start_new_session=True,  # Ctrl-C reaches it once, through this process
        )


def _stop_all(processes: "Sequence[subprocess.Popen[bytes]]") -> None:
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait()


def _stop_with_parent() -> None:
    """End this process after its step once the other end of its input is gone."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _lock(job: Job) -> Iterator[None]:
    """Hold a run for this process alone, also against other calls of the same comparison."""
    path = job.out / "runs" / f".{job.label}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise OSError(
                        f"{job.run} is being trained by another process; wait for it or stop it"
                    ) from error
                time.sleep(POLL_S)
        yield


def _in_words(job: Job) -> str:
    kept = _read_json(job.result)
    if kept["status"] == "failed":
        return f"{job.label} failed: {kept['message']}"
    return f"{job.label}: MPJPE {kept['mpjpe_mm']:.1f} mm, PA-MPJPE {kept['pa_mpjpe_mm']:.1f} mm"


def _last_line(job: Job) -> str:
    log = job.out / "logs" / f"{job.label}.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("error: ") if said else "it said nothing"


def _load(job: Job) -> RunRecord | None:
    if not job.result.is_file():
        return None
    summary = _read_json(job.result)
    arrays = read_npz(job.result.with_suffix(".npz")) if summary["status"] == "done" else {}
    return RunRecord(summary=summary, arrays=arrays)


def _table(plan: Plan, jobs: Sequence[Job]) -> dict[str, Any]:
    loaded = {(job.name, job.seed): _load(job) for job in jobs}
    records = {key: record for key, record in loaded.items() if record is not None}
    done = [record for record in records.values() if record.is_done]
    kept = {
        name: sorted({str(record.summary[name]) for record in done})
        for name in ("store_digest", "commit", "device", "machine", "threads", "jobs")
    }
    if len(kept["store_digest"]) > 1:
        raise ValueError(f"{jobs[0].out} holds runs of several stores; use one folder for each")
    first = done[0] if done else None
    return {
        "store_digest": kept.pop("store_digest")[0] if first else None,
        "runs": kept,
        "records": len(first.arrays["store_index"]) if first else 0,
        "sequences": len(first.arrays["names"]) if first else 0,
        "protocol": first.summary["protocol"] if first else None,
        "baseline_mean_pose_mpjpe_mm": (
            first.summary["baseline_mean_pose_mpjpe_mm"] if first else None
        ),
        "variants": scoreboard(plan, records, seeds=sorted({job.seed for job in jobs})),
    }


def _header(plan: Plan, *, command: str) -> dict[str, Any]:
    train_config = plan.variants[0].config.train
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **code_provenance(),
        "command": command,
        "reference": plan.reference,
        "budget": {
            "epochs": train_config.epochs,
            "batch_size": train_config.batch_size,
            "limit_train_batches": train_config.limit_train_batches,
            "input_size_px": plan.variants[0].config.data.input_size_px,
            "allowed_to_differ": list(plan.allow),
        },
        "num_resamples": NUM_RESAMPLES,
        "definitions": DEFINITIONS,
    }


def _command(
    plan: Plan,
    config: str | Path,
    store: str | Path | None,
    out: Path,
    seeds: Sequence[int],
    jobs: int,
) -> str:
    """The call that makes the whole table; calls for some variants or seeds are parts of it."""
    words = ["pose3d", "compare", str(config)]
    words += ["--table-only"] if store is None else ["--store", str(store)]
    words += ["--out", str(out)]
    if set(seeds) - set(plan.seeds):
        words += ["--seeds", ",".join(map(str, sorted({*plan.seeds, *seeds})))]
    return shlex.join([*words, *(["--jobs", str(jobs)] if jobs > 1 else [])])


def _kept_command(out: Path) -> str:
    """The command that trained what is there, which making the table anew does not change."""
    try:
        return str(read_comparison(out)["command"])
    except (FileNotFoundError, ValueError):
        return ""


def _machine(config: RunConfig) -> dict[str, Any]:
    device = choose_device(config.train.device)
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else processor_name(),
        "machine": f"{num_processors()} processors, {platform.system()}, torch {torch.__version__}",
        "threads": config.train.num_threads or torch.get_num_threads(),
    }


def num_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """The processor's own name where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
