"""Nothing that a user can see is undocumented, and no link of the documentation is dead."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import pytest
from reference import page

import core.errors
from core.reasons import Reason
from headrace import cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        inner = commands(command, f"{prefix}{name} ") if isinstance(command, click.Group) else {}
        found |= inner or {f"{prefix}{name}": command}
    return found


COMMANDS = commands(cli)


def test_every_setting_is_documented_with_its_default():
    text = (DOCS / "settings.md").read_text()
    assert text == page(), "run: python tests/docs/reference.py"
    assert "| `drift.false_alarms` | `1 per 90d` |" in text, "as it is written in the project file"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_an_example_and_its_options_in_the_docs(name):
    command = COMMANDS[name]
    assert command.help
    assert f"headrace {name}" in (command.epilog or "")
    line = next(line for line in (DOCS / "commands.md").read_text().splitlines() if f"`headrace {name} " in line)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "help":
            assert parameter.opts[-1] in line, f"{parameter.opts[-1]} is not in docs/commands.md"


def test_every_exit_code_is_documented():
    text = (DOCS / "commands.md").read_text()
    errors = [value for value in vars(core.errors).values() if isinstance(value, type)]
    for code in {error.exit_code for error in errors if issubclass(error, core.errors.HeadraceError)}:
        assert f"| {code} |" in text


def test_every_reason_of_a_dead_letter_is_documented():
    text = (DOCS / "topics.md").read_text()
    for reason in get_args(Reason):
        assert f"| `{reason}` |" in text


def test_every_environment_variable_is_documented():
    used = set()
    for folder in ("core", "streaming", "cli", "flows", "monitoring", "backtest"):
        for file in (ROOT / folder).glob("*.py"):
            used |= set(
                re.findall(
                    r'environ(?:\.get\(|\[)"(HEADRACE_[A-Z_]+|[A-Z]+_API_URL|MLFLOW_TRACKING_URI)"', file.read_text()
                )
            )
    assert used
    documented = "".join(page.read_text() for page in PAGES)
    for name in used:
        assert f"`{name}`" in documented


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


def test_the_package_lists_every_folder_that_it_ships():
    text = (ROOT / "pyproject.toml").read_text()
    folders = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"}
    for folder in folders:
        assert f'"{folder}"' in text


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["worker", "--help"], ["demo", "--help"], ["dead-letters", "replay", "--help"]]
)
def test_help_needs_no_project_and_no_heavy_import(arguments):
    code = (
        "import sys; sys.argv = ['headrace', *sys.argv[1:]]\n"
        "import headrace\n"
        "try:\n    headrace.main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'mlflow', 'prefect', 'evidently', 'river', 'sklearn', 'deltalake'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=ROOT, capture_output=True)
