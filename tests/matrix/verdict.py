"""Compares a script's two runs with each other, and the recorded one with its own count."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from matrix.case import Case
from matrix.evidence import Evidence
from matrix.script_run import Seen

from runlane.config.log_ids import REGISTRY

# What runlane may add to standard error: what its launcher says, and its log lines.
_LOG_LINE = rf"(\S+Z [A-Z]+ +\S+ )?({'|'.join(REGISTRY)}) "
_OURS = re.compile(rf"(runlane: |         |{_LOG_LINE})".encode())
# A traceback through an environment passes the hook: its frames are between the script's, which are all there.
_OUR_FRAME = re.compile(rb'  File "[^"\n]*runlane/workers/[^"\n]*", line \d+, in \w+\n(?:    [^\n]*\n)*')
_DIGITS = 6  # of a return: sums of floats in another order differ behind that


def differences(case: Case, bare: Seen, recorded: Seen) -> Iterator[str]:
    """What a script's user would notice."""
    wanted = case.exit_code if case.exit_code >= 0 else 128 - case.exit_code
    if bare.exit_code != case.exit_code:
        yield f"the bare run ended with {bare.exit_code}, not {case.exit_code}: {bare.stderr[-2000:]!r}"
    if recorded.exit_code != wanted:
        yield f"exit code {recorded.exit_code} instead of {wanted}: {recorded.stderr[-3000:]!r}"
    if recorded.stdout != bare.stdout:
        yield f"stdout differs: {_first_difference(bare.stdout, recorded.stdout)}"
    if not bare.result.get("digest"):
        yield "the bare run wrote no result"
    if recorded.result != bare.result:
        names = [name for name in bare.result if recorded.result.get(name) != bare.result[name]]
        yield f"the result differs in {names}"
    yield from _stderr_differences(case, bare, recorded)
    if case.is_watched and "FASTLANE_WRITER_ERROR" not in case.told and not recorded.frames:
        yield "nobody saw a frame"


def _stderr_differences(case: Case, bare: Seen, recorded: Seen) -> Iterator[str]:
    before, after = Counter(bare.stderr.split(b"\n")), Counter(_OUR_FRAME.sub(b"", recorded.stderr).split(b"\n"))
    for line in before - after:
        yield f"missing on stderr: {line[:300]!r}"
    for line in after - before:
        if line and not _OURS.match(line):
            yield f"new on stderr, and not in our name: {line[:300]!r}"
    for text in case.told:
        if text.encode() not in recorded.stderr:
            yield f"not said on stderr: {text}; said was {recorded.stderr[-1000:]!r}"


def _first_difference(one: bytes, other: bytes) -> str:
    place = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    around = slice(max(0, place - 60), place + 60)
    return f"at byte {place} of {len(one)} and {len(other)}: {one[around]!r} became {other[around]!r}"


def contradictions(case: Case, result: dict[str, Any], evidence: Evidence) -> Iterator[str]:
    """What the database says otherwise than the script."""
    if not case.is_recorded:
        if evidence.streams:
            yield f"there are streams: {evidence.streams}"
        return
    counted = [_counted(case, counts) for name, counts in result["environments"].items() if name not in case.unrecorded]
    stored = [_stored(counts) for counts in evidence.environments()]
    if case.shares_streams:
        counted, stored = [_together(counted)], [_together(stored)]
    counted, stored = (sorted(each for each in all_of if each[0]) for all_of in (counted, stored))
    if counted != stored:
        yield f"the script counted\n  {_shown(counted)}\nand stored is\n  {_shown(stored)}"
    yield from evidence.faults()
    yield from _slot_faults(evidence.slots(), case.workers)
    if case.metrics:
        found = evidence.metrics()
        yield from (
            f"{name}: {found.get(name)} values" for name, n in result["metrics"].items() if found.get(name) != n
        )


Counts = tuple[int, list[tuple[int, float]], list[tuple[int, float]]]


def _counted(case: Case, counts: dict[str, Any]) -> Counts:
    abandoned = list(counts["abandoned"])
    if counts["open"][0] and case.abandons_open:
        abandoned.append(counts["open"])
    return counts["steps"], _episodes(counts["ended"]), _episodes(abandoned)


def _stored(counts: dict[str, Any]) -> Counts:
    return counts["steps"], _episodes(counts["ended"]), _episodes(counts["abandoned"])


def _episodes(pairs: list[Any]) -> list[tuple[int, float]]:
    return sorted((int(length), round(float(total), _DIGITS)) for length, total in pairs)


def _together(each: list[Counts]) -> Counts:
    ended = sorted(pair for counts in each for pair in counts[1])
    abandoned = sorted(pair for counts in each for pair in counts[2])
    return sum(counts[0] for counts in each), ended, abandoned


def _shown(each: list[Counts]) -> str:
    return "\n  ".join(
        f"{steps} steps, {len(ended)} episodes {ended[:6]}, abandoned {abandoned[:6]}"
        for steps, ended, abandoned in each
    )


def _slot_faults(slots: list[str], named: tuple[str, ...]) -> Iterator[str]:
    """Each slot of the command once, and none left out."""
    numbered = set(named) or {f"worker-{number}" for number in range(1, len(slots))} | {"worker"}
    if len(set(slots)) != len(slots):
        yield f"a slot was handed out twice: {slots}"
    elif set(slots) != numbered:
        yield f"slots are missing: {slots}"
