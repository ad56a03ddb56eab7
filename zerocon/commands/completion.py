"""`zerocon completion SHELL`: completion of commands, options, choices and settings."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Where bash ends words at "=", too, it replaces only what follows the last one.
BASH = """\
_zerocon() {
  local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}"
  local last="${line##*[[:space:]]}"
  COMPREPLY=($(zerocon completion bash --line "$line" 2>/dev/null))
  if [[ $COMP_WORDBREAKS == *=* && $last == *=* ]]; then
    COMPREPLY=("${COMPREPLY[@]#"${last%=*}="}")
  fi
  [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace
}
complete -o default -F _zerocon zerocon
"""
ZSH = """\
_zerocon() {
  local -a found open
  local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
  found=("${(@f)$(zerocon completion zsh --line "$line" 2>/dev/null)}")
  found=(${found:#})
  open=(${(M)found:#*[=.]})
  found=(${found:#*[=.]})
  (( $#found + $#open )) || { _files; return }
  compadd -Q -S "" -a open
  compadd -Q -a found
}
compdef _zerocon zerocon
"""
# It adds no space after "=" and "." by itself.
FISH = """\
complete -c zerocon -a '(zerocon completion fish --line (commandline -cp) 2>/dev/null)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
SETTINGS = "overrides"  # the argument of the commands that take settings
RUN_OPTIONS = ["--multirun", "--verbose", "--plugin", "--config-dir", "--cfg", "--help"]


def add(commands: Any) -> None:
    completion = commands.add_parser(
        "completion",
        help='complete commands in the shell: eval "$(zerocon completion bash)", or zsh; '
        "zerocon completion fish | source",
    )
    completion.add_argument("shell", choices=tuple(SCRIPTS))
    completion.add_argument("--line", help=argparse.SUPPRESS)  # what is typed so far

    def print_them(options: argparse.Namespace) -> None:
        if options.line is None:
            print(SCRIPTS[options.shell], end="")
        else:
            print(*completions(options.line, commands.choices), sep="\n")

    completion.set_defaults(handler=print_them)


def completions(line: str, commands: Mapping[str, argparse.ArgumentParser]) -> list[str]:
    """What the last word of `line` may become."""
    typed = _words(line)
    last = "" if not typed or line[-1:].isspace() else typed.pop()
    offered = _offered(typed[1:], last, commands)
    return list(dict.fromkeys(word for word in offered if word.startswith(last)))


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # an open quote
        return line.split()


def _offered(
    before: Sequence[str], last: str, commands: Mapping[str, argparse.ArgumentParser]
) -> Iterator[str]:
    """Whole words that may follow the words `before`."""
    command, name = argparse.ArgumentParser(add_help=False), ""
    for word in before:
        if word in commands:
            command, name = commands[word], word
            commands = _subcommands(command)
    yield from commands
    is_run = name == "run"
    if last.startswith("-"):
        yield from RUN_OPTIONS if is_run else _options(command)
    elif is_run or any(action.dest == SETTINGS for action in _actions(command)):
        yield from _settings(last)
    if name in ("experiment", "experiments"):
        from zerocon.config.experiments import names

        yield from names()


def _actions(command: argparse.ArgumentParser) -> Sequence[argparse.Action]:
    return command._actions  # noqa: SLF001 - argparse has no public list of them


def _subcommands(command: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in _actions(command):
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def _options(command: argparse.ArgumentParser) -> Iterator[str]:
    for action in _actions(command):
        if action.help != argparse.SUPPRESS:
            yield from (option for option in action.option_strings if option.startswith("--"))


def _settings(last: str) -> Iterator[str]:
    """Groups, the choices of the one that is typed, or settings: those of any choice of a group."""
    from zerocon.commands.explain import settings_in
    from zerocon.config.places import CONF

    group, dot, _ = last.lstrip("+~").partition(".")
    if dot:
        yield from (f"{setting}=" for setting in settings_in(CONF, group))
        return
    for folder in sorted(folder for folder in CONF.iterdir() if folder.is_dir()):
        sign = "+" if folder.name == "experiment" else ""
        choices = sorted(file.stem for file in folder.glob("*.yaml"))
        if f"{sign}{folder.name}=" in last:
            yield from (f"{sign}{folder.name}={choice}" for choice in choices)
        elif choices and folder.name != "usual":  # that one is chosen by the backbone
            yield f"{sign}{folder.name}="
            if not sign:
                yield f"{folder.name}."
