"""RowWriter: rows of steps, packed in the layout in use or a new one, and the final observations of episodes.

A final observation is what the episode's last step led to. No action was chosen on it, so it is in no step's row. It
stands in a row of its own behind the episode's end: flagged IS_RESET, step 0, reward 0, an action of zeros, so that
the layout stays the same, and the number of the episode that begins, as in the row that a NEXT_STEP autoreset makes.
In a row of several environments those that it is not about are flagged ABSENT, too.
"""

import contextlib
import struct
import time
from typing import Any
from zlib import adler32

import numpy as np

from runlane.transport.messages import StepField
from runlane.transport.records import ABSENT, IS_RESET
from runlane.workers import hooked_session
from runlane.workers.episode_tracker import VectorTracker
from runlane.workers.episode_writer import EpisodeWriter
from runlane.workers.step_layout import StepLayout, VectorLayout, as_array, field_of
from runlane.workers.stream_writer import NoRoomError, holds_turns

_time_ns = time.time_ns
_TAIL = struct.Struct("<IB")  # env_index and flags


class RowWriter(EpisodeWriter):
    """A stream and the layouts of its step rows."""

    is_hooked = False  # its steps are told by a hook, or by a wrapper that the hooks know of

    def final_observation(self, observation: Any, env_index: int = 0) -> None:
        """Record the observation that an episode's last step led to, where observations are recorded.

        To be called once, behind the end of the episode: the step that is its last, or `episode()`. Of environments
        that are recorded with `step_vector`, too. Not for what a NEXT_STEP autoreset flags `is_reset`: that row has it.
        """
        while self._busy:
            if self._wait_turn("step"):
                return
        self._busy = True
        try:
            if self._is_forked:  # the episode is the parent's
                return
            vector = self._vector
            if vector is None or env_index >= vector.env_count:
                self._final_row(env_index, observation)
                return
            value = as_array(observation)
            observations = np.zeros((vector.env_count, *value.shape), value.dtype)
            observations[env_index] = value
            is_final = np.zeros(vector.env_count, bool)
            is_final[env_index] = True
            self._final_vector_row(vector, observations, is_final)
        except NoRoomError:
            return
        except Exception as error:
            self._fault("final_observation", error)
        finally:
            self._busy = False

    def final_observations(self, observations: Any, is_final: Any) -> None:
        """As `final_observation`, of the environments in the mask `is_final`; the first axis is the environment.

        What `observations` holds of the others is not recorded.
        """
        while self._busy:
            if self._wait_turn("step"):
                return
        self._busy = True
        try:
            chosen = np.asarray(is_final, bool)
            if self._vector is not None and not self._is_forked and chosen.any():
                self._final_vector_row(self._vector, np.array(observations), chosen)
        except NoRoomError:
            return
        except Exception as error:
            self._fault("final_observations", error)
        finally:
            self._busy = False

    def _final_row(self, env_index: int, observation: Any) -> None:
        tracker = self._track(env_index)
        if tracker.step or tracker.episode == 1:
            raise ValueError(f"no episode of environment {env_index} has just ended: end it first")
        if self._packable("observation", observation) is None:
            return
        step_seq = self._shown.step_seq(self._journal.seq)
        try:
            journal = self._look("step", self._journal.record_bytes)
            fixed = (_time_ns(), tracker.episode, _TAIL.pack(env_index, IS_RESET), 0.0)
            row = self._row(fixed, self._no_action(0), observation)
            journal.row_kit[3](journal.view, journal.offset, adler32(row), row)
            journal.offset, journal.seq = journal.offset + journal.record_bytes, journal.seq + 1
            self._reset_rows += 1
        finally:  # what is shown is still the step before
            self._shown.note_behind(self._journal.seq, step_seq)

    def _final_vector_row(self, vector: VectorTracker, observations: Any, is_final: Any) -> None:
        if (vector.step[is_final] > 0).any() or (vector.episode[is_final] == 1).any():
            running = np.flatnonzero(is_final & ((vector.step > 0) | (vector.episode == 1))).tolist()
            raise ValueError(f"no episode of environments {running} has just ended: end them first")
        if self._packable("observation", observations) is None:
            return
        observations[~is_final] = 0
        flags = np.where(is_final, IS_RESET, IS_RESET | ABSENT).astype(np.uint8)
        nothing = np.zeros(vector.env_count)
        step_seq = self._shown.step_seq(self._journal.seq)
        try:
            columns = [vector.episode, nothing, flags, nothing]
            self._put_vector_row(vector, _time_ns(), columns, [self._no_action(vector.env_count), observations])
            self._vector_steps -= 1  # `env_steps` counts the row itself as one
        finally:
            self._shown.note_behind(self._journal.seq, step_seq)

    def _no_action(self, env_count: int) -> Any:
        """Zeros as the layout in use has its actions; None where it has none, or is for another number of envs."""
        layout = self._journal.layout
        if layout is None or layout.schema.env_count != env_count:
            return None
        field: StepField | None = next((field for field in layout.schema.fields if field.name == "action"), None)
        if field is None:
            return None
        size = field.count // (env_count or 1)
        shape = (env_count, size) if env_count and size > 1 else (field.count,) if field.count else ()
        return np.zeros(shape, field.code)[()]

    def _row(self, fixed: tuple[Any, ...], action: Any, observation: Any) -> bytes:
        """Pack the next row, in a new layout if it does not fit the one in use; there is room for it then."""
        layout = self._journal.layout
        if isinstance(layout, StepLayout):
            with contextlib.suppress(TypeError, ValueError, struct.error):
                values = layout.convert(action, observation)
                return layout.pack(layout.prefix, self._journal.seq + 1, *fixed, *values)
        action, observation = self._packable("action", action), self._packable("observation", observation)
        if not self._journal.schema_count and not self.is_hooked:
            hooked_session.note_own_steps()
        layout = StepLayout(self._journal.schema_count, action, observation)
        values = layout.convert(action, observation)
        layout.pack(layout.prefix, 0, *fixed, *values)  # raises if no layout can hold it
        used = self._use(layout)
        return layout.pack(used.prefix, self._journal.seq + 1, *fixed, *values)  # type: ignore[union-attr]

    def _write_vector_row(
        self, vector: VectorTracker, rewards: Any, flags: Any, is_reset: Any, optional: list[Any]
    ) -> None:
        t_ns = _time_ns()
        vector.count(rewards, is_reset, t_ns)
        steps = vector.env_count - (0 if is_reset is None else int(is_reset.sum()))
        try:
            self._put_vector_row(vector, t_ns, [vector.episode, vector.step, flags, rewards], optional)
        except NoRoomError:
            if not self._switch.is_kept:
                self._unkept_steps += steps
            raise
        self._vector_steps += steps - 1  # `env_steps` counts the row itself as one

    def _put_vector_row(self, vector: VectorTracker, t_ns: int, columns: list[Any], optional: list[Any]) -> None:
        journal = self._look("step", self._journal.record_bytes)
        layout, body = journal.layout, None
        if isinstance(layout, VectorLayout) and layout.schema.env_count == vector.env_count:
            with contextlib.suppress(TypeError):
                body = layout.parts(t_ns, columns, optional)
        if body is None:
            optional = [
                self._packable(name, value) for name, value in zip(("action", "observation"), optional, strict=True)
            ]
            layout = VectorLayout(journal.schema_count, vector.env_count, *optional)
            body = layout.parts(t_ns, columns, optional)
            layout = self._use(layout)
        journal.append_row(layout, body)  # type: ignore[arg-type]

    def _packable(self, name: str, value: Any) -> Any:
        """The value, or None where it is no number and no array of numbers: the step is kept without it."""
        try:
            field_of(name, value)
        except (TypeError, ValueError) as error:
            self._fault(name, error)
            return None
        return value


holds_turns(__file__)
