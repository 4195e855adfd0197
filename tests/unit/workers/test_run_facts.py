"""What a run says of itself: how it was started, with which versions, of what environment, from which commit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from kinds import ROOT, interpreter_of
from unit.workers.session_rig import SessionRig

import runlane
from runlane.config import names
from runlane.transport.records import RunRecord
from runlane.workers import DetachedSession, wrap
from runlane.workers.env_facts import facts_of
from runlane.workers.run_facts import facts_at_start, versions


def _make(**options: Any) -> Any:
    return gymnasium.make("CartPole-v1", **options)  # pyright: ignore[reportUnknownMemberType]


# ---- at the start ----------------------------------------------------------------------------------------


def test_a_run_says_how_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a list too, so that nobody has to guess where a word ends."""
    monkeypatch.setenv(names.ENV_COMMAND, "python train.py --note 'two words'")
    facts = facts_at_start({"lr": np.float64(0.5)})
    assert facts["arguments"] == ["python", "train.py", "--note", "two words"]
    assert facts["config"] == {"lr": 0.5}
    assert (facts["pid"], facts["host"], facts["directory"]) == (os.getpid(), os.uname().nodename, str(Path.cwd()))
    assert facts["platform"].startswith(f"{os.uname().sysname} ")
    monkeypatch.delenv(names.ENV_COMMAND)
    assert facts_at_start(None)["arguments"] == sys.orig_argv


def test_secrets_of_a_config_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives it, and however deep they lie; a config that holds itself is cut, not followed."""
    monkeypatch.setenv(names.ENV_COMMAND, "python train.py --storage mysql://u:s3cret@h/db")
    config: dict[str, Any] = {"wandb_api_key": "k", "log": {"password": "p"}, "lr": 0.1}
    config["whole"] = config
    facts = facts_at_start(config)
    assert facts["config"]["wandb_api_key"] == "***"
    assert facts["config"]["log"] == {"password": "***"}
    assert facts["config"]["lr"] == 0.1
    assert "s3cret" not in facts["command"] + " ".join(facts["arguments"])


def test_versions_are_those_of_what_is_imported() -> None:
    """As the libraries say them; nothing is imported to be asked."""
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["gymnasium"] == gymnasium.__version__
    assert (found["runlane"], found["python"]) == (runlane.__version__, sys.version.split()[0])
    assert "tensorflow" not in found
    assert "tensorflow" not in sys.modules


def test_what_the_launcher_found_out_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may ask git; what it did not say, or said wrongly, is read from git's files, or is missing."""
    told = {"git": {"commit": "a" * 40, "branch": "main", "dirty_bytes": 7, "untracked": 1}}
    monkeypatch.setenv(names.ENV_FACTS, json.dumps(told))
    assert facts_at_start(None)["git"] == told["git"]
    monkeypatch.setenv(names.ENV_FACTS, "{broken")
    assert facts_at_start(None).get("git") != told["git"]


def test_a_script_by_itself_reads_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without starting git, and so without the size of what has changed."""
    monkeypatch.delenv(names.ENV_FACTS, raising=False)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("b" * 40)
    monkeypatch.chdir(tmp_path)
    assert facts_at_start(None)["git"] == {"commit": "b" * 40}
    (tmp_path / ".git" / "HEAD").unlink()
    assert "git" not in facts_at_start(None)


# ---- the environment -------------------------------------------------------------------------------------


def test_an_environment_says_what_is_needed_to_make_it_again() -> None:
    """Id, arguments, limits, spaces, modes and layers, and the seed it began with."""
    env = _make(render_mode="rgb_array", sutton_barto_reward=True, max_episode_steps=77)
    found = facts_of(env, 3)
    assert (found["id"], found["kwargs"], found["seed"]) == ("CartPole-v1", {"sutton_barto_reward": True}, 3)
    assert (found["max_episode_steps"], found["reward_threshold"]) == (77, 475.0)
    assert found["action_space"] == "Discrete(2)"
    assert found["observation_space"].startswith("Box(")
    assert found["render_mode"] == "rgb_array"
    assert found["layer"] == "TimeLimit<OrderEnforcing<PassiveEnvChecker<CartPoleEnv>>>"
    assert json.loads(json.dumps(found)) == found
    env.close()


def test_secrets_an_environment_was_made_with_are_masked() -> None:
    """`make(id, api_key=...)`."""
    env = _make(sutton_barto_reward=True)
    env.unwrapped.spec.kwargs |= {"api_key": "k", "db": "mysql://u:s3cret@h/db"}
    assert facts_of(env)["kwargs"] == {"sutton_barto_reward": True, "api_key": "***", "db": "mysql://u:***@h/db"}
    env.close()


WARNED = """
import gymnasium, json, warnings
from runlane.workers.env_facts import facts_of
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    scalar = facts_of(gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("CartPole-v1")))
    vector = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2)
    vector = facts_of(gymnasium.wrappers.RecordEpisodeStatistics(vector))
texts = [str(warning.message) for warning in said if "to get variables from other wrappers" in str(warning.message)]
print(json.dumps([scalar, vector, texts]))
"""


def test_gymnasium_029_is_asked_nothing_that_it_warns_of() -> None:
    """Its wrappers pass attributes on, and warn; what they wrap, scalar or vector, is found all the same."""
    python = str(interpreter_of("cleanrl"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [python, "-c", WARNED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    scalar, vector, texts = json.loads(done.stdout)
    assert texts == []
    assert (scalar["id"], scalar["action_space"]) == ("CartPole-v1", "Discrete(2)")
    assert (vector["num_envs"], vector["action_space"]) == (2, "Discrete(2)")


def test_a_vector_environment_says_how_many_it_is_and_how_it_resets() -> None:
    """Its spaces are those of one part."""
    env = SyncVectorEnv([_make, _make], autoreset_mode=AutoresetMode.SAME_STEP)
    found = facts_of(env, [1, 2])
    assert (found["num_envs"], found["autoreset_mode"], found["action_space"]) == (2, "SameStep", "Discrete(2)")
    assert found["seed"] == [1, 2]
    env.close()


class _Strange:
    """Raises at whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize("thing", [5, object(), _Strange()], ids=["number", "object", "strange"])
def test_whatever_is_given_an_answer_is_found(thing: object) -> None:
    """Telemetry never raises."""
    found = facts_of(thing)
    assert found["layer"]
    assert found["id"]


# ---- later -----------------------------------------------------------------------------------------------


def test_a_wrapped_environment_is_told_at_its_first_reset_once(rig: SessionRig) -> None:
    """With the seed of that one."""
    env = wrap(_make(), session=rig.session())
    env.reset(seed=5)
    env.reset(seed=6)
    env.close()
    (told,) = [record.facts for record in rig.records(RunRecord) if "env" in record.facts]
    assert (told["env"]["id"], told["env"]["seed"]) == ("CartPole-v1", 5)
    assert told["versions"]["gymnasium"] == gymnasium.__version__
    assert rig.sessions[0].faults == 0


def test_what_is_known_later_is_told_later(rig: SessionRig) -> None:
    """In a record of its own, as plain values; it raises nothing and moves no step."""
    session = rig.session()
    session.step(0, 1.0)
    session.note_facts(config={"lr": np.float32(0.5)}, team=("a", "b"))
    session.step(0, 1.0)
    told = rig.records(RunRecord)[-1]
    assert (told.state, told.facts) == ("running", {"config": {"lr": 0.5}, "team": ["a", "b"]})
    assert (session.env_steps, session.faults) == (2, 0)
    session.note_facts(bad=_Strange())
    assert session.faults <= 1
    DetachedSession().note_facts(config={})
