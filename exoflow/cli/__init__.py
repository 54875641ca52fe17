"""The command line."""


def main() -> None:
    """Run ``exoflow`` with this process's arguments."""
    from exoflow.cli.app import app

    app(prog_name="exoflow")
