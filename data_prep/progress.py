"""Work in several processes with one progress bar."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import cv2
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

POLL_S = 0.2

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


class _SpeedColumn(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        """Draw the speed once it is known."""
        return Text("" if task.speed is None else f"{task.speed:.0f} images/s")


def progress_bar(console: Console | None) -> Progress:
    """A bar with images per second and time left; silent without a console."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _SpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=console is None,
    )


_worker: dict[str, Any] = {}


def _start(prepare: Callable[[], None] | None, counter: Any) -> None:
    """Prepare a process: one thread each, since the processes share the cores."""
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa's software OpenGL
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker["counter"] = counter
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: killed, it cannot say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _advance(count: int) -> None:
    """Add images to the counter that the processes share."""
    counter = _worker["counter"]
    with counter.get_lock():
        counter.value += count


def _run(work: Callable[[TaskT, Callable[[int], None]], ResultT], task: TaskT) -> ResultT:
    return work(task, _advance)


def work_through(
    tasks: Sequence[TaskT],
    work: Callable[[TaskT, Callable[[int], None]], ResultT],
    *,
    jobs: int,
    description: str,
    total: int,
    done: int = 0,
    console: Console | None = None,
    prepare: Callable[[], None] | None = None,
    take: Callable[[ResultT], None] | None = None,
) -> None:
    """Do every task, in this process or in several fresh ones; the first error ends it.

    Args:
        tasks: What to do; must be picklable if `jobs` is above 1.
        work: Does one task; gets it and a function to which it tells how many images are done. A
            function of a module, if `jobs` is above 1.
        jobs: Processes; 1 does everything in this one.
        description: What the bar says.
        total: Images in all, as far as known.
        done: Images that were there before.
        console: Where the bar goes; nowhere if None.
        prepare: Called once in every process before its first task.
        take: Gets every result as it comes, in this process.

    Raises:
        ValueError: If a process dies.
    """
    with progress_bar(console) as bar:
        shown = bar.add_task(description, total=max(total, done), completed=done)
        if jobs == 1 or len(tasks) <= 1:
            if prepare is not None and tasks:
                prepare()
            for task in tasks:
                result = work(task, lambda count: bar.advance(shown, count))
                if take is not None:
                    take(result)
            return
        context = multiprocessing.get_context("spawn")  # a fork could inherit a locked library
        counter = context.Value("q", 0)
        pool = ProcessPoolExecutor(
            min(jobs, len(tasks)),
            mp_context=context,
            initializer=_start,
            initargs=(prepare, counter),
        )
        try:
            waiting: set[Future[ResultT]] = {pool.submit(_run, work, task) for task in tasks}
            while waiting:
                finished, waiting = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
                for future in finished:
                    result = future.result()
                    if take is not None:
                        take(result)
                bar.update(shown, completed=done + counter.value)
        except BrokenProcessPool as error:
            raise ValueError(
                f"a worker of {jobs} was killed, perhaps for memory; run again, with fewer --jobs: "
                "it goes on where it was"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
