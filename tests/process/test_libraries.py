"""Libraries people train with, each the real package in its own environment, recording beside a real graph."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kinds import ROOT, interpreter_of
from process.graph_under_test import GraphUnderTest, wait_until
from process.kind_run import KindRun, lines_of, script

from runlane.config.load import load
from runlane.config.names import ENV_COMPAT, ENV_WORKER_REPORT
from runlane.transport.endpoint import run_dir_of
from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.ring_files import find_rings

pytestmark = pytest.mark.timeout(240)
SB3 = str(Path(__file__).with_name("sb3_training.py"))
TIANSHOU = str(Path(__file__).with_name("tianshou_training.py"))


@pytest.fixture
def graph(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[GraphUnderTest]:
    """A whole graph, for a test whose kinds have their environments."""
    for kind in request.node.get_closest_marker("kinds").args:
        interpreter_of(kind)
    with GraphUnderTest(short_dir) as started:
        yield started


def _totals(graph: GraphUnderTest) -> tuple[int, int, float]:
    """Steps, ended episodes and the sum of their returns, as the database has them."""
    steps = graph.sql("SELECT count(*) FROM steps")[0][0]
    statement = "SELECT count(*), total(episode_return) FROM episodes WHERE outcome != 'abandoned'"
    return (steps, *graph.sql(statement)[0])


def _workers(graph: GraphUnderTest) -> list[str]:
    """Names of the workers that have a stream; proxies have streams, too."""
    found = graph.sql("SELECT worker FROM streams WHERE worker NOT LIKE 'proxy-%' ORDER BY worker")
    return [worker for (worker,) in found]


# ---- Stable-Baselines3 -----------------------------------------------------------------------------------


@pytest.mark.kinds("sb3")
@pytest.mark.parametrize(
    ("algo", "env", "vec", "envs", "steps"),
    [
        ("ppo", "CartPole-v1", "dummy", 2, 4096),
        ("a2c", "CartPole-v1", "subproc", 2, 1000),
        ("dqn", "CartPole-v1", "dummy", 1, 700),
        ("sac", "Pendulum-v1", "dummy", 1, 850),
    ],
)
def test_the_sb3_worker_records_what_the_monitors_count(
    graph: GraphUnderTest, algo: str, env: str, vec: str, envs: int, steps: int
) -> None:
    """Steps, episodes and returns in SQL are those of SB3's own `Monitor`; what SB3 logs is there, too."""
    run = KindRun(graph, "sb3")
    report = graph.directory / "report"
    options = ("--algo", algo, "--env", env, "--vec", vec, "--envs", str(envs), "--steps", str(steps))
    done = run("-m", "runlane.workers.sb3", *options, FASTLANE="1", **{ENV_WORKER_REPORT: str(report)})
    assert done.returncode == 0, done.stderr
    run.settle()
    counted = json.loads(report.read_text())
    assert counted["episodes"] > 0
    found = _totals(graph)
    assert found[:2] == (counted["steps"], counted["episodes"])
    assert found[2] == pytest.approx(counted["return_sum"], rel=1e-5)  # Monitor rounds to six places
    assert _workers(graph) == ["sb3"]
    names = {name for (name,) in graph.sql("SELECT DISTINCT name FROM metrics")}
    assert {"rollout/ep_rew_mean", "time/total_timesteps"} <= names
    outcomes = {outcome for (outcome,) in graph.sql("SELECT DISTINCT outcome FROM episodes")}
    assert "truncated" in outcomes if env == "Pendulum-v1" else "terminated" in outcomes
    assert "[FASTLANE]" in done.stderr


@pytest.mark.kinds("sb3")
def test_the_sb3_worker_records_once_below_a_hook(graph: GraphUnderTest) -> None:
    """Under `runlane run` the environments and the logger are hooked; the worker's own way is the one that counts."""
    run = KindRun(graph, "sb3")
    report = graph.directory / "report"
    options = ("--algo", "a2c", "--envs", "2", "--vec", "subproc", "--steps", "1000")
    done = run.hooked("-m", "runlane.workers.sb3", *options, **{ENV_WORKER_REPORT: str(report)})
    assert done.returncode == 0, done.stderr
    run.settle()
    counted = json.loads(report.read_text())
    assert _totals(graph)[:2] == (counted["steps"], counted["episodes"])
    assert _workers(graph) == ["worker"]
    assert graph.sql("SELECT max(c) FROM (SELECT count(*) AS c FROM metrics GROUP BY name, step)") == [(1,)]


@pytest.mark.kinds("sb3")
@pytest.mark.parametrize("is_hooked", [False, True])
def test_the_sb3_callback_changes_nothing_and_records_all(graph: GraphUnderTest, is_hooked: bool) -> None:
    """The same parameters bit by bit, and every step once: by the callback, or below `runlane run` by the hooks."""
    run = KindRun(graph, "sb3")
    bare = run(SB3, RUNLANE_DISABLED="1")
    done = (run.hooked if is_hooked else run)(SB3, "--callback")
    assert (done.returncode, done.stdout) == (0, bare.stdout), done.stderr
    run.settle(2 if is_hooked else 1)
    _, steps, ended, returns = bare.stdout.split()
    assert _totals(graph) == (int(steps), int(ended), float(returns))
    assert graph.sql("SELECT max(c) FROM (SELECT count(*) AS c FROM metrics GROUP BY name, step)") == [(1,)]
    assert graph.sql("SELECT count(*) FROM metrics WHERE name = 'train/policy_loss'")[0][0] > 0
    config = json.loads(graph.sql("SELECT config FROM runs")[0][0])
    wanted = {"algorithm": "A2C", "policy": "ActorCriticPolicy", "n_envs": 2, "gamma": 0.99, "seed": 5, "note": "x"}
    assert {name: config.get(name) for name in wanted} == wanted
    assert config["environment"]["id"] == "CartPole-v1"


@pytest.mark.parametrize("vec", ["dummy", "subproc"])
def test_the_sb3_worker_is_drawn_while_it_is_watched(short_dir: Path, vec: str) -> None:
    """A grid of its environments, wherever they live, in its ring; nothing is needed but a viewer's lease."""
    directory = short_dir / "run"
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "FASTLANE_ONLY": "1",
        "FASTLANE_VIDEO_MODE": "grid",
        "RUNLANE_DATA_DIR": str(short_dir / "data"),
        "RUNLANE_TRANSPORT__RUN_DIR": str(directory),
    }
    options = ["--vec", vec, "--envs", "2", "--steps", "1000000"]
    command = [str(interpreter_of("sb3")), "-m", "runlane.workers.sb3", *options]
    settings = load(environment=variables)
    with subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            ring = wait_until(lambda: find_rings(run_dir_of(settings)), "there is a ring", 60)[0]
            reader = FastLaneReader(ring.path)
            try:
                wait_until(lambda: _is_seen(reader), "a frame of two environments", 60)
            finally:
                reader.close()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    assert process.returncode == 130


def _is_seen(reader: FastLaneReader) -> bool:
    reader.watch(time.monotonic_ns(), 30.0)
    found = reader.read()
    return found is not None and found[0].tile == 2 and any(found[1])


# ---- CleanRL ---------------------------------------------------------------------------------------------


@pytest.mark.kinds("cleanrl")
@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_the_cleanrl_worker_records_what_the_script_prints(graph: GraphUnderTest, name: str) -> None:
    """Every episode line of an unedited script for 0.29.1 is an episode, and every scalar a metric, at its step."""
    run = KindRun(graph, "cleanrl")
    done = run("-m", "runlane.workers.cleanrl", script(name), "--seed", "3", FASTLANE="1")
    assert done.returncode == 0, done.stderr
    run.settle()
    printed = lines_of(done.stdout)
    returns = [value for (value,) in graph.sql("SELECT episode_return FROM episodes WHERE outcome != 'abandoned'")]
    assert sorted(returns) == sorted(value for _, value in printed)
    metrics = graph.sql("SELECT step, value FROM metrics WHERE name = 'charts/episodic_return' ORDER BY seq")
    assert metrics == [tuple(line) for line in printed]
    assert _workers(graph) == (["cleanrl"] if name == "dqn" else ["cleanrl", "cleanrl-1", "cleanrl-2", "cleanrl-3"])
    assert "[FASTLANE]" in done.stderr
    config = json.loads(graph.sql("SELECT config FROM runs")[0][0])
    assert config["seed"] == 3
    if name == "ppo":
        assert config["wandb_api_key"] == "***"


@pytest.mark.kinds("cleanrl")
def test_dataclasses_of_tyro_become_the_config(graph: GraphUnderTest) -> None:
    """`tyro.cli(Args)` of an unedited script: its fields are the run's config, secrets masked."""
    run = KindRun(graph, "cleanrl")
    done = run("-m", "runlane.workers.cleanrl", script("sac"), "--total-timesteps", "250")
    assert done.returncode == 0, done.stderr
    run.settle()
    config = json.loads(graph.sql("SELECT config FROM runs")[0][0])
    assert config == {"seed": 1, "total_timesteps": 250, "learning_starts": 300, "hf_token": "***"}


@pytest.mark.kinds("cleanrl", "sb3")
@pytest.mark.parametrize("name", ["ppo", "dqn", "ppo_continuous", "sac"])
def test_a_script_for_029_prints_the_same_on_1x(graph: GraphUnderTest, name: str) -> None:
    """With `--compat` the episode lines of one seed are letter by letter those of 0.29.1; without, there are none."""
    old = KindRun(graph, "cleanrl")(script(name))
    new = KindRun(graph, "sb3")
    assert old.returncode == 0, old.stderr
    assert lines_of(old.stdout)
    plain = new(script(name))
    assert plain.stdout == ""
    worker = new("-m", "runlane.workers.cleanrl", "--compat", script(name))
    assert (worker.returncode, worker.stdout) == (0, old.stdout), worker.stderr
    hooked = new.hooked(script(name), **{ENV_COMPAT: "1"})
    assert (hooked.returncode, hooked.stdout) == (0, old.stdout), hooked.stderr


# ---- tianshou --------------------------------------------------------------------------------------------


@pytest.mark.kinds("tianshou")
def test_tianshou_trains_with_a_logger_and_wrapped_environments(graph: GraphUnderTest) -> None:
    """Steps are those that the environments made, and losses and collection statistics are metrics."""
    run = KindRun(graph, "tianshou")
    done = run(TIANSHOU)
    assert done.returncode == 0, done.stderr
    run.settle(3)
    steps, updates = (int(part) for part in re.findall(r"\d+", done.stdout.splitlines()[-1]))
    assert _totals(graph)[0] == steps
    losses = graph.sql("SELECT count(*), max(step) FROM metrics WHERE name = 'update/loss'")[0]
    assert losses[0] > 0
    assert 0 < losses[1] <= updates
    assert graph.sql("SELECT count(*) FROM metrics WHERE name = 'training/n_collected_steps'")[0][0] > 0
