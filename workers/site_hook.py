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
    "argparse": "runlane.workers.config_hook:patch_argparse",
    "tyro": "runlane.workers.config_hook:patch_tyro",
}
NEEDED = (3, 11)
NAME = "sitecustomize"


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

    def find_spec(self, name, path=None, target=None):
        """None for all but the watched; those are found by who would have found them."""
        if name not in self._hooks:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is None:
                continue
            if hasattr(spec.loader, "exec_module") and not isinstance(spec.loader, _Loader):
                setattr(spec, "loader", _Loader(spec.loader, self._hooks[name]))
            return spec
        return None


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
    try:
        if sys.version_info < NEEDED:
            versions = sys.version_info[:2] + NEEDED
            _tell_once("this is Python %d.%d, and runlane needs %d.%d; run it with --jsonl" % versions)
            return
        name, _, function = hook.partition(":")
        __import__(name)
        getattr(sys.modules[name], function)(module)
    except ImportError as error:
        _tell_once("%s; install runlane there (pip install runlane), or run it with --jsonl" % error)
    except Exception as error:
        _tell_once("%s: %s" % (type(error).__name__, error))


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
