"""attach(): the session of this process. How it is opened is `opening.py`'s part, imported when it is needed.

So importing this costs a stranger's script next to nothing, also where telemetry is off.
"""

import os
import sys
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from runlane.config import names

if TYPE_CHECKING:
    from runlane.config.settings import Settings
    from runlane.workers.session import WorkerSession
    from runlane.workers.unrecorded import DetachedSession

# Or a `ShownSession`, which is one. No plain text, so that `Session | None` works at run time.
Session: TypeAlias = Union["WorkerSession", "DetachedSession"]


def attach(
    name: str | None = None,
    *,
    worker: str | None = None,
    config: Any = None,
    resume: str | None = None,
    resumed_step: int | None = None,
    settings: "Settings | None" = None,
) -> Session:
    """Connect this process to its run and return the session to record with.

    Under `runlane run` or a supervisor the environment says where; otherwise the graph running for the current
    directory is asked for a proxy. With neither, one warning is printed and the session does nothing: telemetry
    never stops training. `name` is the run's readable name; `config` its hyper-parameters, a mapping or an object
    like `argparse.Namespace`. Called again, as for each sub-environment, it opens another stream of the same run.

    `resume` is the id of the run that is continued, as after loading a checkpoint made at `resumed_step`: the new
    stream is the worker's next incarnation in that run, with `resumed_from`. Steps may begin anywhere: nothing is
    refused because it went backwards.
    """
    if os.environ.get(names.ENV_DISABLED) == "1":
        from runlane.workers.unrecorded import DetachedSession

        return DetachedSession()
    from runlane.workers.opening import open_session

    return open_session(name, worker=worker, config=config, resume=resume, resumed_step=resumed_step, settings=settings)


def attach_beside(first: Session, worker: str) -> Session:
    """Another stream of the run of `first`, for a worker beside it: as for the next agent of one environment.

    As little as `attach` does it stop training: where no stream can be opened, the session does nothing.
    """
    from runlane.workers.opening import open_beside

    return open_beside(first, worker)


def script_name() -> str:
    """A plain name for this script: its file name without ending, or `python`."""
    from pathlib import Path

    stem = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else ""
    plain = "".join(mark if mark.isascii() and (mark.isalnum() or mark in "_-") else "-" for mark in stem)
    return plain.strip("-")[:24] or "python"
