"""The README's commands are real: every one parses and composes; the pictures of output are not made up."""

import re
import shlex

import pytest
from omegaconf import OmegaConf

from conftest import ROOT, configured
from thaw.cli import quoted
from thaw.settings import EXPLAIN_RULES, EXPORT_RULES, RULES, check

README = (ROOT / "README.md").read_text(encoding="utf-8")
FOUND = re.findall(r"python ((?:train|evaluate|predict|export|report)\.py[^`\n]*)", README)
COMMANDS = sorted({re.split(r" [>|] ", command)[0] for command in FOUND})


def sweeps(override: str) -> bool:
    """Whether an override of a multirun lists several values."""
    return "," in override.partition("=")[2] and not override.partition("=")[2].startswith("[")


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) > 25


@pytest.mark.parametrize("command", COMMANDS)
def test_command_composes(command: str) -> None:
    script, *arguments = shlex.split(command, comments=True)
    overrides = [argument for argument in arguments if argument not in ("-m", "--help", "--cfg", "job", "...")]
    overrides = [item.split(",")[0] if "-m" in arguments and sweeps(item) else item for item in overrides]
    config = configured(*(quoted(item) for item in overrides), verb=script.removesuffix(".py"))
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing="--help" not in arguments)
    assert isinstance(plain, dict)
    check(plain, {"train.py": RULES, "export.py": EXPORT_RULES}.get(script, EXPLAIN_RULES))


def test_files_named_in_the_readme_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for module in re.findall(r"python -m (benchmarks\.\w+)", README):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module
