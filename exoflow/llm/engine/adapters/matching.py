"""Regular expressions that came with an adapter. Whoever wrote one may have written one that takes for ever."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

from exoflow.errors import AdapterError

LIMIT_S = 5
"""Of computing, for all expressions of an adapter: they take milliseconds."""
Found = Mapping[str, Mapping[str, str]]
"""By expression and key: its group ``idx``, or empty. What is not there does not match."""

_MATCHING = """
import json, re, resource, sys
limit_s, regexes, keys = json.load(sys.stdin)
resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
matches = {regex: {key: re.fullmatch(regex, key) for key in keys} for regex in regexes}
json.dump({
    regex: {key: match.groupdict().get("idx") or "" for key, match in by_key.items() if match}
    for regex, by_key in matches.items()
}, sys.stdout)
"""


def is_plain(regex: str) -> bool:
    """Whether nothing in it can be tried in more than one way."""
    return re.search(r"[*+?{|(]", regex) is None


def matched(regexes: Sequence[str], keys: Sequence[str]) -> Found:
    """Which of them match which keys as a whole. In a process of its own: a match holds up all threads until it ends.

    Raises:
        AdapterError: they take too long.
    """
    if not regexes:
        return {}
    asked = json.dumps([LIMIT_S, regexes, keys])
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCHING], input=asked, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise AdapterError(f"its regular expressions cannot be matched: {error}") from error
    if ended.returncode < 0:
        raise AdapterError(
            f"its regular expressions take more than {LIMIT_S} s to match: write simpler ones, or lists of names"
        )
    if ended.returncode:
        raise AdapterError(f"its regular expressions cannot be matched: {ended.stderr.strip().splitlines()[-1]}")
    found: Found = json.loads(ended.stdout)
    return found
