"""``twin completion``: scripts that let a shell complete commands, options and choices, made from the command line's own parser."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Level", "arguments", "levels", "run", "script"]

SHELLS = ("bash", "zsh", "fish")


@dataclass
class Level:
    """What may follow one command: ``path`` is the command, e.g. ``("twin", "record", "info")``."""

    path: tuple[str, ...]
    commands: dict[str, str] = field(default_factory=dict)  # name -> help
    options: dict[str, str] = field(default_factory=dict)  # flag -> help
    values: dict[str, tuple[str, ...] | None] = field(default_factory=dict)  # flag that takes a value -> choices
    choices: tuple[str, ...] = ()  # of positional arguments
    files: bool = False  # a positional argument is free text: files are offered


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``twin completion`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "Print a script that lets the shell complete commands, options and their choices with TAB."
    parser.epilog = (
        'bash:  eval "$(twin completion bash)"                       now; in ~/.bashrc for good\n'
        'zsh:   eval "$(twin completion zsh)"                        now; in ~/.zshrc, after compinit, for good\n'
        "fish:  twin completion fish > ~/.config/fish/completions/twin.fish"
    )
    parser.add_argument("shell", choices=SHELLS, help="which shell")


def run(given: argparse.Namespace) -> int:
    """``twin completion``; returns 0."""
    from twin.__main__ import parser  # which asks this module for its arguments

    print(script(parser(""), given.shell), end="")
    return 0


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script of a command line for bash, zsh or fish."""
    table = list(levels(parser))
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parser.prog, table)


def levels(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Level]:
    """Every command of a parser, the parser itself first."""
    level, below = Level(path or (parser.prog,)), []
    for action in parser._actions:  # noqa: SLF001 - argparse offers no other way to ask
        said = "" if action.help in (None, argparse.SUPPRESS) else _line(parser, action)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            helps = {one.dest: one.help or "" for one in action._choices_actions}  # noqa: SLF001
            for name, inner in action.choices.items():
                level.commands[name] = _flat(helps.get(name, ""))
                below.append((name, inner))
        elif action.option_strings:
            for flag in action.option_strings:
                level.options[flag] = said
                if action.nargs != 0:
                    level.values[flag] = None if action.choices is None else tuple(map(str, action.choices))
        elif action.choices is not None:
            level.choices += tuple(map(str, action.choices))
        else:
            level.files = True
    yield level
    for name, inner in below:
        yield from levels(inner, (*level.path, name))


def _line(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """An action's help with its ``%(default)s`` filled in."""
    return _flat(parser._get_formatter()._expand_help(action))  # noqa: SLF001


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _words(words: Iterator[str] | tuple[str, ...] | dict[str, str]) -> str:
    return shlex.quote(" ".join(words))


def _tables(table: list[Level]) -> tuple[str, str, str]:
    """Cases for a shell script: the next command, what may follow a command, what may follow a flag."""
    steps, follow, values = [], [], []
    for level in table:
        here = " ".join(level.path)
        for name in level.commands:
            steps.append(f'      "{here} {name}") path="{here} {name}" ;;')
        words = [*level.commands, *level.choices]
        follow.append(
            f'    "{here}") words={_words(tuple(words))} options={_words(level.options)} files={int(level.files)} ;;'
        )
        for flag, choices in level.values.items():
            values.append(
                f'    "{here} {flag}") words={_words(choices or ())} files={int(choices is None)} options= ;;'
            )
    return "\n".join(steps), "\n".join(follow), "\n".join(values)


def _bash(program: str, table: list[Level]) -> str:
    steps, follow, values = _tables(table)
    return f"""# bash completion of {program}; made by `{program} completion bash`
_{program}_complete() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
  local path="{program}" word words= options= files=0
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$path $word" in
{steps}
    esac
  done
  case "$path" in
{follow}
  esac
  case "$path $before" in
{values}
  esac
  case "$current" in
    -*) words="$options" files=0 ;;
  esac
  COMPREPLY=( $(compgen -W "$words" -- "$current") )
  if [ "$files" = 1 ]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY+=( $(compgen -f -- "$current") )
  fi
}}
complete -F _{program}_complete {program}
"""


def _zsh(program: str, table: list[Level]) -> str:
    steps, follow, values = _tables(table)
    return f"""#compdef {program}
# zsh completion of {program}; made by `{program} completion zsh`
_{program}_complete() {{
  local current="${{words[CURRENT]}}" before="${{words[CURRENT-1]}}"
  local -a given=("${{words[@]:1:$((CURRENT-2))}}")
  local path_="{program}" word offered= options= files=0
  for word in "${{given[@]}}"; do
    case "$path_ $word" in
{steps.replace("path=", "path_=")}
    esac
  done
  case "$path_" in
{follow.replace(" words=", " offered=")}
  esac
  case "$path_ $before" in
{values.replace(" words=", " offered=")}
  esac
  if [[ "$current" == -* ]]; then
    offered="$options" files=0
  fi
  compadd -- ${{=offered}}
  if [[ "$files" == 1 ]]; then
    _files
  fi
}}
if (( $+functions[compdef] )); then
  compdef _{program}_complete {program}
fi
"""


def _fish(program: str, table: list[Level]) -> str:
    lines = [
        f"# fish completion of {program}; made by `{program} completion fish`",
        f"function __{program}_at --description 'the commands typed so far are exactly these'",
        "  set -l path",
        "  for word in (commandline -opc)[2..]",
        "    switch (string join ' ' -- $path $word)",
    ]
    for level in table[1:]:
        lines += [f"      case {shlex.quote(' '.join(level.path[1:]))}", "        set -a path $word"]
    lines += ["    end", "  end", '  test "$path" = "$argv"', "end", f"complete -c {program} -f"]
    for level in table:
        when = f"-n {shlex.quote(f'__{program}_at ' + ' '.join(level.path[1:]))}"
        for name, said in level.commands.items():
            lines.append(f"complete -c {program} {when} -a {shlex.quote(name)} -d {_said(said)}")
        if level.choices:
            lines.append(f"complete -c {program} {when} -a {_words(level.choices)}")
        if level.files:
            lines.append(f"complete -c {program} {when} -F")
        for flag, said in level.options.items():
            name = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
            value = ""
            if flag in level.values:
                choices = level.values[flag]
                value = " -r -F" if choices is None else f" -x -a {_words(choices)}"
            lines.append(f"complete -c {program} {when} {name}{value} -d {_said(said)}")
    return "\n".join(lines) + "\n"


def _said(text: str) -> str:
    """A help text as one quoted word of fish, cut at its first clause."""
    short = re.split(r"[;(]", text, maxsplit=1)[0].strip()
    return "'" + short.replace("\\", "\\\\").replace("'", "\\'") + "'"
