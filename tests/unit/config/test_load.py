"""load(): defaults < file < environment < arguments, and every mistake named with where it was made."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runlane.config import names
from runlane.config.errors import SettingsError
from runlane.config.load import load, shipped
from runlane.config.settings import Settings


def _write(directory: Path, text: str) -> Path:
    path = directory / "my.toml"
    path.write_text(text, "utf-8")
    return path


def _error(*arguments: str, file: Path | None = None, environment: dict[str, str] | None = None) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(file, environment or {}, arguments)
    return caught.value


# ---- precedence ------------------------------------------------------------------------------------------


def test_a_file_goes_over_the_defaults(tmp_path: Path) -> None:
    """A key in the file replaces the shipped one, and no other."""
    settings = load(_write(tmp_path, "[router]\nlease_s = 9.0\n"), {})
    assert settings.router.lease_s == 9.0
    assert settings.router.ingress_hwm == 32


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    """RUNLANE_SECTION__KEY replaces what the file says."""
    file = _write(tmp_path, "[router]\nlease_s = 9.0\ningress_hwm = 7\n")
    settings = load(file, {"RUNLANE_ROUTER__LEASE_S": "8.0"})
    assert settings.router.lease_s == 8.0
    assert settings.router.ingress_hwm == 7


def test_arguments_go_over_the_environment() -> None:
    """`section.key=value` replaces all; of two, the last one counts."""
    environment = {"RUNLANE_ROUTER__LEASE_S": "8.0"}
    assert load(None, environment, ["router.lease_s=7", "router.lease_s = 6.5"]).router.lease_s == 6.5


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    """$RUNLANE_CONFIG is read when no file is given, and passed over when one is."""
    named = _write(tmp_path, 'log_level = "DEBUG"')
    environment = {names.ENV_CONFIG: str(named)}
    assert load(None, environment).log_level == "DEBUG"
    given = tmp_path / "given.toml"
    given.write_text('log_level = "ERROR"', "utf-8")
    assert load(given, environment).log_level == "ERROR"


def test_without_a_mapping_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load()` reads os.environ."""
    monkeypatch.setenv("RUNLANE_LOG_LEVEL", "WARNING")
    assert load().log_level == "WARNING"


def test_a_file_adds_to_the_declared_subscribers(tmp_path: Path) -> None:
    """A table in the file joins those of the defaults; a key in a declared table changes that key alone."""
    file = _write(tmp_path, "[subscribers.mine]\n[subscribers.db_writer]\nwindow = 8\n")
    settings = load(file, {})
    assert set(settings.subscribers) == {"mine", names.DB_WRITER}
    assert settings.subscribers[names.DB_WRITER].window == 8
    assert settings.subscribers[names.DB_WRITER].overflow == "block"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("/tmp/x", "/tmp/x"), ("'/tmp/x'", "/tmp/x"), ("a b", "a b"), ("", "")],
)
def test_a_value_that_is_no_toml_is_text(text: str, expected: str) -> None:
    """Nobody has to quote a path in a shell."""
    assert load(None, {"RUNLANE_DATA_DIR": text}).data_dir == expected


def test_a_list_is_written_as_in_toml() -> None:
    """Numbers, booleans and lists in variables and options are read as TOML."""
    settings = load(None, {}, ["subscribers.mine.kinds=['episode', 'metric']"])
    assert settings.subscribers["mine"].kinds == ["episode", "metric"]


# ---- what is shipped -------------------------------------------------------------------------------------


def test_the_shipped_values_are_the_defaults_of_the_classes() -> None:
    """`defaults.toml` says what the code says; only the declared subscribers stand in the file alone."""
    shown = load(None, {})
    assert msgspec.structs.replace(shown, subscribers={}) == Settings()
    assert set(shown.subscribers) == {names.DB_WRITER}


def test_the_shipped_file_shows_every_setting_that_has_a_default() -> None:
    """A user finds each setting in `defaults.toml`: all keys, but those whose default is None."""
    written = tomllib.loads(shipped("defaults.toml").read_text("utf-8"))
    defaults: dict[str, Any] = msgspec.to_builtins(Settings())
    named = {"subscribers", "workers"}
    assert set(written) >= set(defaults) - named
    for key in set(defaults) - named:
        if isinstance(defaults[key], dict):
            table: dict[str, Any] = defaults[key]
            assert set(written[key]) == {inner for inner, default in table.items() if default is not None}, key


def test_the_durable_path_loses_nothing() -> None:
    """The shipped DB writer is a `block` subscriber that gets every kind of record."""
    durable = load(None, {}).subscribers[names.DB_WRITER]
    assert durable.overflow == "block"
    assert durable.kinds == list(names.KINDS)


def test_the_demo_loads() -> None:
    """`demo.toml` is a valid settings file with one worker."""
    assert list(load(shipped("demo.toml"), {}).workers) == ["cartpole"]


# ---- mistakes --------------------------------------------------------------------------------------------


def test_an_unknown_key_in_a_file_is_named_with_the_nearest_known_one(tmp_path: Path) -> None:
    """File, key, value and `did you mean`."""
    file = _write(tmp_path, "[router]\nlease = 3.0\n")
    error = _error(file=file)
    assert (error.source, error.key, error.value) == (str(file), "router.lease", 3.0)
    assert error.remedy == "did you mean lease_s"


def test_an_unknown_section_lists_the_known_ones(tmp_path: Path) -> None:
    """With nothing near, every known key is listed."""
    error = _error(file=_write(tmp_path, "[zzz]\n"))
    assert error.key == "zzz"
    assert "router" in error.remedy
    assert "session" in error.remedy


def test_an_unknown_key_of_a_subscriber_names_the_subscriber(tmp_path: Path) -> None:
    """The key is the whole path, so that one of ten subscribers can be found."""
    error = _error(file=_write(tmp_path, "[subscribers.mine]\nmax_queu = 500\n"))
    assert error.key == "subscribers.mine.max_queu"
    assert error.remedy == "did you mean max_queue"


def test_a_wrong_type_names_file_key_value_and_remedy(tmp_path: Path) -> None:
    """All four stand in the text."""
    file = _write(tmp_path, '[router]\nlease_s = "long"\n')
    error = _error(file=file)
    assert (error.source, error.key, error.value) == (str(file), "router.lease_s", "long")
    for part in (str(file), "router.lease_s", "'long'", "Remedy:"):
        assert part in str(error)


def test_a_wrong_choice_lists_the_choices() -> None:
    """A value outside a fixed set is answered with the set."""
    error = _error("log_level=LOUD")
    assert (error.key, error.value) == ("log_level", "LOUD")
    assert "'INFO'" in error.remedy


def test_a_number_out_of_range_names_its_option() -> None:
    """The option is the source of what came from an option."""
    error = _error("session.batch_records=1025")
    assert (error.key, error.value) == ("session.batch_records", 1025)
    assert error.source == "option --set session.batch_records=1025"


@pytest.mark.parametrize("text", ["router=5", "router.lease_s.deep=1", "subscribers=5", "subscribers.mine=5"])
def test_a_value_in_place_of_a_table_is_an_error_of_ours(text: str) -> None:
    """Tables and values that stand in each other's place are named like any other mistake."""
    assert _error(text).key.split(".")[0] in ("router", "subscribers")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    """A worker without a command is refused by the full path of the key."""
    error = _error(file=_write(tmp_path, '[workers.mine]\nrun_name = "x"\n'))
    assert (error.key, error.problem) == ("workers.mine.command", "is missing")


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["subscribers.mine.overflow=latest", "subscribers.mine.max_queue=500"], "subscribers.mine.max_queue"),
        (["subscribers.mine.max_queue=1023"], "subscribers.mine.max_queue"),
        (["transport.kind=tcp", "transport.host=0.0.0.0"], "transport.host"),
        (["supervisor.heartbeat_s=6"], "supervisor.heartbeat_timeout_s"),
        (["supervisor.worker_grace_s=2"], "supervisor.worker_grace_s"),
        (["subscribers.mine.kinds=['nothing']"], "subscribers.mine.kinds"),
        (["subscribers.router.window=4"], "subscribers.router"),
        (["workers.a b.command=['true']"], "workers.a b"),
    ],
)
def test_an_impossible_pair_is_named_by_its_whole_path(arguments: list[str], key: str) -> None:
    """What the classes refuse comes back under the key a user wrote."""
    assert _error(*arguments).key == key


def test_text_that_is_no_toml_names_the_file_and_the_line(tmp_path: Path) -> None:
    """A syntax error says which file and where."""
    file = _write(tmp_path, "[router]\nlease_s = \n")
    error = _error(file=file)
    assert error.source == str(file)
    assert "line 2" in error.problem


def test_bytes_that_are_no_text_are_a_syntax_error(tmp_path: Path) -> None:
    """A binary file given by mistake is an error of ours, not a UnicodeDecodeError."""
    file = tmp_path / "my.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert _error(file=file).source == str(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path that cannot be read stands in the error."""
    path = tmp_path / "absent.toml"
    error = _error(file=path)
    assert error.value == str(path)
    assert "No such file" in error.problem


def test_an_unknown_variable_is_named() -> None:
    """A typing mistake in a RUNLANE_ variable is an error, never passed over in silence."""
    error = _error(environment={"RUNLANE_ROUTER__LEASE": "3.0"})
    assert error.source == "environment variable RUNLANE_ROUTER__LEASE"
    assert error.key == "router.lease"
    assert error.remedy == "did you mean lease_s"


def test_variables_that_are_context_are_passed_over() -> None:
    """What one process tells the next is no setting; nor is any variable without our prefix."""
    environment = dict.fromkeys(names.CONTEXT_VARIABLES, "anything") | {"ROUTER__LEASE_S": "1", "PATH": "/bin"}
    del environment[names.ENV_CONFIG]
    assert load(None, environment) == load(None, {})


@pytest.mark.parametrize("argument", ["router.lease_s", "=5", " = 5", ""])
def test_an_option_without_key_or_value_is_refused(argument: str) -> None:
    """`--set` wants KEY=VALUE and says so with an example."""
    assert "--set db_writer.synchronous=NORMAL" in _error(argument).remedy
