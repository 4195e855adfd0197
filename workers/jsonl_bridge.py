"""The bridge: reads what a program of another language writes, and records it.

It is `python -m runlane.workers.jsonl_bridge SPOOL_DIRECTORY`. `runlane run --jsonl` starts it beside the program, and
again when it is killed. It ends by dying: nothing it holds in memory matters, because the spool says what was written,
the place how far it is read, and the journal what is recorded.
"""

import contextlib
import math
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

import runlane
from runlane.config import log_ids, names
from runlane.config.errors import EndpointError, JournalError, RunlaneError, SpoolError
from runlane.config.load import load
from runlane.config.settings import Settings
from runlane.transport.endpoint import RoleLock, data_dir_of, ipc_endpoint, is_role_alive
from runlane.transport.identity import new_stream_id
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_layout import HEAD_FILE
from runlane.transport.journal_reader import JournalReader
from runlane.transport.log import add_fast_lane_log, configure_log, log_event
from runlane.transport.messages import StreamInfo
from runlane.transport.spool import (
    BRIDGE_ROLE,
    HEAD_SUFFIX,
    LAUNCHER_ROLE,
    OUT_FILE,
    PLACE_FILE,
    UNREADABLE_CODE,
    SpoolEnd,
    is_program_alive,
    read_end,
    read_info,
    remove_spool,
)
from runlane.workers.engine_lane import show_engine
from runlane.workers.jsonl_file import LineFile
from runlane.workers.jsonl_lines import Line, MetricsLine, NotTaken, StepLine, Text
from runlane.workers.jsonl_pipe import COPIER_LOCK, PipeCopier
from runlane.workers.jsonl_place import LINE_SHIFT, BridgeState, Found, Place
from runlane.workers.jsonl_recorder import Follower, LineRecorder, closing_order
from runlane.workers.jsonl_session import BridgeSession
from runlane.workers.run_facts import launch_facts
from runlane.workers.slot import note_attached

LONGEST_SLEEP_S = 0.01
SHORTEST_SLEEP_S = 0.0005
# How often we look whether the program has ended, while it writes nothing.
END_LOOK_S = 0.05
PATIENCE_S = 1.0
NOTHING_YET = (
    "no JSON line on {source} after {wait_s:g} s: nothing is recorded; does the program write its lines there, "
    "and flush them?"
)
UNSEEN_END = SpoolEnd(state="killed", error="nobody saw how the program ended: its launcher was killed")


class Bridge:
    """Reads one spool from where its predecessor came to until the program has ended."""

    def __init__(self, directory: Path, settings: Settings, endpoint: str) -> None:
        """For the holder of the spool's lock. Raises `SpoolError`, or `OSError` without room for the place."""
        self._directory = directory
        self._settings = settings
        self._endpoint = endpoint
        self.info = read_info(directory)
        self._place = Place(directory / PLACE_FILE)
        self._copier: PipeCopier | None = None
        self._placed = (-1, (0, 0))
        self._next_look_s = 0.0
        self._sleep_s = SHORTEST_SLEEP_S
        self._warn_at_s = math.inf

    def run(self) -> None:
        """Record everything, and remove the spool."""
        if not self._place.is_done:
            if self.info.fifo and read_end(self._directory) is None:
                self._copier = PipeCopier(
                    Path(self.info.fifo), self._directory / OUT_FILE, self._directory / COPIER_LOCK
                )
                self._copier.start()
            self._resume()
            if not self._state.is_closing:
                self._follow()
            self._close()
        self._place.close()
        remove_spool(self._directory)

    # ---- where the bridge before came to ----

    def _resume(self) -> None:
        info, found = self.info, self._place.find()
        state = BridgeState() if found is None else found.state
        if found is None:
            self._warn_at_s = time.monotonic() + self._settings.attach.unhooked_s
        own = self._directory / OUT_FILE
        path = Path(info.path) if info.path else own
        self._file = LineFile(path, info.offset if found is None else found.offset, state.huge)
        self._file.identity = state.file
        self._can_give_back = path == own
        line: Line | None = None
        done = 0
        if found is not None:
            follower, line, done = self._follow_again(found)
            closing, start = state.is_closing, self._file.start
            state = follower.state()
            state.is_closing, state.done = closing, done
        else:
            start = self._file.offset
        self._open_session(state, is_resumed=found is not None)
        self._recorder = LineRecorder(self._session, self._place, state, show)
        self._state = state
        self._set_place(start if line is not None else self._file.offset)
        log_event(log_ids.JSONL_OPENED, stream=self._session.info.stream, path=path, offset=self._file.offset)
        if line is not None:
            self._recorder.finish(line, done)
            self._place.words[self._place.progress_at] = (1 << LINE_SHIFT) + self._session.seq - self._place.base_seq
            self._state.done = 0
            self._set_place(self._file.offset)

    def _follow_again(self, found: Found) -> tuple[Follower, Line | None, int]:
        """Pass over the lines that are recorded; returns the one that is recorded only in part, and how far."""
        follower, state = Follower(found.state), found.state
        begun = state.done if not found.lines else 0
        done = begun + self._beyond(found)
        if state.is_closing:
            for index in closing_order(state)[: found.lines + bool(done)]:
                follower.trackers[index].begin_next()
            return follower, None, 0
        left = found.lines
        while left and (lines := self._reread(left)):
            for line in lines:
                follower.pass_over(line)
            left -= len(lines)
        return self._in_doubt(follower, begun, done)

    def _in_doubt(self, follower: Follower, begun: int, done: int) -> tuple[Follower, Line | None, int]:
        """The line in doubt, of which `done` records are there; `begun` of them the follower knows of already."""
        line = next(iter(self._reread(1)), None) if done else None
        if line is None or not is_partial(line, done):
            if line is not None and not begun:
                follower.pass_over(line)
            elif isinstance(line, StepLine) and begun < 2:
                follower.end_step(line)
            return follower, None, 0
        if isinstance(line, StepLine):
            if not begun:
                follower.step(line)
            if begun < 2 <= done:
                follower.end_step(line)
        return follower, line, done

    def _reread(self, most: int) -> list[Line]:
        """At most so many of the lines that were read before; none, if the program has cut its file short since."""
        while True:
            before = self._file.offset
            found = self._file.read(most)
            if found is None:
                return self._file.read_last()
            if self._file.start != before:
                self._file.offset = self._file.start
                return []
            if found:
                return found

    def _beyond(self, found: Found) -> int:
        """Records of the line in doubt that the journal of the bridge before has."""
        stream = found.state.stream
        if not found.is_sure or not stream:
            return 0
        journal = data_dir_of(self._settings) / names.JOURNAL_DIR / stream
        last_seq = last_recorded(journal, self._directory / f"{stream}{HEAD_SUFFIX}")
        if last_seq is None:
            log_event(log_ids.JSONL_UNSURE, stream=stream, journal=journal)
            return 0
        return max(0, last_seq - found.seq)

    def _open_session(self, state: BridgeState, *, is_resumed: bool) -> None:
        info = self.info
        stream = StreamInfo(
            stream=new_stream_id(),
            run=info.run,
            worker=info.worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_ns=time.time_ns(),
            run_name=info.run_name,
            is_resumed=is_resumed or info.is_resumed,
        )
        facts = {
            "command": info.command,
            "host": stream.host,
            "pid": info.pid,
            "jsonl": info.source,
            "versions": {"runlane": runlane.__version__},
            **launch_facts(),
        }
        note_attached()
        self._session = BridgeSession(stream, self._endpoint, self._settings, facts, state)
        ring = os.environ.get(names.ENV_RING)
        self._lane = show_engine(self._session, Path(ring)) if ring else None
        link = self._directory / f"{stream.stream}{HEAD_SUFFIX}"
        os.link(Path(self._session.journal_directory) / HEAD_FILE, link)

    def _set_place(self, offset: int) -> None:
        """The line at `offset` comes next."""
        stream = self._session.info.stream
        state = self._recorder.state(stream)
        state.file, state.huge, state.done = self._file.identity, self._file.huge, self._state.done
        state.is_closing = self._state.is_closing
        self._place.set(offset, self._session.seq, state, is_kept=self._session.is_kept)
        if self._placed[0] < 0:
            for link in self._directory.glob(f"*{HEAD_SUFFIX}"):
                if link.name != f"{stream}{HEAD_SUFFIX}":
                    link.unlink(missing_ok=True)
        self._placed = (offset, self._file.identity)

    # ---- lines as they come ----

    def _follow(self) -> None:
        while True:
            is_over = self._has_end()  # before the look at the file, so that look is the last one needed
            while (lines := self._file.read()) is not None:
                self._record(lines)
                is_over = self._has_end()  # others may write without end
            if is_over:
                last = self._file.read_last()
                self._record(last)
                return
            self._switch_if_due()
            time.sleep(self._sleep_s)
            self._sleep_s = min(2 * self._sleep_s, LONGEST_SLEEP_S)

    def _record(self, lines: list[Line]) -> None:
        if (self._file.start, self._file.identity) != self._placed:
            self._set_place(self._file.start)  # the file was cut short, or another one is in its place
        self._recorder.record(lines)
        self._set_place(self._file.offset)
        if self._warn_at_s < math.inf and not all(isinstance(line, Text | NotTaken) for line in lines):
            self._warn_at_s = math.inf
        if self._can_give_back:
            self._file.give_back()
        self._switch_if_due()
        self._sleep_s = SHORTEST_SLEEP_S

    def _switch_if_due(self) -> None:
        if self._lane is not None:
            self._lane.look(time.monotonic_ns())
        if self._session.is_switch_due:
            self._place.begin_extra()
            self._session.switch_mode()
            self._set_place(self._file.offset)
        if time.monotonic() >= self._warn_at_s:
            self._warn()

    def _warn(self) -> None:
        """No line was taken for so long that somebody should look: here, and in the run."""
        self._warn_at_s = math.inf
        text = NOTHING_YET.format(source=self.info.source or "its spool", wait_s=self._settings.attach.unhooked_s)
        sys.stderr.write(f"runlane: {text}\n")
        self._place.begin_extra()
        self._session.log(text, "warning")
        self._set_place(self._file.offset)

    def _has_end(self) -> bool:
        """Whether the program has ended, and with it what is read."""
        if self._file.end is None and self._is_over():
            self._file.end_here()
        return self._file.end is not None

    def _is_over(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return False
        self._next_look_s = now_s + END_LOOK_S
        if read_end(self._directory) is None:
            is_launched = is_role_alive(self._directory, LAUNCHER_ROLE)
            if is_launched or is_program_alive(self._directory, self.info):
                return False
        if self._copier is not None:
            self._copier.stop()
            self._copier = None
        return True

    def _close(self) -> None:
        end = read_end(self._directory) or UNSEEN_END
        self._state.is_closing = True
        self._set_place(self._file.offset)
        self._recorder.close(self._recorder.state(self._session.info.stream))
        self._place.begin_extra()
        self._recorder.tell_not_taken()
        self._session.end(end.state, end.error)
        self._place.set_done()
        self._file.close()
        log_event(log_ids.JSONL_CLOSED, stream=self._session.info.stream, **self._recorder.not_taken)


def is_partial(line: Line, done: int) -> bool:
    """Whether a line has more records than the first `done`."""
    if isinstance(line, StepLine):
        is_last = (line.terminated or line.truncated) and not line.is_reset
        return done < 1 + bool(is_last) + bool(line.info)
    return isinstance(line, MetricsLine) and done < len(line.values)


def last_recorded(journal: Path, link: Path) -> int | None:
    """Seq of the last whole record that a dead bridge has made; None when neither its journal nor the head says.

    A journal that is gone was drained, and then the head's word on acks was the last one written into it.
    """
    try:
        head = JournalHead(os.open(link, os.O_RDWR | os.O_CLOEXEC))
    except (JournalError, OSError):
        return None
    reader = JournalReader(journal)
    last_seq = 0
    is_read = False
    deadline_s = time.monotonic() + PATIENCE_S
    try:
        while not is_read:
            try:
                reader.seek_newest()
                while reader.read_final(0, 0) is not None:
                    pass
                last_seq, is_read = reader.next_seq - 1, True
            except (JournalError, OSError):
                # Drained and removed, which takes a moment; damaged; or without any record.
                if not (journal / HEAD_FILE).exists() or time.monotonic() > deadline_s:
                    break
                time.sleep(0.01)
        return max(last_seq, head.acked)
    finally:
        reader.close()
        head.close()


def show(text: str) -> None:
    """Pass a line that is no record on to our own output, as far as that takes it without waiting."""
    line = text.encode("utf-8", "replace")[: select.PIPE_BUF - 1] + b"\n"
    poller = select.poll()
    poller.register(1, select.POLLOUT)
    with contextlib.suppress(OSError):
        if poller.poll(0) == [(1, select.POLLOUT)]:
            os.write(1, line)


def main(arguments: list[str]) -> int:
    """Bridge one spool; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m runlane.workers.jsonl_bridge SPOOL_DIRECTORY\n")
        return 2
    directory = Path(arguments[0])
    try:
        settings = load()
        info = read_info(directory)
        configure_log(f"jsonl-{info.worker}", "WARNING")
        if os.environ.get(names.ENV_FASTLANE) == "1":
            add_fast_lane_log(f"jsonl-{info.worker}")
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the program's; its end is ours
        endpoint = os.environ.get(names.ENV_PROXY) or ipc_endpoint(settings, f"{names.PROXY_PREFIX}{info.worker}")
        with RoleLock(directory, BRIDGE_ROLE):
            Bridge(directory, settings, endpoint).run()
    except EndpointError:  # another bridge has this spool
        return 0
    except (SpoolError, msgspec.MsgspecError) as error:
        return _say_end(directory, str(error), UNREADABLE_CODE)
    except (RunlaneError, OSError) as error:
        return _say_end(directory, str(error), 1)
    except Exception as error:  # whatever it is, the spool keeps the rest
        return _say_end(directory, f"{type(error).__name__}: {error}", UNREADABLE_CODE)
    return 0


def _say_end(directory: Path, problem: str, code: int) -> int:
    sys.stderr.write(f"runlane: the bridge of {directory} ends: {problem}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
