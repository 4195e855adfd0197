"""The command line. Each command imports what it needs when it runs, so `--help` and workers stay quick."""

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from runlane import __version__
from runlane.config import names
from runlane.config.errors import RunlaneError
from runlane.config.load import load, shipped
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode

app = typer.Typer(
    name="runlane",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Watch a reinforcement-learning run while it trains, and keep every step it makes.\n\n"
    "Start with `runlane demo`, then `runlane run -- python your_script.py`. "
    "What was recorded lies in `.runlane/runlane.db`: see `runlane runs` and `runlane sql`.",
)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file (TOML); default $RUNLANE_CONFIG, else built in.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="One setting, as `db_writer.synchronous=NORMAL`. May be repeated."),
]
LATEST = "latest"
RunningRun = Annotated[str, typer.Argument(help="Id of the run, the beginning of one, its name, or `latest`.")]
RunningWorker = Annotated[str, typer.Option(help="Name of one worker; default: all running workers of the run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


class Graphics(StrEnum):
    """How `watch` draws."""

    AUTO = "auto"
    KITTY = "kitty"
    ITERM = "iterm"
    SIXEL = "sixel"
    BLOCKS = "blocks"


def _settings(config: Path | None, sets: list[str] | None) -> tuple[Settings, list[str]]:
    """The settings in force, and the options that make a child process arrive at the same ones."""
    settings = load(config, arguments=sets or ())
    options = ["--config", str(config.absolute())] if config is not None else []
    for text in sets or ():
        options += ["--set", text]
    return settings, options


@app.command()
def demo(config: Config = None, sets: Sets = None) -> None:
    """Train CartPole with the whole graph around it, live in this terminal, then check every count.

    Starts six kinds of process, shows returns, rates and queues while the agent learns, and ends by itself with
    a summary that compares what the worker counted with what the database holds.
    """
    from runlane.demo import run_demo

    settings, options = _settings(config or shipped("demo.toml"), sets)
    raise typer.Exit(run_demo(options, settings))


@app.command()
def up(
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Stop by itself after the last worker has ended.")
    ] = False,
    no_workers: Annotated[
        bool, typer.Option("--no-workers", help="Start none of the workers the settings declare.")
    ] = False,
    with_gui: Annotated[bool, typer.Option("--gui", help="Open the window, too; closing it stops nothing.")] = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Start the actor graph and stay: router, DB writer, and what the settings file declares.

    Ctrl-C stops it in order: workers, proxies, router, DB writer; everything accepted is committed first.
    """
    from runlane.actors.supervisor import Supervisor
    from runlane.foreign import adopt_spools
    from runlane.transport.log import configure_log

    settings, options = _settings(config, sets)
    configure_log(names.SUPERVISOR, settings.log_level)
    if no_workers:
        settings = msgspec.structs.replace(settings, workers={})
    if with_gui:
        from runlane.window_check import check_window

        check_window(os.environ)
    adopt_spools(settings, options, wait_s=5.0)
    raise typer.Exit(Supervisor(settings, options, until_idle=until_idle, with_gui=with_gui).run())


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="The command, after `--`.", metavar="-- COMMAND...")],
    name: Annotated[str, typer.Option("--name", "-n", help="Readable name of the run; default: the script's.")] = "",
    worker: Annotated[str, typer.Option(help="Name of the worker inside its run.")] = "worker",
    resume: Annotated[str, typer.Option(help="Id of a run to go on with, instead of beginning a new one.")] = "",
    no_hook: Annotated[bool, typer.Option("--no-hook", help="Record only what the script says by itself.")] = False,
    dry: Annotated[bool, typer.Option("--dry", help="Run nothing; list what would be hooked.")] = False,
    jsonl: Annotated[
        str | None, typer.Option(help="Read JSON lines from the command's stdout, fd:N, or a PATH.")
    ] = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Run a command as a worker: `runlane run -- python train.py`. Nothing in it needs to be edited.

    Every Python below it records the environments of Gymnasium, gym and PettingZoo that it steps. Uses the graph
    that is running, or starts one for as long as the command lives. The command keeps this terminal, its arguments
    and its exit code.
    """
    from runlane.launch import run_command
    from runlane.run_report import name_of, print_run
    from runlane.workers.foreign_program import check_source

    settings, options = _settings(config, sets)
    source = "" if jsonl is None else check_source(jsonl)
    if dry:
        from runlane.dry_run import print_dry_run

        raise typer.Exit(print_dry_run(command, settings))
    chosen = name or ("" if resume else name_of(command))
    code, run_id, is_drained = run_command(
        command, settings, options, chosen, worker, resume, source, is_hooking=not no_hook
    )
    print_run(settings, run_id, code, is_drained=is_drained, is_hooking=not no_hook, jsonl=source)
    raise typer.Exit(code)


@app.command()
def runs(as_json: AsJson = False, config: Config = None, sets: Sets = None) -> None:
    """List the runs in the database, newest first."""
    import msgspec

    from runlane.actors.store_reader import list_runs
    from runlane.gui.tables import print_runs
    from runlane.transport.endpoint import database_of

    settings, _ = _settings(config, sets)
    found = list_runs(database_of(settings))
    if as_json:
        print(json.dumps([msgspec.to_builtins(row) for row in found], indent=2))
    else:
        print_runs([msgspec.to_builtins(row) for row in found])


@app.command()
def curve(
    run: Annotated[str, typer.Argument(help="Id of the run, the beginning of its id, or its name.")],
    points: Annotated[
        int, typer.Option(min=1, max=10_000, help="Points at most; a point covers episodes in a row.")
    ] = 500,
    as_json: AsJson = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Show the returns of a run over all its episodes, however many: mean, least and greatest."""
    import msgspec

    from runlane.actors.return_curve import coarser, return_curve
    from runlane.gui.curve_table import print_curve
    from runlane.transport.endpoint import database_of

    settings, _ = _settings(config, sets)
    found = return_curve(database_of(settings), run, points)
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
    else:
        print_curve(msgspec.to_builtins(found), msgspec.to_builtins(coarser(found.points, 10)))


@app.command()
def status(
    with_accounts: Annotated[
        bool, typer.Option("--accounts", help="Ask the router for the account of every subscriber and stream, too.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Show the running graph: its processes, and every subscriber's policy, queue, drops and latency."""
    from runlane.gui.tables import print_accounts, print_status
    from runlane.status import graph_status

    settings, _ = _settings(config, sets)
    found = graph_status(settings, with_accounts=as_json or with_accounts)
    if as_json:
        print(found.json())
        return
    print_status(found.status)
    if with_accounts:
        print_accounts(found.accounts)


@app.command()
def watch(
    run: Annotated[str, typer.Argument(help="Id of the run, the beginning of one, its name, or `latest`.")] = LATEST,
    worker: Annotated[str, typer.Option(help="Name of a worker; default: the newest one.")] = "",
    fps: Annotated[float, typer.Option(min=0.1, max=120, help="Frames a second, at most.")] = 15.0,
    tile: Annotated[
        int,
        typer.Option(min=0, help="Only this environment of a vector environment, from 1; 0: what the worker shows."),
    ] = 0,
    graphics: Annotated[
        Graphics, typer.Option(help="How to draw in the terminal; auto: by its variables, and never sixel.")
    ] = Graphics.AUTO,
    frames: Annotated[int | None, typer.Option(min=1, help="End after so many frames.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="End after so many seconds.")] = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Watch the environment of a running worker in this terminal, live. `q` or Ctrl-C ends it.

    The worker renders only while somebody watches. In a pipe: a line a second.
    """
    from runlane.watch import Wanted
    from runlane.watch import watch as watch_lane

    settings, _ = _settings(config, sets)
    wanted = Wanted("" if run == LATEST else run, worker, fps, tile, graphics.value, frames, seconds)
    watch_lane(settings, wanted, os.environ)


@app.command()
def gui(
    run: Annotated[str, typer.Argument(help="Id of the run, the beginning of one, its name, or `latest`.")] = LATEST,
    connect: Annotated[
        str, typer.Option(help="Another graph: `tcp://HOST:PORT` of its supervisor, or its data directory.")
    ] = "",
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Open the window: live wall, telemetry, runs, health. Needs `pip install "runlane[gui]"`.

    It may be closed, killed and opened again at any time: training does not notice.
    """
    from runlane.window import run_window

    settings, options = _settings(config, sets)
    raise typer.Exit(run_window(settings, "" if run == LATEST else run, connect, options))


@app.command()
def snapshot(
    target: Annotated[
        list[str],
        typer.Argument(help="The run as for `watch`, if one is meant, and the file.", metavar="[RUN] OUT.png"),
    ],
    worker: Annotated[str, typer.Option(help="Name of a worker; default: the newest one.")] = "",
    tile: Annotated[
        int,
        typer.Option(min=0, help="Only this environment of a vector environment, from 1; 0: what the worker shows."),
    ] = 0,
    scale: Annotated[int, typer.Option(min=1, max=64, help="Size of a pixel in the file.")] = 1,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for a frame.")] = 10.0,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Write what a running worker shows now as a PNG: `runlane snapshot latest now.png`."""
    from runlane.snapshot import Wanted
    from runlane.snapshot import snapshot as take_snapshot

    settings, _ = _settings(config, sets)
    *runs_named, out = target
    if len(runs_named) > 1:
        raise typer.BadParameter("one RUN and one OUT.png at most", param_hint="[RUN] OUT.png")
    run = "" if runs_named in ([], [LATEST]) else runs_named[0]
    print(take_snapshot(settings, Wanted(Path(out), run, worker, tile, scale, timeout)))


@app.command()
def mode(
    run: RunningRun,
    mode: Annotated[TelemetryMode, typer.Argument(help="The mode it shall be in.")],
    worker: RunningWorker = "",
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Switch what a running worker shows and keeps: `runlane mode latest fast_lane_only`.

    Returns when each of its streams is in that mode. The switch is in the run's records, with the step it came at.
    """
    from runlane.control import switch

    settings, _ = _settings(config, sets)
    for line in switch(settings, run, worker, mode):
        print(line)


@app.command()
def kill(
    run: RunningRun,
    worker: RunningWorker = "",
    now: Annotated[bool, typer.Option("--now", help="SIGKILL instead of SIGINT: nothing of the script runs.")] = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Stop running workers as Ctrl-C would; with `--now` kill them. What they have recorded is kept either way."""
    from runlane.control import end_workers

    settings, _ = _settings(config, sets)
    for line in end_workers(settings, run, worker, is_now=now):
        print(line)


@app.command()
def stop(config: Config = None, sets: Sets = None) -> None:
    """Stop the running graph in order, as Ctrl-C in its terminal would, and wait until it is gone."""
    from runlane.launch import stop_graph

    settings, _ = _settings(config, sets)
    stop_graph(settings)


@app.command()
def sql(
    statement: Annotated[
        str, typer.Argument(help='SQL, as "SELECT run, episode, sum(reward) FROM steps GROUP BY 1, 2".')
    ],
    as_json: AsJson = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Ask the database. Read only; views and columns are in `docs/reference/schema.md`."""
    from runlane.actors.store_reader import query
    from runlane.gui.tables import print_rows
    from runlane.transport.endpoint import database_of

    settings, _ = _settings(config, sets)
    columns, rows = query(database_of(settings), statement)
    if as_json:
        print(json.dumps([dict(zip(columns, map(_jsonable, row), strict=True)) for row in rows], indent=2))
    else:
        print_rows(columns, rows)


def _jsonable(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


@app.command()
def actor(
    name: Annotated[str, typer.Argument(help="router, db_writer, proxy, recovery or recorder.")],
    worker: Annotated[str, typer.Option(help="For a proxy: the worker it serves.")] = "worker",
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Run one actor in this process, without a supervisor: for debugging, or for a supervisor of your own."""
    from runlane.actors.start import start_actor
    from runlane.transport.log import configure_log

    settings, _ = _settings(config, sets)
    configure_log(name if name != "proxy" else f"{names.PROXY_PREFIX}{worker}", settings.log_level)
    raise typer.Exit(start_actor(name, worker, settings))


@app.command()
def recover(
    path: Annotated[
        Path | None,
        typer.Argument(help="A data directory, its `journals`, one journal, or one *.seg file. Default: data_dir."),
    ] = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Store what the journals of dead processes still hold. `runlane up` does it by itself for its data directory.

    Says for each journal what is stored; a damaged one is stored up to the damage and kept. Exit code 1 then.
    """
    from runlane.recover import recover as recover_journals

    settings, options = _settings(config, sets)
    raise typer.Exit(recover_journals(settings, options, path))


@app.command()
def delete(
    run: Annotated[str, typer.Argument(help="Id of the run, the beginning of its id, or its name.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether it is meant.")] = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Delete a run that has ended, or is lost: its records and its videos, for good.

    Asks before, and says after how many rows of each kind went. With a graph or without one.
    """
    from runlane.deletion import delete as delete_run

    settings, _ = _settings(config, sets)
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter(
            "there is no terminal to ask on; give it to delete without a question", param_hint="--yes"
        )
    raise typer.Exit(delete_run(settings, run, (lambda _: True) if yes else typer.confirm))


@app.command()
def doctor(config: Config = None, sets: Sets = None) -> None:
    """Look at this machine and this data directory, and say what would not work and what mends it."""
    from runlane.doctor import print_doctor

    settings, _ = _settings(config, sets)
    raise typer.Exit(print_doctor(settings))


@app.command()
def keys(directory: Annotated[Path, typer.Argument(help="A new directory, as `keys`.")]) -> None:
    """Make CURVE keys for a graph that listens beyond loopback: set `transport.keys_dir` to the directory."""
    from runlane.transport.keys import create_keys

    for path in create_keys(directory):
        print(path)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """The help of the whole stands at `app`."""
    del version


def main() -> None:
    """Entry point: a `RunlaneError` is one line and an exit code, never a traceback."""
    try:
        app()
    except RunlaneError as error:
        sys.stderr.write(f"runlane: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"runlane: {place}{error.strerror or error}; check the path, its permissions and free space\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
