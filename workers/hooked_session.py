"""Sessions of a process whose script was not edited: one stream for each environment, and one for what is no step.

Imports next to nothing of ours before an environment is reset or a scalar comes: every script has the hooks.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from runlane.workers.hook_place import left

if TYPE_CHECKING:
    from runlane.config.settings import Settings
    from runlane.workers.attachment import Session

METRICS_SUFFIX = "metrics"
SPARE_DESCRIPTORS = 32
MAX_WORKER = 32  # characters, as `check_name` allows
_config: dict[str, Any] = {}
_open: "list[HookedSession]" = []  # of this process, in order of their slots
_pool: "dict[str, list[HookedSession]]" = {}  # given back by environments that were closed
_gone: list[Callable[[], None]] = []
_faults: list[str] = []
_lock = threading.RLock()
_state: dict[str, Any] = {"is_armed": False, "metrics": None}


class HookedSession:
    """A session and the slot it stands for. `kind` says which environments may use it one after another."""

    def __init__(self, session: "Session", slot: int, kind: str) -> None:
        """Open, with its slot claimed."""
        self.session = session
        self.slot = slot
        self.kind = kind


def is_armed() -> bool:
    """Whether hooks record what this process does: then an adapter must not record it a second time."""
    return bool(_state["is_armed"])


def mark_armed() -> None:
    """A hook has been put into a library of this process."""
    if not _state["is_armed"]:
        from runlane.workers.slot import note_hooked

        note_hooked()
    _state["is_armed"] = True


def leave(env: Any) -> None:
    """The script records this environment by itself: the hooks leave it alone, and all that is in it."""
    with contextlib.suppress(Exception):  # an environment may be anything
        root = getattr(env, "unwrapped", env)
        key = id(root)
        left[key] = weakref.ref(root, lambda _: left.pop(key, None))


def is_left(root: Any) -> bool:
    """Whether the script records this innermost environment by itself."""
    found = left.get(id(root))
    return found is not None and found() is root


def note_config(values: Mapping[str, Any]) -> None:
    """Hyper-parameters that the script was given: for its run, whether its streams are open or yet to be."""
    with _lock:
        _config.update(values)
        for hooked in _open:
            hooked.session.note_facts(config=dict(_config))
        if _state["metrics"] is not None:
            _state["metrics"].note_facts(config=dict(_config))


def open_session(kind: str, facts: Callable[[], Mapping[str, Any]], part: str = "") -> HookedSession:
    """A session for an environment of this kind: one that was given back, or a new stream in a slot of its own.

    `facts` are asked for where a stream is opened. `part` is what of the environment it records, as one of its agents.
    """
    with _lock:
        _take_gone()
        free = _pool.get(kind)
        if free:
            return free.pop(0)
        from runlane.workers.slot import claim_slot

        if not _has_room():
            return HookedSession(_left_out(kind), -1, kind)
        slot = claim_slot()
        hooked = HookedSession(_attach(slot, facts(), part), slot, kind)
        _open.append(hooked)
        return hooked


def give_back(hooked: HookedSession) -> None:
    """Its environment is closed: the next one of its kind goes on in the same stream."""
    with _lock:
        hooked.session.episode(outcome="abandoned")
        free = _pool.setdefault(hooked.kind, [])
        free.append(hooked)
        free.sort(key=lambda each: each.slot)


def note_gone(close: Callable[[], None]) -> None:
    """An environment was not closed, and is no more. The garbage collector calls, amid anything: only noted here."""
    _gone.append(close)


def _take_gone() -> None:
    while _gone:
        _gone.pop()()


def _has_room() -> bool:
    """Whether one stream more leaves the script enough descriptors: ZeroMQ ends a process that has none left."""
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        return len(os.listdir("/proc/self/fd")) + SPARE_DESCRIPTORS <= most // 2  # noqa: PTH208  names alone
    except OSError:
        return False


def _left_out(kind: str) -> "Session":
    """What records nothing, because no descriptor is left for it. Said once, here and in the run."""
    from runlane.config import log_ids
    from runlane.transport.log import log_event
    from runlane.workers.unrecorded import DetachedSession

    if not _state.get("is_full"):
        _state["is_full"] = True
        text = f"{len(_open)} environments of this process are recorded and no more: descriptors are short"
        remedy = "raise the limit (ulimit -n 65536), or record the vector environment as one with wrap()"
        log_event(log_ids.WORKER_DETACHED, reason=f"{text}; {remedy}")
        if _open:
            _open[0].session.log(f"{text}; {remedy}. The first left out: {kind}", "error")
    return DetachedSession()


def note_own_steps() -> None:
    """A session of the script's own records its first step. Beside hooked environments that is likely the same step."""
    if not _open or _state.get("is_twice"):
        return
    _state["is_twice"] = True
    from runlane.config import log_ids
    from runlane.transport.log import log_event

    text = "the script records steps by itself, and its environments are hooked: each may be stored twice"
    log_event(log_ids.WORKER_TWICE, remedy="runlane run --no-hook, or leave the recording to the hook")
    _open[0].session.log(f"{text}; start it with runlane run --no-hook", "warning")


def session_for_metrics() -> "Session":
    """The session that takes named scalars: one, all the time. That of the first environment, else one of its own."""
    with _lock:
        if _open and _state["metrics"] is None:
            return _open[0].session
        if _state["metrics"] is None:
            _state["metrics"] = _attach_as(METRICS_SUFFIX, {}, None)
        found: Session = _state["metrics"]
        return found


def settings() -> "Settings | None":
    """What is set for this process; None where it cannot be read, which `attach()` then says."""
    if "settings" not in _state:
        from runlane.config.errors import RunlaneError
        from runlane.config.load import load

        try:
            _state["settings"] = load()
        except (RunlaneError, OSError):
            _state["settings"] = None
    found: Settings | None = _state["settings"]
    return found


def records_made() -> bool:
    """Whether the layer that `make` returns is recorded, instead of the outermost."""
    found = settings()
    return found is not None and found.attach.layer == "make"


def records_observations() -> bool:
    """Whether observations are recorded."""
    found = settings()
    return found is not None and found.attach.observations


def may_render() -> bool:
    """Whether `make` may ask for pixels."""
    found = settings()
    return found is not None and found.attach.render and found.fast_lane.enabled and found.fast_lane.video_mode != "off"


def count_fault(error: BaseException | None) -> None:
    """Something of ours went wrong in a hook: the first is told, and training goes on."""
    _faults.append(f"{type(error).__name__}: {error}"[:200])
    if len(_faults) == 1:
        from runlane.config import log_ids
        from runlane.transport.log import log_event

        log_event(log_ids.WORKER_FAULT, where="hook", error=_faults[0], count=1)
    del _faults[1:]


def _attach(slot: int, facts: Mapping[str, Any], part: str) -> "Session":
    """Slot 0 has the worker's plain name; which slots may be looked at is the fast lane's setting."""
    suffix = "-".join(each for each in (str(slot) if slot else "", part) if each)
    chosen = settings()
    if chosen is None:
        return _attach_as(suffix, facts, None)
    lane = chosen.fast_lane
    is_shown = slot == lane.slot if lane.video_mode == "single" else slot < lane.grid_limit
    if not is_shown and not _is_vector(facts):
        import msgspec

        lane = msgspec.structs.replace(lane, video_mode="off")
        chosen = msgspec.structs.replace(chosen, fast_lane=lane)
    return _attach_as(suffix, facts, chosen)


def _is_vector(facts: Mapping[str, Any]) -> bool:
    return int(facts.get("num_envs") or 1) > 1


def _attach_as(suffix: str, facts: Mapping[str, Any], chosen: "Settings | None") -> "Session":
    from runlane.config.names import ENV_WORKER_NAME
    from runlane.workers.attachment import attach, script_name

    base = os.environ.get(ENV_WORKER_NAME) or script_name()
    worker = f"{base[: MAX_WORKER - 1 - len(suffix)]}-{suffix}" if suffix else base
    session = attach(worker=worker, config=dict(_config), settings=chosen)
    session.is_hooked = True
    if facts:
        session.note_facts(env=dict(facts))  # versions are those of the moment: the first reset is late enough
    return session


def _after_fork_in_child() -> None:
    """What the parent opened is the parent's. An environment that both step goes on by itself, as another stream."""
    global _lock  # noqa: PLW0603  whoever held it is not here
    _lock = threading.RLock()
    _gone.clear()
    _open.clear()
    _pool.clear()
    _state["metrics"] = None


os.register_at_fork(after_in_child=_after_fork_in_child)
