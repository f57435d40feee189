"""Run one room: `python -m kernel services.tasks`."""

from __future__ import annotations

import sys

import uvloop

from kernel.process import serve

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m kernel <package of a room, such as services.tasks>")
    uvloop.run(serve(sys.argv[1]))
