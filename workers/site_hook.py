# pyright: basic
"""What every Python below `runlane run` executes first, as its `sitecustomize`: watch for the libraries we hook.

`runlane run` puts a directory with this file alone first on PYTHONPATH. Nothing of ours is imported before the script
itself imports one of the modules in HOOKS; a script that does not, pays for one dictionary look-up per import.
Standard library only, and a syntax that any Python reads, for any may be started below a command. Whatever
`sitecustomize` it hides is run after it. Not imported by its own name but by `arm()`, in a process that hooks itself.
"""

import os
import sys

# Executed -> "module:function" that is called with it. What is found at import time of these is patched, nothing else.
HOOKS = {
    "gymnasium.core": "runlane.workers.gymnasium_hook:patch_core",
    "gymnasium.envs.registration": "runlane.workers.gymnasium_hook:patch_registration",
    "gymnasium": "runlane.workers.gymnasium_hook:patch_package",
    "gymnasium.vector.vector_env": "runlane.workers.vector_hook:patch_vector",
    "gym.core": "runlane.workers.gymnasium_hook:patch_core",
    "gym.envs.registration": "runlane.workers.gymnasium_hook:patch_registration",
    "gym": "runlane.workers.gymnasium_hook:patch_package",
    "gym.vector.vector_env": "runlane.workers.vector_hook:patch_vector",
    "pettingzoo.utils.env": "runlane.workers.pettingzoo_hook:patch_env",
    "stable_baselines3.common.logger": "runlane.workers.metric_hook:patch_sb3_logger",
    "torch.utils.tensorboard.writer": "runlane.workers.metric_hook:patch_summary_writer",
    "tensorboardX.writer": "runlane.workers.metric_hook:patch_summary_writer",
    "argparse": "runlane.workers.site_hook:keep_parsed",
    "tyro": "runlane.workers.config_hook:patch_tyro",
}
NEEDED = (3, 11)
NAME = "sitecustomize"
KEPT = "_runlane_parsed"  # of the module argparse: what its parsers found on the command line, until it is taken
MAX_KEPT = 16
_MARK = "_runlane_original"
_OWN = "runlane.workers.site_hook:"  # functions of this file, which has another name in most processes
_TAKER = "runlane.workers.config_hook"
# Without these a process records nothing; whoever lacks another library's hook need not hear of it.
_ENVIRONMENTS = ("gymnasium", "gym", "pettingzoo")
# Whose command lines are no hyper-parameters. tyro is told by its own hook.
_OTHERS = ("torch", "multiprocessing", "unittest", "pytest", "_pytest", "runlane", "runpy", "tyro", "pdb", "IPython")


class _Loader(object):
    """The module's own loader, and our patch when it is through."""

    def __init__(self, loader, hook):
        self._loader = loader
        self._hook = hook

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        spec = getattr(module, "__spec__", None)
        if spec is not None:
            setattr(spec, "loader", self._loader)
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _apply(self._hook, module)


class Finder(object):
    """First on `sys.meta_path`: lets the others find a watched module, and patches it when it has been executed."""

    def __init__(self, hooks):
        self._hooks = dict(hooks)
        self._asked = set()  # thread and name: another finder may ask all of `sys.meta_path` in its turn, us too

    def find_spec(self, name, path=None, target=None):
        """None for all but the watched; those are found by who would have found them."""
        if name not in self._hooks:
            return None
        from _thread import get_ident  # Python 3 has it built in, and 2 does not come here

        asked = (get_ident(), name)
        if asked in self._asked:
            return None
        self._asked.add(asked)
        try:
            return self._find(name, path, target)
        finally:
            self._asked.discard(asked)

    def _find(self, name, path, target):
        for finder in self._behind():
            if not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is None:
                continue
            if hasattr(spec.loader, "exec_module") and not isinstance(spec.loader, _Loader):
                setattr(spec, "loader", _Loader(spec.loader, self._hooks[name]))
            return spec
        return None

    def _behind(self):
        """Those before us have been asked already, or are asking."""
        finders = list(sys.meta_path)
        places = [place for place, finder in enumerate(finders) if finder is self]
        return finders[places[0] + 1 :] if places else finders


def install(hooks=None):
    # type: (dict[str, str] | None) -> None
    """Watch from now on, and patch what is there already. Again: nothing."""
    hooks = HOOKS if hooks is None else hooks
    if any(type(finder).__name__ == "Finder" and hasattr(finder, "_hooks") for finder in sys.meta_path):
        return
    if sys.version_info < (3, 4):
        return  # it trains nothing that we know of
    sys.meta_path.insert(0, Finder(hooks))
    for name in hooks:
        if name in sys.modules:
            _apply(hooks[name], sys.modules[name])


def _apply(hook, module):
    """Import what knows this module, and let it patch. Whatever goes wrong there is no matter of the script's."""
    is_told = module.__name__.partition(".")[0] in _ENVIRONMENTS
    try:
        if sys.version_info < NEEDED:
            versions = sys.version_info[:2] + NEEDED
            reason = "this is Python %d.%d, and runlane needs %d.%d; run it with --jsonl" % versions
        elif hook.startswith(_OWN):
            globals()[hook[len(_OWN) :]](module)
            return
        else:
            name, _, function = hook.partition(":")
            __import__(name)
            getattr(sys.modules[name], function)(module)
            __import__(_TAKER)
            sys.modules[_TAKER].take_parsed()
            return
    except ImportError as error:
        reason = "%s; install runlane there (pip install runlane), or run it with --jsonl" % error
    except Exception as error:
        reason = "%s: %s" % (type(error).__name__, error)
    if is_told:
        _tell_once(reason)


def keep_parsed(module):
    """Have `argparse` keep what the script's parsers find on the command line, until somebody takes it.

    Nothing of ours is imported for it: many a program reads a command line and trains nothing.
    """
    kept = module.__dict__.setdefault(KEPT, [])
    parsing = set()  # threads in which a parser is at work: `parse_args` calls `parse_known_args`
    for name in ("parse_args", "parse_known_args"):
        parse = module.ArgumentParser.__dict__[name]
        if not hasattr(parse, _MARK):
            setattr(module.ArgumentParser, name, _keeping(parse, kept, parsing))


def _keeping(parse, kept, parsing):
    import functools  # which argparse has imported
    from _thread import get_ident

    @functools.wraps(parse)
    def parse_and_keep(parser, *arguments, **options):
        thread = get_ident()
        if thread in parsing:
            return parse(parser, *arguments, **options)
        is_wanted = is_of_script(arguments[0] if arguments else options.get("args"), 2)
        parsing.add(thread)
        try:
            result = parse(parser, *arguments, **options)
        finally:
            parsing.discard(thread)
        if is_wanted:
            _keep(result, kept)
        return result

    setattr(parse_and_keep, _MARK, parse)
    return parse_and_keep


def _keep(result, kept):
    """The values as they are now: a script may change its namespace. Where somebody takes them, he is told at once."""
    try:
        found = result[0] if isinstance(result, tuple) and result else result
        kept.append(dict(found.__dict__))
        del kept[:-MAX_KEPT]
        if _TAKER in sys.modules:
            sys.modules[_TAKER].take_parsed()
    except Exception:  # noqa: S110  a namespace may be anything, and the config is not worth more
        pass


def is_of_script(given, frames):
    # type: (object, int) -> bool
    """Whether these arguments are this process's, and the script asks; `frames` is how many calls lie between us."""
    try:
        # Nothing else is looked into: an iterator would be empty for the parser.
        if given is not None and not (isinstance(given, (list, tuple)) and list(given) == sys.argv[1:]):
            return False
        multiprocessing = sys.modules.get("multiprocessing")
        if multiprocessing is not None and multiprocessing.parent_process() is not None:
            return False
        caller = str(sys._getframe(frames).f_globals.get("__name__", ""))  # noqa: SLF001
        return caller.partition(".")[0] not in _OTHERS
    except Exception:
        return False


_told = []  # type: list[str]


def _tell_once(reason):
    if _told or os.environ.get("RUNLANE_DISABLED") == "1":
        return
    _told.append(reason)
    sys.stderr.write("runlane: NOTHING IS RECORDED from %s: %s\n" % (sys.executable, reason))


def _chain():
    """Run the `sitecustomize` that this one hides, as if this one were not there."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [entry for entry in sys.path if not entry or os.path.abspath(entry) != here]  # noqa: PTH100
    sys.path_importer_cache.pop(here, None)
    ours = sys.modules.pop(NAME, None)
    try:
        __import__(NAME)
    except ImportError as error:
        if getattr(error, "name", NAME) != NAME:
            raise
        if ours is not None:
            sys.modules[NAME] = ours  # what `import` has begun has to end with a module


if __name__ == NAME:
    if os.environ.get("RUNLANE_DISABLED") != "1":
        install()
    _chain()
