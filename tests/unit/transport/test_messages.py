"""Messages and records are ready to be converted by any thread once they are imported."""

import json
import subprocess
import sys

CONVERT = """
import json, sys
import msgspec
from runlane.transport import messages, records

called = []
sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
info = {"stream": "0" * 32, "run": "r", "worker": "w", "host": "h", "pid": 1, "started_ns": 1}
msgspec.convert(info, messages.StreamInfo)
for message in messages.ControlMessage.__args__:
    try:
        msgspec.convert({"type": message.__struct_config__.tag}, messages.ControlMessage)
    except msgspec.ValidationError:
        pass
for record in records.RECORD_TYPES.values():
    try:
        msgspec.convert([[]], list[record])
    except msgspec.ValidationError:
        pass
sys.setprofile(None)
print(json.dumps(called))
"""


def test_no_type_is_worked_out_at_its_first_conversion() -> None:
    """Two sessions of one process begin in threads of their own: both working out `StreamInfo` crashes msgspec."""
    process = subprocess.run([sys.executable, "-c", CONVERT], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(process.stdout) == []
