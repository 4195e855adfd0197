"""Why a worker that is asked for cannot be asked: it records nothing, has ended, or was never there."""

from pathlib import Path

from runlane.transport.ring_files import find_rings


def why_absent(run_dir: Path, run: str, worker: str) -> str:
    """One line for a person, with what mends it."""
    if any((ring.info.run, ring.info.worker, ring.info.stream) == (run, worker, "") for ring in find_rings(run_dir)):
        return (
            f"worker {worker} of run {run} was started with fast_lane.only (FASTLANE_ONLY): it records nothing, cannot "
            "become durable and takes no orders; end it in its terminal, and start it with "
            "session.telemetry_mode=fast_lane_only instead"
        )
    return (
        f"worker {worker} of run {run} has no open stream here: it has ended, has not attached yet, or its name is "
        "another one; `runlane status` shows the proxies of running workers"
    )
