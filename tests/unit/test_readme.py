"""The commands of the README and of ``docs/`` are real: every one parses and composes; no link leads to nothing."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from conftest import ROOT, configured
from thaw.overrides import quoted
from thaw.rules import EVALUATE_RULES, EXPLAIN_RULES, EXPLORE_RULES, EXPORT_RULES, RULES
from thaw.settings import check

DOCS = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
SCRIPT = re.compile(r"python ((?:train|explore|evaluate|predict|export|report)\.py[^`\n]*)")
FOUND = [command for text in DOCS.values() for command in SCRIPT.findall(text)]
COMMANDS = sorted({re.split(r" [>|] ", command)[0] for command in FOUND})


def first(override: str) -> str:
    """What the first run of a sweep gets."""
    (parsed,) = OverridesParser.create().parse_overrides([override])
    if not parsed.is_sweep_override():
        return override
    sweep: Any = parsed.value()
    value = sweep.start if parsed.is_interval_sweep() else next(iter(parsed.sweep_string_iterator()))
    return f"{parsed.get_key_element()}={value}"


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("command", COMMANDS)
def test_command_composes(command: str) -> None:
    script, *arguments = shlex.split(command, comments=True)
    overrides = [argument for argument in arguments if argument not in ("-m", "--help", "--cfg", "job", "...")]
    overrides = [item for item in overrides if "glob(" not in item]  # every experiment is composed in a test of its own
    overrides = [quoted(item) for item in overrides]
    if "-m" in arguments or "sweep=" in command:
        overrides = [first(item) for item in overrides]
    config = configured(*overrides, verb=script.removesuffix(".py"))
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing="--help" not in arguments)
    assert isinstance(plain, dict)
    rules = {
        "train.py": RULES, "explore.py": EXPLORE_RULES, "export.py": EXPORT_RULES, "predict.py": EXPLAIN_RULES,
        "evaluate.py": EVALUATE_RULES, "report.py": {},
    }  # fmt: skip
    check(plain, rules[script])


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_links_and_benchmarks_exist(path: Path) -> None:
    for target, section in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", DOCS[path]):
        linked = (path.parent / target).resolve() if target else path
        assert linked.exists(), target
        if section:
            headings = re.findall(r"^#+ (.+)$", DOCS[linked], re.MULTILINE)
            assert section in [heading.lower().replace(" ", "-") for heading in headings], section
    for module in re.findall(r"python -m (benchmarks\.\w+)", DOCS[path]):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module
