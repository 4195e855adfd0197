"""RecordBatch: what a subscriber gets of one section of a delivery."""

from typing import TYPE_CHECKING

from runlane.config import names
from runlane.config.errors import WireError
from runlane.transport.messages import StreamInfo
from runlane.transport.records import Record
from runlane.transport.wire import BatchHeader, Frame, Section

if TYPE_CHECKING:
    from runlane.transport.columns import StepColumns


class RecordBatch:
    """Records of one kind from one stream, in seq order. Decoded only when asked for.

    `is_history` says that they were read from the database.
    """

    is_history = False

    def __init__(self, info: StreamInfo, header: BatchHeader, section: Section, body: Frame) -> None:
        """`body` is the section as its source encoded it."""
        self.info = info
        self.header = header
        self.section = section
        self.body = body

    @property
    def kind(self) -> str:
        """Record kind, as `step` or `episode`."""
        return names.KINDS[self.section.kind - 1]

    @property
    def columns(self) -> "StepColumns":
        """Step rows as a structured array: `columns["reward"]` and so on. Only for kind `step`."""
        from runlane.transport.columns import decode_steps, step_dtype

        schema = self.info.schema(self.section.schema_id)
        if schema is None:
            raise WireError("schema", f"stream {self.info.stream} announced no schema {self.section.schema_id}")
        return decode_steps(self.body, self.section, step_dtype(schema))

    @property
    def records(self) -> list[Record]:
        """Validated records. For every kind but `step`."""
        from runlane.transport.columns import decode_records

        return decode_records(self.body, self.section)

    def __len__(self) -> int:
        return self.section.records
