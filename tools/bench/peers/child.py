"""A peer in an interpreter of its own: ``PYTHON child.py SCRIPT`` says its version, then times one turn for every line it hears.

Knows nothing of the twin, so that a peer may bring dependencies the twin could not live with.
"""

import importlib
import json
import os
import sys
from importlib.metadata import version


def main() -> None:
    say = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the peer prints is not the answer
    script = importlib.import_module(sys.argv[1])
    turn = script.ready()
    print(json.dumps({"version": f"{script.DISTRIBUTION} {version(script.DISTRIBUTION)}"}), file=say, flush=True)
    for _ in sys.stdin:
        seconds, result = turn()
        print(json.dumps({"seconds": seconds, "result": result}), file=say, flush=True)


if __name__ == "__main__":
    main()
