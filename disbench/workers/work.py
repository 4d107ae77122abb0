"""What an engine is given: work that every worker starts with once, and tasks that any of them can do."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path
from typing import Any, Protocol, TypeVar

from disbench.core.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class WorkerLost(Exception):  # noqa: N818 - something that happens to a worker, as StopIteration to an iterator
    """A worker ended before its task was done: killed, out of memory, its machine gone. Another may do the task."""


class Worker(Protocol[Task_contra, Result_co]):
    """Does one task at a time."""

    def do(self, task: Task_contra, /) -> Result_co:
        """The result of a task.

        Raises:
            WorkerLost: the worker has ended.
            Exception: what went wrong with the task, and would with any other worker.
        """

    def end(self) -> None:
        """End at once, whatever is under way; whoever waits in `do` gets `WorkerLost`. May be called twice."""


class Work(Protocol[Task_contra, Result_co]):
    """A job as every worker needs it. Picklable, and so are its tasks and results.

    Attributes:
        watched: its workers watch over a process of their own each, so they need none of the engine's.
    """

    watched: bool

    def begin(self, path: Path) -> Worker[Task_contra, Result_co]:
        """A worker, made where it will work.

        Args:
            path: a file with this very work, pickled, for processes that the worker starts.
        """

    def describe(self, task: Task_contra) -> str:
        """A task in words, for messages."""


def portable(error: Exception) -> Exception:
    """The error with a note on where it came from, or one that says the same if it cannot travel."""
    where = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError):
        return InputError("there is not enough memory for what a worker does; use fewer workers")
    error.add_note(f"In a worker process:\n{where}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(where)
    return error


def answer(worker: Worker[Any, Any], task: object) -> object:
    """What a worker makes of a task, or the error as a value that can travel.

    Raises:
        WorkerLost: as the worker's.
    """
    try:
        return worker.do(task)
    except WorkerLost:
        raise
    except Exception as error:
        return portable(error)
