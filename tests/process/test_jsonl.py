"""JSON lines of foreign programs, end to end: real programs, a real graph, SQLite, and `kill -9` of everybody."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process.graph_under_test import GraphUnderTest, is_alive, wait_until
from process.jsonl_rig import PROGRAM, ForeignRun, await_all_written, bridge_pid, expected, read_bytes, stored

pytestmark = pytest.mark.timeout(240)
SEED = int(os.environ.get("RUNLANE_TEST_SEED") or random.SystemRandom().randrange(1 << 30))
STEP = '{"kind":"step","action":1,"reward":1}'


def program(lines: int, *more: int) -> tuple[str, ...]:
    """The command that writes so many lines."""
    return (sys.executable, str(PROGRAM), str(lines), str(SEED), *map(str, more))


def shell(text: str) -> tuple[str, ...]:
    """A program in another language."""
    return ("sh", "-c", text)


def run_to_its_end(graph: GraphUnderTest, source: str, *command: str) -> tuple[str, str]:
    """Output and standard error of a run that ends with code 0."""
    with ForeignRun(graph, source, *command) as run:
        code, out, err = run.end()
        assert code == 0, err
        assert not run.spools()
    return out, err


def kill_bridge(run: ForeignRun, target: int) -> bool:
    """`kill -9` of the bridge once it has read so many bytes, and wait for the next one; False when it has ended."""
    spool = run.spool()
    wait_until(lambda: not spool.exists() or (read_bytes(spool) >= target and bridge_pid(spool)), "the bridge reads")
    pid = bridge_pid(spool)
    if not pid:
        return False
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not spool.exists() or bridge_pid(spool) not in (0, pid), "the next bridge is there")
    return True


def test_every_line_is_stored_once_however_often_the_bridge_is_killed(short_dir: Path) -> None:
    """`kill -9` of the bridge at random points: no record is lost, none is there twice, episodes go on."""
    lines, kills = 60_000, 6
    sys.stderr.write(f"RUNLANE_TEST_SEED={SEED}\n")
    dice = random.Random(SEED)  # noqa: S311  no cryptography
    with GraphUnderTest(short_dir) as graph, ForeignRun(graph, "stdout", *program(lines)) as run:
        spool = run.spool()
        size = int(wait_until(lambda: (spool / "out.jsonl").stat().st_size, "the program writes"))
        killed = sum(kill_bridge(run, dice.randrange(size * number // kills)) for number in range(1, kills + 1))
        code, _, err = run.end()
        assert code == 0, err
        assert killed
        assert stored(graph) == expected(lines, SEED)
        assert graph.sql("SELECT count(DISTINCT worker), count(*) > 1 FROM streams WHERE worker = 'worker'") == [(1, 1)]
        assert not run.spools()


def test_what_a_killed_program_has_written_is_stored(short_dir: Path) -> None:
    """`kill -9` of the program while the proxy is being killed, too: every line is there, and the run says killed."""
    with GraphUnderTest(short_dir) as graph, ForeignRun(graph, "stdout", *program(20_000, 1)) as run:
        wait_until(lambda: read_bytes(run.spool()) > 0, "lines are recorded")
        await_all_written(run.spool(), 20_000, SEED)
        graph.kill("proxy-worker")
        wait_until(lambda: len(graph.sql("SELECT 1 FROM logs WHERE text LIKE 'text %'")) > 1, "lines are stored")
        os.kill(run.program_pid(), signal.SIGKILL)
        code, _, err = run.end()
        assert code == 128 + signal.SIGKILL, err
        assert stored(graph) == expected(20_000, SEED)
        assert graph.sql("SELECT state FROM runs") == [("killed",)]


@pytest.mark.parametrize("how", ["recover", "up"])
def test_what_nobody_was_left_to_record_is_stored_later(short_dir: Path, how: str) -> None:
    """`kill -9` of launcher, bridge and program together; `runlane recover` or the next graph stores the rest."""
    with GraphUnderTest(short_dir) as graph, ForeignRun(graph, "stdout", *program(30_000, 1)) as run:
        spool, pid = run.spool(), run.program_pid()
        wait_until(lambda: read_bytes(spool) > 0, "lines are recorded")
        os.kill(run.process.pid, signal.SIGSTOP)  # so that it starts no bridge in between
        await_all_written(spool, 30_000, SEED)
        bridge = bridge_pid(spool)
        for victim in (bridge, pid, run.process.pid):
            os.kill(victim, signal.SIGKILL)
        run.process.wait(30)
        wait_until(lambda: not is_alive(bridge) and not is_alive(pid), "all three are dead")
        assert spool.exists()
    if how == "recover":
        command = [sys.executable, "-m", "runlane", "recover", *graph.options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"spool {spool.name}: worker worker of run" in done.stdout
    else:
        with GraphUnderTest(short_dir) as graph:
            wait_until(lambda: stored(graph) == expected(30_000, SEED), "the next graph stores the rest", 60)
    assert not spool.exists()
    assert stored(graph) == expected(30_000, SEED)


def test_a_bridge_outlives_its_launcher(short_dir: Path) -> None:
    """`kill -9` of `runlane run`: the program goes on, and what it writes then is stored, too."""
    script = f"echo '{STEP}'; read _ < {shlex.quote(str(short_dir / 'go'))}; echo '{STEP}'"
    os.mkfifo(short_dir / "go")
    with GraphUnderTest(short_dir) as graph, ForeignRun(graph, "stdout", *shell(script)) as run:
        spool = run.spool()
        wait_until(lambda: read_bytes(spool) > 0, "the first line is recorded")
        run.kill()
        (short_dir / "go").write_text("\n")
        wait_until(lambda: not spool.exists(), "the bridge has ended")
        wait_until(lambda: graph.sql("SELECT count(*) FROM steps") == [(2,)], "both are stored")


@pytest.mark.parametrize("source", ["fd:3", "fd:12", "path", "pipe"])
def test_every_source_is_read(short_dir: Path, source: str) -> None:
    """A descriptor, a file and a named pipe; standard output stays the terminal's then."""
    place = short_dir / "place"
    if source == "pipe":
        os.mkfifo(place)
    to = f"/proc/self/fd/{source[3:]}" if source.startswith("fd:") else shlex.quote(str(place))
    script = f"import sys; out = open({to!r}, 'a'); print('mine'); [out.write('{STEP}\\n') for _ in range(50_000)]"
    with GraphUnderTest(short_dir) as graph:
        given = source if source.startswith("fd:") else str(place)
        out, _ = run_to_its_end(graph, given, sys.executable, "-c", script)
        assert out == "mine\n"
        assert graph.sql("SELECT count(*), sum(reward) FROM steps") == [(50_000, 50_000.0)]


def test_what_is_no_record_is_counted_and_never_fatal(short_dir: Path) -> None:
    """Text goes through, a line of 1 MB is taken, one of 9 MB is not, bad ones are quoted once, half ones counted."""
    observation = [0.5] * 200_000
    lines = [
        "a banner",
        json.dumps({"kind": "step", "observation": observation}),
        '{"kind":"step","reward":"much"}',
        '{"kind":"step","reward":"more"}',
        '{"kind":"leap"}',
        '{"kind":"step"',
        "{'kind': 'python'}",
        '{"no":"kind"}',
        "x" * (9 << 20),
        '{"kind":"metric","name":"loss","value":NaN}',
        "",
        STEP,
    ]
    (short_dir / "lines").write_text("\n".join(lines) + '\n{"kind":"st')
    with GraphUnderTest(short_dir) as graph:
        out, err = run_to_its_end(graph, "stdout", "cat", str(short_dir / "lines"))
        assert out.splitlines() == ["a banner", "{'kind': 'python'}", '{"no":"kind"}']
        assert graph.sql("SELECT length(observation) FROM steps ORDER BY seq") == [(8 * len(observation),), (None,)]
        assert graph.sql("SELECT name, value FROM metrics") == [("loss", None)]
        quoted = [text for (text,) in graph.sql("SELECT text FROM logs WHERE level = 'warning' ORDER BY seq")]
        assert [text.partition(" (")[0].partition(": ")[0] for text in quoted[:-1]] == [
            f"line not taken, {sort}" for sort in ("wrong_type", "unknown_kind", "no_json", "huge", "half")
        ]
        assert quoted[-1] == "lines not taken: 1 half, 1 huge, 1 no_json, 1 unknown_kind, 2 wrong_type"
        assert err.count("JSONL_NOT_TAKEN") == 5


def test_read_space_is_given_back(short_dir: Path) -> None:
    """A spool's file has holes where it was read, so a long run takes no more room than what is behind."""
    script = f"import sys; [print('{STEP}') for _ in range(150_000)]; sys.stdout.flush(); sys.stdin.read()"
    with GraphUnderTest(short_dir) as graph, ForeignRun(graph, "stdout", sys.executable, "-c", script) as run:
        out = run.spool() / "out.jsonl"
        wait_until(lambda: out.stat().st_size >= 150_000 * (len(STEP) + 1), "all is written")
        wait_until(lambda: out.stat().st_blocks * 512 < 3 << 20, "the file has holes")
        os.kill(run.program_pid(), signal.SIGTERM)
        assert run.end()[0] == 128 + signal.SIGTERM
        assert graph.sql("SELECT count(*) FROM steps") == [(150_000,)]


@pytest.mark.parametrize(("source", "problem"), [("fd:x", "no source"), ("/nowhere/at/all", "its directory")])
def test_a_source_that_cannot_be_one_is_one_line(short_dir: Path, source: str, problem: str) -> None:
    """It names the source and what to give instead."""
    with GraphUnderTest(short_dir) as graph, ForeignRun(graph, source, "true") as run:
        code, _, err = run.end()
        assert code == 2
        assert problem in err
        assert repr(source) in err
        assert "Traceback" not in err


def test_a_program_that_writes_no_line_is_told_of(short_dir: Path) -> None:
    """Text is none: one line on standard error, and a warning in the run while it lives."""
    with GraphUnderTest(short_dir, arguments=("attach.unhooked_s=0.2",)) as graph:
        with ForeignRun(graph, "stdout", *shell("echo hello; read _")) as run:
            warned = "SELECT text FROM logs WHERE level = 'warning'"
            [[text]] = wait_until(lambda: graph.sql(warned), "the run says so")
            code, _, err = run.end()
        assert text.startswith("no JSON line on stdout after 0.2 s: ")
        assert (code, err.count(text)) == (1, 1)
        with ForeignRun(graph, "stdout", *shell(f"echo '{STEP}'; read _")) as run:
            wait_until(lambda: graph.sql("SELECT count(*) FROM steps") == [(1,)], "its step is stored")
            assert "no JSON line" not in run.end()[1]
        assert graph.sql(warned) == [(text,)]
