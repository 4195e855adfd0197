"""StepBlock: the step rows of one stream as flat columns, one entry per environment; and returns as they grow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runlane.config.errors import WireError
from runlane.gui.series import Floats
from runlane.transport.columns import step_dtype
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import IS_RESET

Ints = NDArray[np.int64]

KEPT_ENVS = 16_384  # environments of one stream whose return is followed
MAX_ENV_ROWS = 262_144  # of a block; of wider ones the newest rows are taken apart


@dataclass(frozen=True, slots=True)
class StepBlock:
    """Columns of one length, in order of seq and then of environment; `seqs` and `steps_after` are per record.

    `steps_after` counts environment steps from the block's beginning; resets are none.
    """

    seq: Ints
    t_ns: Ints
    env_index: Ints
    episode: Ints
    step: Ints
    action: Floats
    action_size: int
    reward: Floats
    flags: NDArray[np.uint8]
    seqs: Ints
    steps_after: Ints

    def __len__(self) -> int:
        return len(self.seq)

    @property
    def is_step(self) -> NDArray[np.bool_]:
        """Which rows are steps and no resets."""
        found: NDArray[np.bool_] = np.equal(self.flags & IS_RESET, 0)
        return found


def step_block(batches: Sequence[RecordBatch]) -> StepBlock:
    """Step batches of one stream and one schema, in order. Raises `WireError` when they hold no step rows."""
    first = batches[-1]
    schema = first.info.schema(first.section.schema_id)
    if schema is None:
        raise WireError("schema", f"stream {first.info.stream} announced no schema {first.section.schema_id}")
    dtype = step_dtype(schema)
    for batch in batches:
        if len(batch.body) != len(batch) * dtype.itemsize:
            raise WireError("rows", f"{len(batch.body)} bytes for {len(batch)} rows of {dtype.itemsize}")
    rows = np.frombuffer(b"".join(batch.body for batch in batches), dtype)  # 20 times the speed of np.concatenate
    try:
        return _vector_block(rows, schema.env_count) if schema.env_count else _scalar_block(rows)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise WireError("columns", f"stream {first.info.stream}: {error}") from None


def _scalar_block(rows: NDArray[np.void]) -> StepBlock:
    flags = np.ascontiguousarray(rows["flags"])
    seq = rows["seq"].astype(np.int64)
    action, action_size = _action(rows, 0)
    return StepBlock(
        seq,
        rows["t_ns"].astype(np.int64),
        rows["env_index"].astype(np.int64),
        rows["episode"].astype(np.int64),
        rows["step"].astype(np.int64),
        action,
        action_size,
        rows["reward"].astype(np.float64),
        flags,
        seq,
        np.cumsum((flags & IS_RESET) == 0),
    )


def _vector_block(rows: NDArray[np.void], envs: int) -> StepBlock:
    seqs = rows["seq"].astype(np.int64)
    steps_after = np.cumsum(((rows["flags"] & IS_RESET) == 0).reshape(len(rows), envs).sum(axis=1))
    newest = rows[-max(1, MAX_ENV_ROWS // envs) :]
    action, action_size = _action(newest, envs)
    return StepBlock(
        np.repeat(newest["seq"].astype(np.int64), envs),
        np.repeat(newest["t_ns"].astype(np.int64), envs),
        np.tile(np.arange(envs, dtype=np.int64), len(newest)),
        newest["episode"].astype(np.int64).reshape(-1),
        newest["step"].astype(np.int64).reshape(-1),
        action,
        action_size,
        newest["reward"].astype(np.float64).reshape(-1),
        newest["flags"].reshape(-1).copy(),
        seqs,
        steps_after,
    )


def _action(rows: NDArray[np.void], envs: int) -> tuple[Floats, int]:
    """First item of each environment's action, and how many items it has; 0 when it was not recorded."""
    count = len(rows) * max(1, envs)
    if "action" not in (rows.dtype.names or ()):
        return np.full(count, np.nan), 0
    items = rows["action"].reshape(count, -1)
    return items[:, 0].astype(np.float64), items.shape[1]


class ReturnTracker:
    """The return of each running episode of one stream. It is NaN from where a row is missing to the episode's end."""

    def __init__(self) -> None:
        self._episode: Ints = np.full(1, -1)
        self._step: Ints = np.full(1, -1)
        self._return: Floats = np.zeros(1)

    def add(self, block: StepBlock) -> Floats:
        """The return so far at each row of the block."""
        env = block.env_index
        if len(env) > 1 and (env[1:] < env[:-1]).any():
            order = np.argsort(env, kind="stable")
            found = np.empty(len(env))
            found[order] = self._ordered(block, order)
            return found
        return self._ordered(block, None)

    def _ordered(self, block: StepBlock, order: Ints | None) -> Floats:
        columns = (block.env_index, block.episode, block.step, np.where(block.is_step, block.reward, 0.0))
        env, episode, step, reward = (column if order is None else column[order] for column in columns)
        is_new_env = env[1:] != env[:-1]
        is_first = np.ones(len(env), np.bool_)
        is_first[1:] = is_new_env | (episode[1:] != episode[:-1]) | (step[1:] != step[:-1] + 1)
        firsts = np.flatnonzero(is_first)
        base = self._before(env[firsts], episode[firsts], step[firsts])
        segment = np.cumsum(is_first) - 1
        is_known = np.isfinite(reward)
        total = np.cumsum(np.where(is_known, reward, 0.0))
        start = np.where(firsts > 0, total[firsts - 1], 0.0)
        found: Floats = total + (base - start)[segment]
        if not is_known.all():
            unknown = np.cumsum(~is_known)
            before = np.where(firsts > 0, unknown[firsts - 1], 0)
            found = np.where(unknown > before[segment], np.nan, found)
        lasts = np.flatnonzero(np.append(is_new_env, True))
        self._keep(env[lasts], episode[lasts], step[lasts], found[lasts])
        return found

    def _before(self, env: Ints, episode: Ints, step: Ints) -> Floats:
        """What an episode has returned before these rows: nothing at its beginning, else what we followed."""
        known = np.minimum(env, len(self._episode) - 1)
        goes_on = (env == known) & (self._episode[known] == episode) & (self._step[known] + 1 == step)
        found: Floats = np.where(goes_on, self._return[known], np.where(step <= 1, 0.0, np.nan))
        return found

    def _keep(self, env: Ints, episode: Ints, step: Ints, value: Floats) -> None:
        most = int(env.max()) + 1
        if len(self._episode) < most and len(self._episode) < KEPT_ENVS:
            more = min(KEPT_ENVS, max(most, 2 * len(self._episode))) - len(self._episode)
            self._episode = np.append(self._episode, np.full(more, -1))
            self._step = np.append(self._step, np.full(more, -1))
            self._return = np.append(self._return, np.zeros(more))
        kept = env < len(self._episode)
        env = env[kept]
        self._episode[env], self._step[env], self._return[env] = episode[kept], step[kept], value[kept]
