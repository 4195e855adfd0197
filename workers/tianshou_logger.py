"""TianshouLogger: what a tianshou trainer logs, as metrics. The only file that imports tianshou.

It is for `logger=` of a trainer's parameters. Steps and episodes are the environments' own: `wrap()` them where they
are made, or start the script with `runlane run`.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, cast

import numpy as np

from runlane.workers import Session, attach, hooked_session
from runlane.workers.scalar import record_scalars

_loggers: Any = import_module("tianshou.utils.logger.logger_base")


class TianshouLogger(_loggers.BaseLogger):  # type: ignore[misc]
    """Numbers of training, tests, updates and epochs, named as tianshou's own loggers name them: `update/loss`.

    Of a statistic over a batch, tianshou's `mean`, `std`, `max` and `min` are logged. Without a `session` it uses that
    of the zero-edit hook where there is one, else opens its own.
    """

    def __init__(self, session: Session | None = None, **options: Any) -> None:
        """`options` are those of tianshou's `BaseLogger`, as `training_interval`."""
        _loggers.BaseLogger.__init__(self, **options)
        if session is None:
            session = hooked_session.session_for_metrics() if hooked_session.is_armed() else attach()
        self.session = session
        self._last_save_epoch = -1

    def write(self, step_type: str, step: int, data: dict[str, Any]) -> None:
        """Record what is a number, at tianshou's own step: environment steps, updates or epochs."""
        scope = step_type.partition("/")[0]
        record_scalars(self.session, {f"{scope}/{name}": value for name, value in data.items()}, step)

    def prepare_dict_for_logging(self, log_data: Mapping[str, Any]) -> dict[str, Any]:
        """One level of names, parted by a slash; arrays and text are left out."""
        return dict(_flat("", log_data))

    def finalize(self) -> None:
        """Training has ended. The session may go on; the end of the process closes it."""

    def save_data(
        self,
        epoch: int,
        env_step: int,
        update_step: int,
        save_checkpoint_fn: Callable[[int, int, int], str] | None = None,
    ) -> None:
        """Have a checkpoint written where `save_interval` says so; of it, nothing is kept here."""
        is_due = self.save_interval is not None and epoch - self._last_save_epoch >= self.save_interval
        if save_checkpoint_fn is not None and is_due:
            self._last_save_epoch = epoch
            save_checkpoint_fn(epoch, env_step, update_step)

    def restore_data(self) -> tuple[int, int, int]:
        """Begin anew: to go on with a run, load its checkpoint and give `attach()` the run's id."""
        return 0, 0, 0

    @staticmethod
    def restore_logged_data(log_path: str) -> dict[str, Any]:  # noqa: ARG004
        """Nothing: metrics are in the database, in the view `metrics`."""
        return {}


def _flat(prefix: str, values: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        path = f"{prefix}/{name}" if prefix else str(name)
        if isinstance(value, Mapping):
            found += _flat(path, cast("Mapping[str, Any]", value))
        elif value is not None and not isinstance(value, str | bytes | np.ndarray | list | tuple):
            found.append((path, value))
    return found
