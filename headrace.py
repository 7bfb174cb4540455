"""The ``headrace`` command. Errors a user can cause end in one line and an exit code (:mod:`core.errors`)."""

from __future__ import annotations

import sys

import click

from core.errors import HeadraceError

_COMMANDS = {
    "approve": "cli.approve:approve",
    "backfill-features": "cli.features:backfill_features",
    "backtest": "cli.backtest:backtest",
    "check-features": "cli.features:check_features",
    "dead-letters": "cli.dead_letters:dead_letters",
    "demo": "cli.demo:demo",
    "erase": "cli.erase:erase",
    "explain": "cli.explain:explain",
    "features": "cli.features:features",
    "history": "cli.history:history",
    "ingest": "cli.ingest:ingest",
    "monitor": "cli.services:monitor",
    "promote": "cli.aliases:promote",
    "rebuild-state": "cli.rebuild:rebuild_state",
    "replay": "cli.services:replay",
    "reproduce": "cli.reproduce:reproduce",
    "retrain": "cli.retrain:retrain",
    "rollback": "cli.aliases:rollback",
    "status": "cli.inspect:status",
    "worker": "cli.services:worker",
}


class _LazyGroup(click.Group):
    """Imports a command's module when it is used: no command pays for what it does not need."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        import importlib

        if name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headrace")
def cli() -> None:
    """Keep a model learning from a Kafka stream, and keep it honest.

    PROJECT is a folder that holds a headrace.yaml, such as examples/flights.
    """


def main() -> None:
    """Run the command line."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except HeadraceError as error:
        click.echo(f"headrace: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        click.echo(f"headrace: {error.filename or 'the system'}: {error.strerror or error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
