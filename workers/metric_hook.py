"""Hooks for zero edits: what a script logs as a scalar elsewhere becomes a metric, too.

`Logger.dump` of Stable-Baselines3, and `SummaryWriter.add_scalar` and `add_scalars` of PyTorch and tensorboardX. Each
is called as it was; what it returns, raises and writes is its own. A value on a device is not fetched: where the
library fetches it itself, to write it down, the number that it made is taken, as float32.
"""

import functools
import threading
from collections.abc import Mapping
from typing import Any, cast

from runlane.workers import hooked_session
from runlane.workers.replaced_call import Call, argument_of, replace_call
from runlane.workers.scalar import number_of, numbers_of, step_of


class _Calls(threading.local):
    """What the calls under way in this thread leave for each other."""

    dumped: frozenset[str] = frozenset()  # names that SB3's logger writes now; it records them itself
    made: list[Any] | None = None  # what the library makes of values that are no numbers here


_calls = _Calls()


def patch_sb3_logger(module: Any) -> None:
    """Record what `stable_baselines3.common.logger.Logger` dumps, at the step it is dumped for."""

    def recording(dump: Call) -> Call:
        @functools.wraps(dump)
        def dump_and_record(logger: Any, *arguments: Any, **options: Any) -> Any:
            values = _pending(logger, getattr(module, "DISABLED", None))
            before, _calls.dumped = _calls.dumped, frozenset(values)
            try:
                result = dump(logger, *arguments, **options)
            finally:
                _calls.dumped = before
            # What `RunlaneCallback` records only must not come a second time.
            if not any(getattr(each, "is_runlane", False) for each in getattr(logger, "output_formats", ())):
                _record(values, argument_of(arguments, options, 0, "step", 0))
            return result

        return dump_and_record

    replace_call(getattr(module, "Logger", None), "dump", recording)


def patch_summary_writer(module: Any) -> None:
    """Record scalars of the `SummaryWriter` in `torch.utils.tensorboard.writer` or `tensorboardX.writer`."""
    writer = getattr(module, "SummaryWriter", None)
    replace_call(module, "scalar", _noting)
    replace_call(writer, "add_scalar", _recording_one)
    replace_call(writer, "add_scalars", _recording_several)


def _recording_one(add_scalar: Call) -> Call:
    @functools.wraps(add_scalar)
    def add_and_record(writer: Any, *arguments: Any, **options: Any) -> Any:
        tag = str(argument_of(arguments, options, 0, "tag"))
        value = argument_of(arguments, options, 1, "scalar_value")
        if tag in _calls.dumped:
            return add_scalar(writer, *arguments, **options)
        result, values = _calling(add_scalar, {tag: value}, writer, *arguments, **options)
        _record(values, argument_of(arguments, options, 2, "global_step"))
        return result

    return add_and_record


def _recording_several(add_scalars: Call) -> Call:
    @functools.wraps(add_scalars)
    def add_and_record(writer: Any, *arguments: Any, **options: Any) -> Any:
        tag = argument_of(arguments, options, 0, "main_tag")
        given: Any = argument_of(arguments, options, 1, "tag_scalar_dict")
        named: dict[str, Any] = {}
        if isinstance(given, Mapping):
            parts = cast("Mapping[str, Any]", given)
            named = {f"{tag}/{part}": value for part, value in parts.items()}
        result, values = _calling(add_scalars, named, writer, *arguments, **options)
        _record(values, argument_of(arguments, options, 2, "global_step"))
        return result

    return add_and_record


def _calling(call: Call, values: dict[str, Any], *arguments: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Call it; values that are no numbers are replaced by what the library has made of them meanwhile."""
    if all(number_of(value) is not None for value in values.values()):
        return call(*arguments, **options), values
    before, made = _calls.made, list[Any]()
    _calls.made = made
    try:
        result = call(*arguments, **options)
    finally:
        _calls.made = before
    if len(made) == len(values):  # one of each, in order
        for (name, value), summary in zip(list(values.items()), made, strict=True):
            if number_of(value) is None and not isinstance(value, str):
                written = _written_in(summary)
                values[name] = value if written is None else written
    return result, values


def _noting(make_summary: Call) -> Call:
    """`scalar(name, value)` of the writer's module, which turns a value into what is written to disk."""

    @functools.wraps(make_summary)
    def make_and_note(*arguments: Any, **options: Any) -> Any:
        summary = make_summary(*arguments, **options)
        if _calls.made is not None:
            _calls.made.append(summary)
        return summary

    return make_and_note


def _written_in(summary: Any) -> float | None:
    """The number in a `Summary` message of one scalar; None where it has another form."""
    try:
        value = summary.value[0]
        if value.HasField("simple_value"):
            return float(value.simple_value)
        numbers = value.tensor.double_val or value.tensor.float_val
        return float(numbers[0])
    except Exception:  # a message of another version
        return None


def _pending(logger: Any, disabled: Any) -> dict[str, Any]:
    """What SB3's logger is about to write; it is empty afterwards."""
    try:
        return {} if logger.level == disabled else {str(name): value for name, value in logger.name_to_value.items()}
    except Exception:  # a logger of somebody's own
        return {}


def _record(values: Mapping[str, Any], step: Any) -> None:
    try:
        found = numbers_of(values.items())
        if found:
            hooked_session.session_for_metrics().metrics(found, step_of(step))
    except Exception as error:
        hooked_session.count_fault(error)
