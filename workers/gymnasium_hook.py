"""Records every Gymnasium environment that a script steps, though nobody edited the script. Old `gym` likewise.

The methods `step`, `reset` and `close` of every environment class are replaced, of wrappers too, by functions that call
them and look at what comes out. Classes, not instances: copies and pickles of an environment are then what they were.
The call that the script makes is recorded, not those it leads to: so the recorded layer is what the agent sees, behind
frame skips and clipped rewards, unless `attach.layer` is "make". A vector environment's parts are stepped by no
wrapper, so each is recorded where it lives, in whatever process, as a stream of its own.

Nothing here touches random numbers, results, exceptions or output. Whatever goes wrong of ours is counted.
"""

import functools
import importlib
import inspect
import os
import re
import sys
import weakref
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from runlane.config.names import ENV_COMPAT
from runlane.workers import hooked_session
from runlane.workers.hook_place import Place, made, place, streams, total_recorded
from runlane.workers.layer_table import LayerTable, layers_of

MARK = "__runlane_hooked__"
MAX_LAYERS = 64
# Of Gymnasium's own: their `step` returns what is behind them returns, so what is behind them is recorded as well.
_PASSING = {"Wrapper", "OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics", "RecordVideo"}
_LIBRARIES = ("gymnasium.", "gym.")
_PIXELS = re.compile("render|display|opengl|egl|glx|osmesa|pygame|sdl", re.IGNORECASE)
_VECTOR_CLASSES = ("VectorEnv", "VectorEnvWrapper", "VectorWrapper")


_vector_envs: list[str] = []  # classes of vector environments that are environments, as all were before Gymnasium 1.0


# ---- what is patched -------------------------------------------------------------------------------------


def patch_core(module: ModuleType) -> None:
    """`gymnasium.core` or `gym.core` has been executed: hook its environments, and all derived from them."""
    hooked_session.mark_armed()
    env_class = module.Env
    if MARK in vars(env_class):
        return
    setattr(env_class, MARK, True)
    patch_family(env_class, patch_class)
    # Headless MuJoCo ends the process at its first render unless it was told so before.
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def patch_family(parent: Any, patch: Callable[[type], None]) -> None:
    """Patch all classes that are derived from one, and those that will be."""
    own: Any = parent.__dict__.get("__init_subclass__")

    def init_subclass(cls: type, /, **options: Any) -> None:
        if own is not None:
            own.__func__(cls, **options)
        else:
            super(parent, cls).__init_subclass__(**options)
        patch(cls)

    parent.__init_subclass__ = classmethod(init_subclass)
    for each in _descendants(parent):
        patch(each)


def patch_methods(each: type, hooks: Mapping[str, Callable[[Any], Any]]) -> None:
    """Hook those methods that this class itself defines. A hook makes of a method the one to take its place."""
    for name, hook in hooks.items():
        method = vars(each).get(name)
        if isinstance(method, FunctionType) and not hasattr(method, MARK):
            setattr(each, name, hook(method))


def patch_class(each: type) -> None:
    """Hook what this class itself defines. A vector environment is another hook's."""
    if is_vector_class(each):
        _vector_envs.append(each.__name__)
    else:
        is_passing = each.__name__ in _PASSING and each.__module__.startswith(_LIBRARIES)
        steps = {} if is_passing else {"step": functools.partial(hooked_step, is_wrapper=_is_wrapper(each))}
        patch_methods(each, {**steps, "reset": hooked_reset, "close": hooks_with(call_close)})


def hooked(method: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """A method that goes through `call`. It may be pickled by value with its class: all it names is importable."""

    @in_place_of(method)
    def through(self: Any, *arguments: Any, **options: Any) -> Any:
        return call(method, self, arguments, options)

    return through


def in_place_of(method: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What makes a function look like the method it takes the place of, and marks it as hooked."""

    def marked(through: Callable[..., Any]) -> Callable[..., Any]:
        setattr(through, MARK, True)
        return functools.wraps(method)(through)

    return marked


def hooks_with(call: Callable[..., Any]) -> Callable[[Any], Any]:
    """A hook whose methods go through `call`."""
    return functools.partial(hooked, call=call)


def hooked_step(method: Any, is_wrapper: bool) -> Callable[..., Any]:
    """A `step` likewise. Every step of every layer goes through it: see `_hooked_plain_step` for the common ones."""
    if takes_only(method, "action"):
        return _hooked_plain_step(method, is_wrapper)

    @in_place_of(method)
    def through(self: Any, *arguments: Any, **options: Any) -> Any:
        here = place.here
        if here.depth and not here.made:
            if not is_wrapper:
                here.moved = self
            return method(self, *arguments, **options)
        return call_step(method, self, arguments, options)

    return through


def _hooked_plain_step(method: Any, is_wrapper: bool) -> Callable[..., Any]:
    """What `call_step` does where there is nothing uncommon, in one flat function without a tuple and a dict.

    Between two steps a training fills the processor's caches with its own: each line here costs three times what it
    costs in a loop of nothing else (decisions/0012).
    """

    @in_place_of(method)
    def through(self: Any, action: Any) -> Any:
        here = place.here
        if here.made:
            return call_step(method, self, (action,), {})
        if here.depth:
            if not is_wrapper:
                here.moved = self
            return method(self, action)
        stream = here.streams.get(id(self))
        if stream is None or stream.is_over:
            return call_step(method, self, (action,), {})
        here.depth, here.inner_reset, here.outer_is_vector = 1, 0, False
        try:
            result = method(self, action)
        except BaseException:
            here.depth, here.moved = 0, None
            raise
        here.depth = 0
        here.recorded += 1
        here.total[0] += 1
        try:
            if here.inner_reset:
                stream.recorder.note_step(action, result, is_reset_step(here, self, stream))
            else:
                stream.recorder.note_step(action, result)
        except Exception:
            count_fault()
        here.moved = None
        return result

    return through


def hooked_reset(method: Any) -> Callable[..., Any]:
    """A `reset` likewise: behind the outermost layer it is only noted."""

    @in_place_of(method)
    def through(self: Any, *arguments: Any, **options: Any) -> Any:
        here = place.here
        if here.depth and not here.made:
            here.inner_reset = id(self)
            return method(self, *arguments, **options)
        return call_reset(method, self, arguments, options)

    return through


def takes_only(method: Any, name: str) -> bool:
    """Whether a function takes `self` and one argument of this name, which may be given either way, and no more."""
    code = method.__code__
    is_exact = code.co_argcount == 2 and not code.co_kwonlyargcount and not code.co_posonlyargcount
    has_more = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS) or method.__defaults__
    return is_exact and not has_more and code.co_varnames[1] == name


def _is_wrapper(each: type) -> bool:
    return any(base.__name__ == "Wrapper" and base.__module__.startswith(_LIBRARIES) for base in each.__mro__)


def is_vector_class(each: type) -> bool:
    """Whether it is a vector environment: before Gymnasium 1.0 those were environments, too."""
    return any(
        base.__name__ in _VECTOR_CLASSES and base.__module__.partition(".")[2].startswith("vector")
        for base in each.__mro__
    )


def patch_registration(module: ModuleType) -> None:
    """`make` asks for pixels where the script asked for nothing, so that the environment can be watched."""
    make = module.make
    if hasattr(make, MARK):
        return

    @in_place_of(make)
    def make_visible(*arguments: Any, **options: Any) -> Any:
        return _make(make, module, arguments, options)

    module.make = make_visible  # type: ignore[attr-defined]


def patch_package(module: ModuleType) -> None:
    """The package has taken `make` over, perhaps before it was patched."""
    registration = sys.modules.get(f"{module.__name__}.envs.registration")
    if registration is not None and getattr(module, "make", None) is getattr(registration.make, "__wrapped__", None):
        module.make = registration.make  # type: ignore[attr-defined]
    if module.__name__ == "gymnasium" and os.environ.get(ENV_COMPAT) == "1":
        from runlane.workers import gymnasium_compat

        gymnasium_compat.patch(module)
    _import_what_records()


def _import_what_records() -> None:
    """Beside the library's own import, and not in the first reset, which may well be in a loop that somebody times."""
    importlib.import_module("runlane.workers.env_recorder")


def _descendants(each: type) -> list[type]:
    found: list[type] = []
    children: list[type] = type.__subclasses__(each)
    for child in children:
        found += [child, *_descendants(child)]
    return found


# ---- make ----


def _make(make: Callable[..., Any], module: ModuleType, arguments: Any, options: dict[str, Any]) -> Any:
    """Make as asked; with `render_mode="rgb_array"` where none was asked and the environment has it."""
    wanted = options
    try:
        if _wants_pixels(module, arguments, options):
            wanted = {**options, "render_mode": "rgb_array"}
    except Exception:
        count_fault()
    try:
        env = make(*arguments, **wanted)
    except Exception as error:
        if wanted is options or not _PIXELS.search(repr(error)):
            raise
        env = None
    if env is None:  # it cannot be drawn here; as the script asked for it, then
        env = make(*arguments, **options)
    if hooked_session.records_made():
        layer: Any = env
        while layer.__class__.__name__ in _PASSING and "env" in layer.__dict__:
            layer = layer.env
        key = id(layer)
        made[key] = id(root_of(env))
        weakref.finalize(layer, made.pop, key, None)
    return env


def _wants_pixels(module: ModuleType, arguments: Any, options: dict[str, Any]) -> bool:
    if "render_mode" in options or not arguments or not hooked_session.may_render():
        return False
    name = arguments[0]
    spec: Any = module.spec(name.rpartition(":")[2]) if isinstance(name, str) else name
    if spec is None or "render_mode" in (getattr(spec, "kwargs", None) or {}):
        return False
    maker: Any = spec.entry_point
    if isinstance(maker, str):
        maker = module.load_env_creator(maker) if hasattr(module, "load_env_creator") else module.load(maker)
    return "rgb_array" in (_metadata(maker).get("render_modes") or ())


def _metadata(maker: Any) -> dict[str, Any]:
    return getattr(maker, "metadata", None) or {}


# ---- calls ----


class EnvStream:
    """One innermost environment and the session it is recorded with, from its first reset to its close."""

    __slots__ = ("__weakref__", "hooked", "is_over", "pid", "recorder")

    def __init__(self, root: Any, env: Any, seed: Any) -> None:
        """Open a session, or take one that was given back."""
        from runlane.workers.env_recorder import EnvRecorder

        self.hooked = hooked_session.open_session(kind_of(env, root), lambda: facts_of(env, seed))
        self.pid = os.getpid()
        self.recorder = EnvRecorder(self.hooked.session, weakref.proxy(root), hooked_session.records_observations())
        self.is_over = False

    def close(self) -> None:
        """The environment is closed or gone."""
        if not self.is_over and self.pid == os.getpid():
            self.recorder.close()
            hooked_session.give_back(self.hooked)
        elif not self.is_over:  # a forked child's: its own episode ends, and nobody else here uses the stream
            self.hooked.session.episode(outcome="abandoned")
        self.is_over = True


def _on_gone(stream: EnvStream) -> None:
    hooked_session.note_gone(stream.close)


_table: LayerTable[EnvStream] = LayerTable(_on_gone, streams)


def _is_recorded(here: Place, env: Any) -> bool:
    """Whether a call of this layer is one to record: that of the script, or that of what `make` has returned."""
    if not made:
        return not here.depth
    return id(env) in made or (not here.depth and id(root_of(env)) not in made.values())


def call_step(step: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Step, and record it where the script itself has called. For what is not common: see `hooked_step`."""
    here = place.here
    if not _is_recorded(here, env):
        here.moved = env
        return step(env, *arguments, **options)
    before = here.depth
    if not before:
        here.outer_is_vector = _is_around_vector(env)
    here.depth, here.inner_reset, here.moved = before + 1, 0, None
    try:
        result = step(env, *arguments, **options)
    finally:
        here.depth = before
    here.recorded += 1
    total_recorded[0] += 1
    try:
        stream = streams.get(id(env)) or _known_stream_of(env)
        if stream is not None and stream.is_over:  # it was closed, and is stepped all the same
            stream = _stream_of(env, None)
        if stream is not None:
            is_reset = is_reset_step(here, env, stream)
            stream.recorder.note_step(arguments[0] if arguments else options.get("action"), result, is_reset)
    except Exception:
        count_fault()
    here.moved = None
    return result


def is_reset_step(here: Place, env: Any, stream: "EnvStream") -> bool:
    """Whether a wrapper has only reset in this step, and nothing has moved: Autoreset after an episode's end."""
    if here.inner_reset in (0, id(env)) or not stream.recorder.has_ended:
        return False
    return here.moved is None or "env" in here.moved.__dict__


def call_reset(reset: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Reset, and record that where the script itself has called."""
    here = place.here
    if not _is_recorded(here, env):
        here.inner_reset = id(env)
        return reset(env, *arguments, **options)
    before = here.depth
    if not before:
        here.outer_is_vector = _is_around_vector(env)
    here.depth = before + 1
    try:
        result = reset(env, *arguments, **options)
    finally:
        here.depth = before
    here.recorded += 1
    total_recorded[0] += 1
    try:
        stream = streams.get(id(env))
        if stream is None or stream.is_over:
            stream = _stream_of(env, options.get("seed"))
        if stream is not None:
            stream.recorder.note_reset(observation_of(result))
    except Exception:
        count_fault()
    return result


def observation_of(result: Any) -> Any:
    """The observation that a `reset` returned; old `gym` returns nothing else."""
    is_pair = result.__class__ is tuple and len(result) == 2
    return result[0] if is_pair else result


def call_close(close: Callable[..., Any], env: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Close, and let the stream go."""
    here = place.here
    here.depth += 1
    try:
        return close(env, *arguments, **options)
    finally:
        here.depth -= 1
        if not here.depth:
            _close_stream(env)


def _close_stream(env: Any) -> None:
    try:
        stream = streams.get(id(env))
        if stream is not None:
            stream.close()
    except Exception:
        count_fault()


def _known_stream_of(env: Any) -> "EnvStream | None":
    """The stream of a layer that is stepped for the first time.

    What was never reset is recorded from its first reset on: it is a copy made in mid-episode, as a planner makes them
    by the thousand, or older than the hook.
    """
    if id(env) not in streams:
        _table.remember(env, streams.get(id(root_of(env))))
    found: EnvStream | None = streams[id(env)]
    return found


def _stream_of(env: Any, seed: Any) -> "EnvStream | None":
    """The stream of a layer that is reset, opened now if it has none, or None where nothing is to be recorded."""
    root = root_of(env)
    stream = streams.get(id(root))
    if (stream is None or stream.is_over) and not _is_not_ours(root):
        stream = EnvStream(root, env, seed)
        _table.remember(root, stream)
    _table.remember(env, stream)
    return stream


def root_of(env: Any) -> Any:
    """The innermost environment, or the outermost where it does not say."""
    try:
        return env.unwrapped
    except Exception:
        return env


def _is_around_vector(env: Any) -> bool:
    """Whether it wraps a vector environment. One with a stream does not, and needs no closer look."""
    if not _vector_envs or "env" not in env.__dict__ or streams.get(id(env)) is not None:
        return False
    return is_vector_class(root_of(env).__class__)


def _is_not_ours(root: Any) -> bool:
    return is_vector_class(root.__class__) or hooked_session.is_left(root)


def kind_of(env: Any, root: Any) -> str:
    """What two environments share that may go on in one stream: id, arguments and layers, not the seed."""
    spec: Any = getattr(root, "spec", None)
    given: dict[str, Any] = getattr(spec, "kwargs", None) or {}
    plain = {
        key: value if isinstance(value, str | int | float | None) else type(value).__name__
        for key, value in given.items()
    }
    layers = [
        f"{layer.__class__.__name__} {own.get('_max_episode_steps', '')}" for layer, own in layers_of(env, MAX_LAYERS)
    ]
    return f"{getattr(spec, 'id', '')}{plain}{layers}"


def facts_of(env: Any, seed: Any) -> dict[str, Any]:
    """What a run says of an environment."""
    from runlane.workers import env_facts

    return env_facts.facts_of(env, seed)


def count_fault() -> None:
    """What is being handled went wrong in a hook of ours."""
    hooked_session.count_fault(sys.exc_info()[1])
