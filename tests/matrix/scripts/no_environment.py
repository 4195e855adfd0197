"""A script that has nothing to do with environments: `no_environment.py RESULT [import]`."""

import json
import sys

from tally import Tally

if sys.argv[2:] == ["import"]:
    import gymnasium

    print("gymnasium", gymnasium.__name__)
tally = Tally()
tally.see(sum(number * number for number in range(100_000)))
print(json.dumps({"modules": "gymnasium" in sys.modules, "flags": sys.flags.isolated}))
tally.write(sys.argv[1])
