"""Leave the long test to `make compose-test`."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("ISA_COMPOSE_TEST") else ["test_up.py"]
