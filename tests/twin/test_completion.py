"""Completion: the scripts know every command, option and choice of the parser, and real shells take them."""

import argparse
import shutil
import subprocess

import pytest

from twin import completion


def parser():
    top = argparse.ArgumentParser(prog="twin")
    top.add_argument("--version", action="store_true", help="print the version and leave")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    run = commands.add_parser("run", help="play a scenario's file")
    run.add_argument("file")
    run.add_argument("--overrun", choices=("stretch", "hold"), help="what to do; when late")
    run.add_argument("--out", metavar="DIR")
    run.add_argument("--json", action="store_true")
    record = commands.add_parser("record", help="look into it")
    verbs = record.add_subparsers(dest="verb")
    info = verbs.add_parser("info", help="what it holds")
    info.add_argument("file")
    info.add_argument("--json", action="store_true")
    verbs.add_parser("recover", help="100 % of it")
    own = commands.add_parser("completion", help="this")
    completion.arguments(own)
    return top


def test_levels_are_the_parsers_commands():
    table = {level.path: level for level in completion.levels(parser())}
    assert set(table) == {
        ("twin",),
        ("twin", "run"),
        ("twin", "record"),
        ("twin", "record", "info"),
        ("twin", "record", "recover"),
        ("twin", "completion"),
    }
    assert table["twin",].commands == {"run": "play a scenario's file", "record": "look into it", "completion": "this"}
    run = table["twin", "run"]
    assert set(run.options) == {"-h", "--help", "--overrun", "--out", "--json"}
    assert run.values == {"--overrun": ("stretch", "hold"), "--out": None}
    assert run.files
    assert table["twin", "completion"].choices == ("bash", "zsh", "fish")


def test_the_real_command_line_has_all_its_commands():
    from twin import __main__

    top = __main__.parser("")
    table = {level.path: level for level in completion.levels(top)}
    assert {("twin", "run"), ("twin", "check"), ("twin", "record", "export")} <= table.keys()
    assert table["twin", "watch"].values["--refresh"] is None  # commands of modules of their own are read too
    for shell in completion.SHELLS:
        assert "--overrun" in completion.script(top, shell).replace("-l ", "--")


def offered(shell, words, folder):
    """What the shell would offer for the last of ``words``."""
    script = completion.script(parser(), shell)
    if shell == "bash":
        given = " ".join(f"'{word}'" for word in words)
        code = f"{script}\nCOMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; _twin_complete\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
        command = ["bash", "--norc", "-c", code]
    elif shell == "zsh":
        given = " ".join(f"'{word}'" for word in words)
        code = (
            f'{script}\ncompadd() {{ shift; for word in "$@"; do [[ $word == {words[-1]}* ]] && print -r -- $word; done }}\n'
            f"_files() {{ print -rl -- *(N) }}\nwords=({given}); CURRENT={len(words)}; _twin_complete"
        )
        command = ["zsh", "-f", "-c", code]
    else:
        command = ["fish", "--no-config", "-c", f"{script}\ncomplete -C '{' '.join(words)}'"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.stderr == ""
    return {line.partition("\t")[0] for line in done.stdout.splitlines() if line}


@pytest.fixture(params=completion.SHELLS)
def shell(request):
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} here")
    return request.param


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["twin", "re"], {"record"}),
        (["twin", ""], {"run", "record", "completion"}),
        (["twin", "record", ""], {"info", "recover"}),
        (["twin", "completion", ""], {"bash", "zsh", "fish"}),
        (["twin", "run", "--overrun", ""], {"stretch", "hold"}),
        (["twin", "run", "--overrun", "st"], {"stretch"}),
        (["twin", "run", "--ov"], {"--overrun"}),
        (["twin", "record", "info", "--j"], {"--json"}),
        (["twin", "run", "x.yaml", "--o"], {"--overrun", "--out"}),
        (["twin", "run", "--json", "--ou"], {"--out"}),
    ],
)
def test_what_a_shell_offers(shell, words, expected, tmp_path):
    assert offered(shell, words, tmp_path) == expected


def test_files_are_offered_where_they_belong(shell, tmp_path):
    (tmp_path / "street.yaml").write_text("")
    assert "street.yaml" in offered(shell, ["twin", "run", ""], tmp_path)
    assert "street.yaml" in offered(shell, ["twin", "run", "--out", ""], tmp_path)
    assert "street.yaml" not in offered(shell, ["twin", "run", "--overrun", ""], tmp_path)
    assert "street.yaml" not in offered(shell, ["twin", ""], tmp_path)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_command_prints_the_script_of_the_whole_command_line(shell, capsys):
    from twin import __main__

    assert __main__.main(["completion", shell]) == 0
    assert capsys.readouterr().out == completion.script(__main__.parser(""), shell)
