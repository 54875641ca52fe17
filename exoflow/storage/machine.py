"""Which machine this is: a folder of another one is another folder, whatever its path."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def this_machine() -> str:
    """The host's name, and what tells it from another of that name: Linux has an id for each start of the system."""
    boot = _BOOT_ID.read_text().strip()[:8] if _BOOT_ID.exists() else ""
    return f"{os.uname().nodename}/{boot}"
