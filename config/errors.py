"""The one short tree of errors. Each carries the facts as attributes; the text is for a person.

Lives in the lowest folder so that every other folder can raise from the same tree.
"""


class RunlaneError(Exception):
    """Root of every error runlane raises on purpose; `exit_code` is what a command ends with."""

    exit_code = 1


class SettingsError(RunlaneError, ValueError):
    """A setting is unknown, of the wrong type, or impossible beside another one.

    Also a `ValueError`, which msgspec passes on with the path of the table it arose in.
    """

    exit_code = 2

    def __init__(self, key: str, value: object, problem: str, remedy: str, source: str = "") -> None:
        """Name the source (file, variable or option), the key, the value and what mends it."""
        self.key = key
        self.value = value
        self.problem = problem
        self.remedy = remedy
        self.source = source
        place = f"{source}: " if source else ""
        shown = "" if value is None else f" = {value!r}"
        super().__init__(f"{place}{key}{shown}: {problem}. Remedy: {remedy}.")


class WireError(RunlaneError):
    """Bytes from a socket are not a message of ours. `reason` is short and fit for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """`reason` is one of a few fixed words, `detail` what was seen."""
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class EndpointError(RunlaneError):
    """A run directory, lock or socket cannot be taken."""


class GraphError(RunlaneError):
    """The actor graph is not in the state the command needs: not running, or running already."""


class SubscriberRefusedError(RunlaneError):
    """The router refused a subscriber's hello; the text is the router's reason."""


class JournalError(RunlaneError):
    """A journal cannot be made, or its files are damaged, foreign or of another version."""


class SpoolError(RunlaneError):
    """A source of JSON lines cannot be used, or a spool's files are damaged or of another version."""


class StoreError(RunlaneError):
    """The database cannot be opened, is of another version, or refused a statement."""


class FastLaneError(RunlaneError):
    """A ring cannot be made or attached to, or a frame does not fit into one."""


class VideoError(RunlaneError):
    """Videos cannot be made here: PyAV is missing, or another recorder writes into the same directory."""


class WindowError(RunlaneError):
    """No window can be opened here: Qt, a library it needs, or a display is missing."""
