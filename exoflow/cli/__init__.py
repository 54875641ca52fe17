"""The command line."""

import sys


def main() -> None:
    """Run ``exoflow`` with this process's arguments."""
    try:
        from exoflow.cli.app import app

        app(prog_name="exoflow")
    except KeyboardInterrupt:  # before a command has begun: imports take a moment
        sys.exit(130)
