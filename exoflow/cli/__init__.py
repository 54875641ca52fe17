"""The command line."""


def main() -> None:
    """Run ``exoflow`` with this process's arguments."""
    import sys

    try:
        from exoflow.cli.app import app
    except KeyboardInterrupt:  # it takes a moment, and nothing has begun
        sys.exit(130)

    app(prog_name="exoflow")
