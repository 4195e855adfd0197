"""The packed key of a record: stream number in the upper bits, seq in the lower. `schema.sql` says the same."""

SEQ_BITS = 40
SEQ_MASK = (1 << SEQ_BITS) - 1
