"""Write the reference of the command line from its parser: one page for each command."""

from __future__ import annotations

import argparse
import inspect
import re
import warnings
from pathlib import Path

import tyro

from tiewise import cli
from tiewise.flags import Command

INDEX = """# Commands

`tiewise COMMAND` and `python -m tiewise COMMAND` are the same. Every command prints its help with
`--help`; results go to standard output, messages and progress to standard error.

| command | does |
| --- | --- |
{rows}

```{{toctree}}
:hidden:

{pages}
```

## Flags of every command

```{{program}} tiewise
```

:::{{option}} --help, -h
Print the help of the command. `tiewise help COMMAND` does the same.
:::

:::{{option}} --help-all
Print every flag of `tiewise fit`; its `--help` prints the common ones.
:::

:::{{option}} --quiet, -q
Print results and warnings only.
:::

:::{{option}} --verbose, -v
Print the messages of the libraries too.
:::

:::{{option}} --version
Print the version.
:::

:::{{option}} --tyro-print-completion SHELL
Print a completion script for bash, zsh or tcsh.
:::

## Exit status

| status | meaning |
| --- | --- |
| 0 | done |
| 1 | a bug in tiewise, with its traceback |
| 2 | an error that you can correct; the message says how |
| 130, 143 | interrupted by Ctrl-C or SIGTERM; `--resume` continues a fit |

## Environment variables

| variable | meaning |
| --- | --- |
| `TIEWISE_ARTIFACTS` | folder of runs and caches if `--artifacts` is not given; else `artifacts` |
| `TIEWISE_DATA` | file that a fit reads, if `--data` is not given |
| `NO_COLOR` | no colours |
"""


def list_commands() -> dict[str, Command]:
    """Return the commands by name, each with all of its flags."""
    commands = (cli.make_fit(cli.DEFAULT_PRESET), *cli.COMMANDS)
    return {command.__name__: command for command in commands}


def write_commands(folder: Path) -> None:
    """Write ``index.md`` and one page for each command to a folder."""
    commands = list_commands()
    rows = [
        f"| [`tiewise {name}`]({name}.md) | {split_docstring(command)[0]} |"
        for name, command in commands.items()
    ]
    index = INDEX.format(rows="\n".join(rows), pages="\n".join(commands))
    (folder / "index.md").write_text(index, "utf-8")
    for name, command in commands.items():
        (folder / f"{name}.md").write_text(describe_command(name, command), "utf-8")


def describe_command(name: str, command: Command) -> str:
    """Return the page of a command: summary, examples, arguments and flags."""
    summary, examples, remarks = split_docstring(command)
    parts = [f"# tiewise {name}", summary]
    parts += ["```console\n" + "\n".join(f"$ {line}" for line in examples) + "\n```"]
    parts += [*remarks, f"```{{program}} tiewise {name}\n```"]
    if name == "fit":
        parts.append(
            f"The defaults are those of the preset `{cli.DEFAULT_PRESET}`. The sections are those "
            "of the [configuration](../configuration.md), which says more about each field."
        )
    # tyro 1.0 deprecates get_parser and has no other public list of the flags.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(command, prog=f"tiewise {name}")
    for group in parser._action_groups:  # noqa: SLF001 - argparse 3 has no public list
        actions = [action for action in group._group_actions if action.dest != "help"]  # noqa: SLF001
        if actions:
            parts.append(f"## {name_group(group.title or '')}")
            parts += [group.description] if group.description else []
            parts += [describe_flag(action) for action in actions]
    return "\n\n".join(parts) + "\n"


def split_docstring(command: Command) -> tuple[str, list[str], list[str]]:
    """Return the summary of a command, its examples, and the paragraphs of remarks."""
    text = inspect.cleandoc(command.__doc__ or "").partition("\nArgs:")[0]
    summary, *rest = (" ".join(part.split("\n")) for part in text.strip().split("\n\n"))
    [examples] = re.findall(r"^For example:\n((?: +.*\n?)+)", text, re.MULTILINE)
    remarks = [part for part in rest if not part.startswith("For example:")]
    lines = [re.sub(r" {2,}", " # ", line.strip()) for line in examples.splitlines()]
    return summary, lines, remarks


def name_group(title: str) -> str:
    """Return the heading of a group of flags.

    Examples
    --------
    >>> name_group("options"), name_group("train options"), name_group("positional arguments")
    ('Flags', 'Section train', 'Arguments')
    """
    section = title.partition(" ")[0]
    return {"options": "Flags", "positional": "Arguments"}.get(section, f"Section {section}")


def describe_flag(action: argparse.Action) -> str:
    """Return the entry of a flag: spellings, value, meaning and default."""
    full = f"--{action.dest.rpartition('.')[2]}"
    flags = sorted(action.option_strings, key=lambda flag: flag != full)  # aliases come last
    value = action.metavar if isinstance(action.metavar, str) else ""
    heading = ", ".join(f"{flag} {value}".strip() for flag in flags) or value
    text = " ".join((action.help or "").split())
    found = re.search(r" ?\((required|default: (.*))\)$", text)
    ending = ""
    if found and (found[2] is None or not found[2].startswith("TIEWISE_")):
        text = text[: found.start()]
        ending = f"\n\nDefault: `{found[2]}`" if found[2] else "\n\nRequired."
    text = re.sub(r"(?<![\w`-])--[a-z][a-z-]*", r"`\g<0>`", text)
    return f":::{{option}} {heading}\n{text}{ending}\n:::"
