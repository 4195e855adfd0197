"""Parts of a section, for subscribers that asked for less than all of it, and for what a new router sends on.

The one place where the router looks into bodies, and only for who asked for it. A step row's size follows from its
section; its first column is its seq. Raises `WireError` for a body that is not what its section says. NumPy is imported
by the first part that is asked for: most routers never need it, and start the sooner.
"""

from typing import TYPE_CHECKING

from runlane.config.errors import WireError
from runlane.transport.messages import StepSchema
from runlane.transport.wire import STEP, Frame, Section, pack, unpack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Part = tuple[Section, Frame]


def every_nth(section: Section, body: Frame, passed: int, n: int) -> Part | None:
    """Every n-th row of a step section, when `passed` rows of the stream came before it; None for no row."""
    return _part(section, _rows(section, body)[-passed % n :: n])


def by_env(section: Section, body: Frame, schema: StepSchema | None) -> list[tuple[int, Section, Frame]]:
    """The rows of each environment. Rows that hold a step of many environments stay together, as environment 0."""
    at = None if schema is None or schema.env_count else _offset(schema, "env_index")
    if at is None:
        return [(0, section, body)]
    rows = _rows(section, body)
    if rows.shape[1] < at + 4:
        raise WireError("rows", f"step rows of {rows.shape[1]} bytes have no env_index at {at}")
    import numpy as np

    envs = np.ascontiguousarray(rows[:, at : at + 4]).view("<u4")[:, 0]
    found: list[tuple[int, Section, Frame]] = []
    for env in np.unique(envs).tolist():
        part = _part(section, rows[envs == env])
        if part is not None:
            found.append((env, *part))
    return found


def after_seq(section: Section, body: Frame, seq: int) -> Part | None:
    """The records of a section whose seqs are beyond `seq`; None when there is none."""
    if section.kind == STEP:
        import numpy as np

        rows = _rows(section, body)
        if rows.shape[1] < 8:
            raise WireError("rows", f"step rows of {rows.shape[1]} bytes have no seq")
        seqs = np.ascontiguousarray(rows[:, :8]).view("<u8")[:, 0]
        return _part(section, rows[seqs > seq])
    records = unpack(body)
    try:
        kept = [record for record in records if record[0] > seq]
        count = len(records)
    except (TypeError, IndexError, KeyError):
        raise WireError("rows", "records without a seq") from None
    if count != section.records:
        raise WireError("rows", f"{count} records, the section says {section.records}")
    if not kept:
        return None
    data = pack(kept)
    return Section(section.kind, section.schema_id, len(kept), len(data)), data


def _rows(section: Section, body: Frame) -> "NDArray[np.uint8]":
    if not section.records or len(body) % section.records:
        raise WireError("rows", f"{len(body)} bytes for {section.records} step rows")
    import numpy as np

    return np.frombuffer(body, np.uint8).reshape(section.records, -1)


def _part(section: Section, rows: "NDArray[np.uint8]") -> Part | None:
    if not len(rows):
        return None
    data = rows.tobytes()
    return Section(section.kind, section.schema_id, len(rows), len(data)), data


def _offset(schema: StepSchema, name: str) -> int | None:
    at = 0
    for field in schema.fields:
        if field.name == name:
            return at if field.code == "<u4" and not field.count else None
        at += max(1, field.count) * int(field.code[2:])
    return None
