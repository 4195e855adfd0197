"""Options of worker kinds that cannot be: one line that names the option and what to give, exit code 2."""

import pytest

from runlane.workers import cleanrl, coach, godot, sb3, spade_bdi, vizdoom

KINDS = {"coach": coach, "godot": godot, "sb3": sb3, "spade_bdi": spade_bdi, "vizdoom": vizdoom}
READERS = {
    "coach": "parse",
    "godot": "parse",
    "sb3": "parse_options",
    "spade_bdi": "parse_options",
    "vizdoom": "parse_settings",
}


def _refusal(kind: str, *options: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        getattr(KINDS[kind], READERS[kind])(list(options))
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("value", ["-1", "99999999999999", "1.5", "x"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_seed_no_generator_takes_is_refused(kind: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is started."""
    line = _refusal(kind, "--seed", value, capsys=capsys)
    assert line.endswith(f"argument --seed: {value}: give a whole number from 0 to 4294967295")


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("spade_bdi", "--episodes"),
        ("vizdoom", "--episodes"),
        ("godot", "--episodes"),
        ("vizdoom", "--frame-skip"),
        ("sb3", "--steps"),
        ("sb3", "--envs"),
        ("coach", "--steps"),
    ],
)
@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_nothing_at_all_is_refused(kind: str, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A loop of no episodes says nothing, one of no tics never ends."""
    line = _refusal(kind, option, value, capsys=capsys)
    assert line.endswith(f"argument {option}: {value}: give 1 or more, as a whole number")


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-0.1", "1.5", "fast"])
def test_a_rate_that_learns_nothing_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor one that makes every worth a NaN."""
    line = _refusal("vizdoom", "--learning-rate", value, capsys=capsys)
    assert line.endswith(f"argument --learning-rate: {value}: give a number above 0, at most 1")


@pytest.mark.parametrize(("kind", "option"), [("godot", "--steps"), ("godot", "--rate"), ("vizdoom", "--steps")])
@pytest.mark.parametrize("value", ["-1", "few"])
def test_a_limit_is_no_private_name(kind: str, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """0 is none."""
    line = _refusal(kind, option, value, capsys=capsys)
    assert line.endswith(f"argument {option}: {value}: give 0 or more, as a whole number")


def test_what_is_possible_is_taken() -> None:
    """The ends of the ranges."""
    assert vizdoom.parse_settings(["--seed", "4294967295", "--steps", "0", "--learning-rate", "1"]).steps == 0
    assert spade_bdi.parse_options(["--episodes", "1", "--seed", "0"]).episodes == 1


def test_only_the_script_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """Its arguments may be."""
    with pytest.raises(SystemExit):
        cleanrl.parse_options([])
    assert capsys.readouterr().err.endswith("the following arguments are required: script\n")
    assert cleanrl.parse_options(["a.py"]).arguments == []
    assert cleanrl.parse_options(["a.py", "--seed", "1"]).arguments == ["--seed", "1"]
