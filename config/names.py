"""Every name that two processes must spell alike: variables, files, record kinds. Spelled once, here."""

ENV_PREFIX = "RUNLANE_"

# What one process tells the next one it starts. Not settings: `load` passes over them.
ENV_CONFIG = "RUNLANE_CONFIG"
ENV_RUN = "RUNLANE_RUN"
ENV_RUN_NAME = "RUNLANE_RUN_NAME"
ENV_WORKER_NAME = "RUNLANE_WORKER_NAME"
ENV_PROXY = "RUNLANE_PROXY"
ENV_LIFELINE = "RUNLANE_LIFELINE_FD"
ENV_PARENT = "RUNLANE_PARENT_PID"
ENV_CHILD = "RUNLANE_CHILD"
ENV_KEEPER = "RUNLANE_KEEPER_PID"
ENV_COMMAND = "RUNLANE_COMMAND"
ENV_FACTS = "RUNLANE_FACTS"
ENV_WORKER_REPORT = "RUNLANE_WORKER_REPORT"
ENV_RESUMED = "RUNLANE_RESUMED"
ENV_RUN_DIR = "RUNLANE_RUN_DIR"
ENV_DISABLED = "RUNLANE_DISABLED"
ENV_ATTACH_DIR = "RUNLANE_ATTACH_DIR"
ENV_COMPAT = "RUNLANE_COMPAT"
ENV_RING = "RUNLANE_RING"

CONTEXT_VARIABLES = {
    ENV_CONFIG: "settings file, when --config is not given",
    ENV_RUN: "id of the run a worker belongs to; set by `runlane run` and the supervisor",
    ENV_RUN_NAME: "readable name of that run",
    ENV_WORKER_NAME: "name of the worker inside its run",
    ENV_PROXY: "endpoint of the worker's proxy",
    ENV_LIFELINE: "descriptor whose end-of-file means the parent is gone",
    ENV_PARENT: "pid of the parent that gave the lifeline",
    ENV_KEEPER: "process a proxy waits for, beside its workers, before it thinks that nobody needs it",
    ENV_CHILD: "name under which a child reports to its supervisor",
    ENV_COMMAND: "command line of the run, as recorded in `runs.command`",
    ENV_FACTS: "what the launcher knows of the run, as JSON; recorded in `runs.facts`",
    ENV_WORKER_REPORT: "file into which a demo worker writes its own counts",
    ENV_RESUMED: "1 marks a worker's streams as going on where earlier ones of its run ended",
    ENV_ATTACH_DIR: "directory of one command of `runlane run`: its hook, and the slots of its environments",
    ENV_RUN_DIR: "run directory of the graph, by which programs of other languages name their rings",
    ENV_DISABLED: "1 switches all telemetry of a worker off",
    ENV_COMPAT: "1 lets a script written for Gymnasium 0.29 run on Gymnasium 1.x",
    ENV_RING: "path of the head of the ring that an engine writes its frames into",
}

# What switches the fast lane of a worker, whatever kind it is: short names for settings, which they override.
ENV_FASTLANE = "FASTLANE"
FASTLANE_VARIABLES = {
    ENV_FASTLANE: "fast_lane.enabled",
    "FASTLANE_ONLY": "fast_lane.only",
    "FASTLANE_SLOT": "fast_lane.slot",
    "FASTLANE_VIDEO_MODE": "fast_lane.video_mode",
    "FASTLANE_GRID_LIMIT": "fast_lane.grid_limit",
    "FASTLANE_MAX_FPS": "fast_lane.max_fps",
}

# Files and sockets. A socket belongs to the role before its `+`, whose lock guards it.
DATABASE_FILE = "runlane.db"
LOG_DIR = "logs"
JOURNAL_DIR = "journals"
SPOOL_DIR = "spools"  # what programs of other languages have written
YIELD_SUFFIX = "-yield"  # beside the database: its writer asks readers to let the log go
SUPERVISOR_SOCKET = "supervisor"
INGRESS_SOCKET = "router+in"
CONTROL_SOCKET = "router+ctl"
LOCK_SUFFIX = ".lock"
SOCKET_SUFFIX = ".ipc"

# Record kinds. The order is the number on the wire (1 = step), so new kinds go last.
KINDS = ("step", "episode", "metric", "log", "run", "drop", "info")
# Of these, what retention may take out of a run that has ended; the one missed least first.
RETENTION_CLASSES = ("step", "info", "log", "metric")

ROUTER = "router"
DB_WRITER = "db_writer"
SUPERVISOR = "supervisor"
GUI = "gui"
TERMINAL = "terminal"
RECOVERY = "recovery"
RECORDER = "recorder"
PROXY_PREFIX = "proxy-"
