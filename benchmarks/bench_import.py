"""What `import runlane.workers` adds to a script that has NumPy and pyzmq anyway, and what its first `attach()` loads.

Every figure is the median of fresh interpreters, the ways in turn. Each imports NumPy and pyzmq first, then
looks at the clock: so what those two take, which is far more and varies by more, is in no figure. `first` is what the
first session of a process loads, so that nothing is hidden by importing late. Both with byte code at hand, as every
installed package has it after its first import, and without any, as where nobody may write it.

Bar: 60 ms for `import runlane.workers`, with and without byte code.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile

from measuring import Machine, print_table, verdict

BAR_MS = 60.0
CASES = {
    "import": ("import runlane.workers", "import runlane.workers"),
    "first": ("what the first attach() loads", "import runlane.workers.attachment"),
}
# Where byte code is looked for is changed after NumPy and pyzmq are there.
TIMED = """
import numpy, sys, time, zmq
sys.pycache_prefix, sys.dont_write_bytecode = {folder!r}, {is_cold}
started_s = time.perf_counter()
{statement}
print((time.perf_counter() - started_s) * 1e3)
"""


def import_ms(statement: str, folder: str, *, is_cold: bool) -> float:
    """Milliseconds that a fresh interpreter takes for the statement, its byte code in `folder`."""
    script = TIMED.format(folder=folder, is_cold=is_cold, statement=statement)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout)


def main() -> None:
    """Print the table, the bar, and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--strict", action="store_true", help="exit code 1 when the bar is missed")
    chosen = parser.parse_args()
    machine = Machine()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="runlane-import-") as warm, tempfile.TemporaryDirectory() as cold:
        for number in range(chosen.rounds + 1):
            for name, (_, statement) in CASES.items():
                for suffix, folder in (("", warm), ("_cold", cold)):
                    measured = import_ms(statement, folder, is_cold=bool(suffix))
                    if number:  # the first round writes the byte code
                        found.setdefault(f"{name}{suffix}_ms", []).append(measured)
    figures = {key: round(statistics.median(each), 1) for key, each in found.items()}
    rows: list[list[str]] = []
    for key, each in found.items():
        words = "none" if key.endswith("_cold_ms") else "at hand"
        rows.append([CASES[key.split("_")[0]][0], words, *(f"{f(each):.1f}" for f in (statistics.median, min, max))])
    print_table(["beyond numpy and zmq, ms", "byte code", "median", "min", "max"], rows)
    is_met = max(figures["import_ms"], figures["import_cold_ms"]) <= BAR_MS
    words = verdict(is_met if machine.is_quiet else None)
    print(f"bar: import_ms {figures['import_ms']} and {figures['import_cold_ms']} of at most {BAR_MS:g}: {words}")
    print(machine.line())
    print(json.dumps({**figures, "import_is_within_bar": is_met, **machine.figures()}))
    if chosen.strict and not is_met:
        sys.exit(1)


if __name__ == "__main__":
    main()
