"""A worker that trains nothing, and says whether it was interrupted: EVENTS."""

import os
import sys
import time


def note(what: str) -> None:
    os.write(os.open(sys.argv[1], os.O_APPEND | os.O_CREAT | os.O_WRONLY), f"worker {what}\n".encode())


note("started")
try:
    time.sleep(600)
except KeyboardInterrupt:
    note("interrupted")
