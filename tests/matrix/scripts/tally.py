"""What a script saw and counted. Knows nothing of who else may be counting."""

import contextlib
import hashlib
import json
import random
import struct
import sys
from pathlib import Path

CLOCKS = {"t", "_t"}  # what `RecordEpisodeStatistics` and its like say of the time is never the same twice


class Tally:
    """Steps, episodes and returns by environment, and a digest over everything that was shown to `see`."""

    def __init__(self, seed=1):
        self._hash = hashlib.sha256()
        self.environments = {}
        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed)
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(seed)

    def see(self, *things):
        """Take in observations, actions, rewards, whatever the script was given or decided."""
        for thing in things:
            self._take(thing)

    def reset(self, name="env"):
        """An environment was reset; a running episode is abandoned by that."""
        found = self._find(name)
        if found["open"][0]:
            found["abandoned"].append(found["open"])
        found["open"] = [0, 0.0]

    def step(self, reward, is_done, name="env"):
        """An environment made a step."""
        found = self._find(name)
        found["steps"] += 1
        length, total = found["open"]
        found["open"] = [length + 1, total + float(reward)]
        if is_done:
            found["ended"].append(found["open"])
            found["open"] = [0, 0.0]

    def merge(self, path):
        """Take over what a child process has written."""
        written = json.loads(Path(path).read_text())
        for name, counts in written["environments"].items():
            assert name not in self.environments, name
            self.environments[name] = counts
        self.see(written["digest"])

    def write(self, path, **facts):
        """Write the result. The next draws of every generator go in: who drew from one on the side is found out."""
        self.see(random.random())
        if "numpy" in sys.modules:
            self.see(sys.modules["numpy"].random.random(3))
        if "torch" in sys.modules:
            self.see(sys.modules["torch"].rand(3))
        result = {"environments": self.environments, "digest": self._hash.hexdigest(), **facts}
        Path(path).write_text(json.dumps(result, indent=1))

    def _find(self, name):
        fresh = {"steps": 0, "ended": [], "abandoned": [], "open": [0, 0.0]}
        return self.environments.setdefault(str(name), fresh)

    def _take(self, thing):
        if isinstance(thing, dict):
            for key in sorted(set(thing) - CLOCKS, key=str):
                self._add("key", str(key).encode())
                self._take(thing[key])
        elif isinstance(thing, (list, tuple)):
            self._add("list", str(len(thing)).encode())
            for part in thing:
                self._take(part)
        elif isinstance(thing, float):
            self._add("float", struct.pack("<d", thing))
        elif thing is None or isinstance(thing, (bool, int, str)):
            self._add(type(thing).__name__, str(thing).encode())
        elif isinstance(thing, bytes):
            self._add("bytes", thing)
        else:
            self._take_array(thing)

    def _take_array(self, thing):
        with contextlib.suppress(AttributeError):  # a tensor
            thing = thing.detach().numpy()
        array = sys.modules["numpy"].asarray(thing)
        if array.dtype == object:  # infos of a vector environment
            self._take(array.tolist())
        else:
            self._add(f"{array.dtype}{array.shape}", array.tobytes())

    def _add(self, kind, content):
        self._hash.update(f"{kind}:{len(content)}:".encode())
        self._hash.update(content)
