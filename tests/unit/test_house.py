"""The house rules of the design: imports run one way, start-up is light, errors are one line."""

import ast
import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError

from conftest import ROOT, configured
from thaw import files, job
from thaw.errors import UserError
from thaw.help import comments, first_values, typed
from thaw.instantiate import build
from thaw.job import run_folder
from thaw.mistakes import readable
from thaw.multirun import job_folder, multirun_folder
from thaw.overrides import latest, quoted, unquoted
from thaw.script import TRAINER, Script, check_known, meant_by, of_every_choice

PACKAGE = ROOT / "src" / "thaw"
MODULES = sorted(".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in PACKAGE.rglob("*.py"))
LAYERS = [
    {"cli", "job", "mistakes", "multirun", "help"},
    {"training"},
    {"evaluation", "exploration", "joint_evaluation", "new_rows", "scoring"},
    {"inference"},
    {"reporting"},
    {"data", "models"},
    {"metrics"},
    {"hub", "cache", "memory", "script", "instantiate", "study"},
    {"files", "runs", "rules", "settings", "overrides", "labels", "errors", "sampling"},
]
"""From the scripts downwards: a module imports its own layer or those below."""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def depth(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) not in ("", "__init__")])
def test_imports_run_one_way(module: str) -> None:
    own = room(module)
    path = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
    rooms = {room(name) for name in imports(path) if name.startswith("thaw.")} - {own}
    known = {name for layer in LAYERS for name in layer}
    for other in rooms & known:
        assert depth(other) >= depth(own), f"{module} imports thaw.{other}, which stands above it"
    assert not (own == "models" and "data" in rooms), "models never imports data"
    assert not (own == "data" and "models" in rooms), "data never imports models"


def test_reporting_and_cli_import_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "pytorch_lightning", "datasets", "sklearn", "peft")
    code = (
        "import sys, thaw.cli, thaw.job, thaw.runs, thaw.labels, thaw.hub, thaw.instantiate, thaw.reporting.summary;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_exported_model_is_served_by_numpy_tokenizers_and_onnxruntime() -> None:
    heavy = ("torch", "transformers", "sklearn", "omegaconf", "hydra", "datasets")
    code = f"import sys, thaw.inference.onnx; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_page_needs_torch() -> None:
    pages = "thaw.reporting.run_page, thaw.reporting.comparison, thaw.reporting.data_page"
    code = f"import sys, {pages}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_is_imported_is_not_searched_for_garbage() -> None:
    code = (
        "import gc; from thaw.memory import importing\n"
        "with importing():\n    inside = gc.isenabled(); import json.tool\n"
        "print(inside, gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]


def test_every_module_imports_alone() -> None:
    """Each in a state without the others: a cycle shows only when the import begins at the wrong end."""
    code = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [key for key in sys.modules if key.startswith("thaw")]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code, *MODULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_scripts_begin_where_there_are_only_the_signals_of_windows() -> None:
    code = "import signal; del signal.SIGUSR1, signal.SIGUSR2; import thaw.cli, thaw.training.resuming as resuming"
    said = "print(*(one.name for one in (*thaw.cli.SIGNALS, *resuming.SIGNALS)))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {said}"], capture_output=True, text=True)
    assert done.stdout.split() == ["SIGTERM", "SIGINT", "SIGTERM"], done.stderr


def test_init_files_re_export_nothing() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        assert not imports(path)


def test_latest_names_the_folder_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = [  # the oldest first
        "emotion/bert/first/config.yaml", "emotion/bert/first/metrics.json", "emotion/bert/stopped/config.yaml",
        "multirun/seeds/multirun.yaml", "multirun/seeds/seed-1/config.yaml", "multirun/seeds/seed-1/metrics.json",
        "imdb/bert/second/config.yaml", "emotion/bert/second/config.yaml", "emotion/bert/second/metrics.json",
        "imdb/bert/second/metrics.json", "multirun/rates/multirun.yaml", "multirun/seeds/earlier/seed-1/metrics.json",
    ]  # fmt: skip
    for age, name in enumerate(written):
        path = tmp_path / "outputs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (age, age))
    assert latest("run=latest") == "run=outputs/imdb/bert/second"
    assert latest("resume=latest") == "resume=outputs/emotion/bert/stopped"
    assert latest("runs=latest") == "runs=outputs/multirun/rates"
    assert latest("text=latest") == "text=latest"
    for age, name in enumerate(["mine/metrics.json", "team/emotion/bert/first/metrics.json"], start=100):
        path = tmp_path / "outputs" / name  # as hydra.run.dir and data.name may say
        path.parent.mkdir(parents=True)
        path.touch()
        path.with_name("config.yaml").touch()
        os.utime(path, (age, age))
        assert latest("run=latest") == f"run={path.parent.relative_to(tmp_path)}"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "outputs/mine").rename(tmp_path / "elsewhere/mine")
    os.utime(tmp_path / "elsewhere/mine/metrics.json", (200, 200))
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "outputs")
    (tmp_path / "outputs/linked").symlink_to(tmp_path / "elsewhere")
    assert latest("run=latest") == "run=outputs/linked/mine"
    (path.parent / "wandb/files").mkdir(parents=True)
    (path.parent / "wandb/files/config.yaml").touch()
    assert latest("resume=latest") == "resume=outputs/emotion/bert/stopped"
    (tmp_path / "latest").mkdir()
    assert latest("run=latest") == "run=latest"  # a folder of that name


def test_latest_of_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="resume=latest: there is no unfinished run below outputs/"):
        latest("resume=latest")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("text=I love this", "text='I love this'"),
        ("text=It's {odd}, isn't it: ${x}", "text='It\\'s {odd}, isn\\'t it: \\${x}'"),
        ("text='quoted already'", "text='quoted already'"),
        ("text=", "text=''"),
        ("data.path=plain.csv", "data.path=plain.csv"),
        ("data.path=a b=c.csv", "data.path='a b=c.csv'"),
        ("data.path=~/emotion", "data.path='~/emotion'"),
        ("data.corrections=label_errors (1).csv", "data.corrections='label_errors (1).csv'"),
        ("run=2026", "run='2026'"),
        ("data.path=1e3", "data.path='1e3'"),
        ("data.path=True", "data.path='True'"),
        ("run=2026-11", "run=2026-11"),
        ("seed=1,2,3", "seed=1,2,3"),
        ("model.name=a/b,c/d", "model.name=a/b,c/d"),
        ("runs=outputs/a,outputs/b", "runs='outputs/a,outputs/b'"),
        ("run=a/1,a/2", "run='a/1,a/2'"),
        ("data.label_column=Zuständigkeit", "data.label_column='Zuständigkeit'"),
        ("data.label_column=Zuständige Stelle", "data.label_column='Zuständige Stelle'"),
        ("data.label_names=[größer,kleiner]", "data.label_names=['größer',kleiner]"),
        ("data.label_names=[gut, sehr schön , Größe]", "data.label_names=[gut, 'sehr schön', 'Größe']"),
        ("data.label_column=Größe,Art", "data.label_column='Größe',Art"),
        ("loss.class_weights={größer: 2}", "loss.class_weights={größer: 2}"),
        ("data.label_column=queue", "data.label_column=queue"),
        ("data.text_column=Text (DE)", "data.text_column='Text (DE)'"),
        ("data.label_column=Größe (cm)", "data.label_column='Größe (cm)'"),
        ("text_column=[premise,hypothesis]", "text_column=[premise,hypothesis]"),
        ("data.label_separator=,", "data.label_separator=','"),
        ("data.label_separator=;", "data.label_separator=';'"),
        ("data.label_separator='|'", "data.label_separator='|'"),
        ("data.label_separator=1", "data.label_separator=1"),
        ("--help", "--help"),
    ],
)
def test_free_text_is_quoted_for_the_grammar(argument: str, expected: str) -> None:
    assert quoted(argument) == expected
    if "\\" not in expected:
        assert quoted(unquoted(expected)) == expected
    if "Zust" in argument:
        assert unquoted(expected) == argument


@pytest.mark.parametrize(
    "text",
    [
        "It's {odd}, isn't it: ${x}", "back\\slash\\", "it\\'s", "two\\\\", "'\\'", "a=b", "[1, 2]",
        "$5 'and' \"more\"", "🎉 שלום", "2026",
        '"Great," she said, "really"', "'a' or 'b'",
    ],
)  # fmt: skip
def test_free_text_survives_the_grammar(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    (override,) = OverridesParser.create().parse_overrides([quoted(f"text={text}")])
    assert OmegaConf.create({"text": override.value()}).text == text


@pytest.mark.parametrize(
    "pattern",
    [
        r"layer\.[45]\.attention",
        "query|value",
        r"layer\.(2|5)\.",
        "^bert",
        r"layer\.\d{1,2}\.",
        "a.*b+c?$",
        "bias",
        "7",
    ],
)
def test_regular_expressions_survive_the_grammar(pattern: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([quoted(f"freeze.pattern={pattern}")])
    assert not override.is_sweep_override()
    assert override.value() == pattern


def test_run_folders_name_data_and_model() -> None:
    assert run_folder(None, "emotion", "distilbert", [], "now") == "outputs/emotion/distilbert/now"
    named = ["model.name=owner/other", "seed=1"]
    assert run_folder(None, "emotion", "minilm", named, "now") == "outputs/emotion/other/now"
    onward = ["model.name=outputs/emotion/bert/2026-11-21_10-15-30-123456/model"]
    assert run_folder(None, "emotion", "minilm", onward, "now") == "outputs/emotion/bert/now"
    assert run_folder(None, "emotion", "minilm", ["model.name=my/model"], "now") == "outputs/emotion/model/now"


def test_a_multirun_without_lists_has_a_name() -> None:
    assert multirun_folder([]).startswith("defaults_")
    assert multirun_folder(["seed=1,2"]).startswith("seed-1-2_")
    pair = ["data.text_column=[a,b]", "seed=1,2", "data.name='x,y'"]
    assert multirun_folder(pair).startswith("seed-1-2_")
    assert job_folder([*pair[:1], "seed=1", pair[2]], pair) == "seed-1"
    weighted = ["loss.class_weights={joy:2,fear:1}", "seed=1,2"]
    assert multirun_folder(weighted).startswith("seed-1-2_")
    assert job_folder([weighted[0], "seed=1"], weighted) == "seed-1"
    assert job_folder([], []).startswith("run")
    assert job_folder(["seed=1"], ["seed=1,2"]) == "seed-1"


def test_only_known_targets_are_built() -> None:
    with pytest.raises(UserError, match=r"os\.system may not be built"):
        build({"_target_": "os.system", "command": "true"}, "callbacks.own")
    with pytest.raises(UserError, match="may not be built"):
        build({"_target_": "torch.optim.AdamW", "params": [{"_target_": "subprocess.run"}]}, "optimizer.class")


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (
            ModuleNotFoundError("No module named 'rich.live'", name="rich.live"),
            "Install the package: pip install rich.",
        ),
        (ModuleNotFoundError("`RichProgressBar` requires `rich`"), "requires `rich`. Install the package."),
    ],
)
def test_a_package_that_something_built_needs_is_named(
    lacking: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise lacking

    monkeypatch.setattr(job, "stem", fail)
    with pytest.raises(UserError, match=re.escape(said)):
        build({"_target_": "thaw.job.stem"}, "logger.own")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"_target_": "thaw.job.misspelled"},
            "optimizer.class: thaw.job.misspelled: there is no such class or function. Check its",
        ),
        (
            {"_target_": "torch.optim.AdamsW"},
            "torch.optim.AdamsW: there is no such class or function; did you mean torch.optim.AdamW",
        ),
        (
            {"_target_": "torch.optim.RMSprop", "betas": [0.9, 0.99], "alpha": 0.9, "fused": True},
            "Leave out what it does not take: '~optimizer.class.betas' '~optimizer.class.fused'.",
        ),
        (
            {"_target_": "torch.optim.AdamW", "betas": [5, 0.9]},
            "could not be built: Invalid beta parameter at index 0: 5.",
        ),
    ],
)
def test_what_cannot_be_built_says_what_to_change(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        build(config, "optimizer.class", params=[torch.zeros(1)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trainer.max_epocs=3"], "did you mean trainer.max_epochs?"),
        (["freeze=hed"], "did you mean head?"),
        (["freeze="], "freeze=: no such choice. There are: "),
        (["--freeze", "head"], "--freeze: no such option. Settings have no dashes: freeze=..."),
        (["--data.epochs=3"], "--data.epochs: no such option. Settings have no dashes: data.epochs=3"),
        (["--epochs", "3"], "--epochs: no such option. Settings have no dashes: data.epochs=..."),
        (["--batch-size=8"], "--batch-size: no such option. Settings have no dashes: data.batch_size=8"),
        (["--num-train-epochs=3"], "--num-train-epochs: no such option. Settings have no dashes: data.epochs=3"),
        (["--qqq"], "--qqq: no such option. Settings have no dashes: qqq=..."),
        (["optimizer.learning_rate=1e-3"], "optimizer.learning_rate: no such setting; did you mean optimizer.lr?"),
        (["freeze=lora", "freeze.rakn=4"], "freeze.rakn: no such setting; did you mean freeze.rank?"),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.patence=3"],
            "has no such setting; did you mean callbacks.early_stopping.patience?",
        ),
        (["seed=1..3"], "seed=1..3 is not a whole number from 0 to 2**32 - 1. Change seed."),
        (["lr=1e-3"], "lr: no such setting; did you mean optimizer.lr? All settings: python train.py --help."),
        (["data.epochs"], "data.epochs: a setting has = and a value. Give one: data.epochs=..."),
        (["data.text_column=a", "b"], 'b: a setting has = and a value. Quote a value that has blanks: key="a value"'),
        (["trainer.precision=fp16"], "trainer.precision=fp16 is not one of: 32-true, 16-mixed, bf16-mixed, "),
        (["freeze=head,none"], "freeze=head,none: several values. With -m each is a run: python train.py -m freeze="),
        (
            ["data.text_column=a,b"],
            "data.text_column=a,b: several values. The two of a pair are a list: data.text_column=[a,b]",
        ),
        (["seed=1", "-m", "trainer.max_epocs=3"], "did you mean trainer.max_epochs?"),
        (["optimizer.lr=0,001"], "optimizer.lr=0,001: several values. With a point it is a number: optimizer.lr=0.001"),
        (["sweep=folds", "optimizer.lr=1e-4,1e-3", "data.epohs=1"], "data.epohs: no such setting; did you mean"),
        (["sweep=seds", "freeze=head,none"], "sweep=seds: no such choice; did you mean seeds?"),
        (["sweep=seeds", "freeze=lora,head", "freeze.n=2"], "freeze.n: not a setting of freeze=head. Of these:"),
        ([f"data={ROOT}/samples/emotion/train.txt"], f"a file, not a choice. Did you mean data=txt data.path={ROOT}"),
        ([str(ROOT / "README.md")], f"README.md: a setting has = and a value. Did you mean data.path={ROOT}"),
        (
            ["-m", "freeze=all_but_last_n,lp_ft", "freeze.n=1"],
            "freeze.n: not a setting of freeze=lp_ft. Of these: all_but",
        ),
        (["+optimizer.lrr=1"], "nothing reads such a setting; did you mean optimizer.lr?"),
        (["++foo=1"], "foo: nothing reads such a setting. It was given with +, or"),
        (
            ["sweep=learning_curve", "data.train_size=9"],
            "a sweep of data.train_size, which has one value: data.train_size=9.",
        ),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.min_delta=1"],
            "To add one: +callbacks.early_stopping.min_del",
        ),
        (["mode=min"], "mode=min: val/f1 should be high. Leave mode out."),
        (["monitor=val/loss", "mode=max"], "mode=max: val/loss should be low. Leave mode out."),
        (["optimizer.lr=null"], "optimizer.lr=null is not a number above 0"),
        (["-m", "sweep=seeds,learning_rate"], "sweep=seeds,learning_rate: several presets. Give one, and the lists"),
        (
            ["-m", "optimizer.lr=tag(log,interval(1e-5,1e-3))"],
            "optimizer.lr=tag(log,interval(1e-5,1e-3)): only Optuna searches intervals. Give a list, or let Optuna",
        ),
        (["optimizer.schedule=linaer"], "optimizer.schedule=linaer is not one of: linear, cosine, "),
        (["sweep=optuna", "hydra.sweeper.sampler=cma"], "hydra.sweeper.sampler=cma is not one of: tpe, random, grid"),
        (["optimizer.lr=1e-4,"], "optimizer.lr=1e-4,: a value is missing after the comma. Give it, or leave"),
        (["modl=bert"], "did you mean model?"),
        (["modle=bert"], "did you mean model?"),
        (["data=csv"], "data.path is missing. Say where the data is: data=csv data.path=..."),
        (["data.path=nowhere"], "nowhere: no such file or folder"),
        (["data.batch_size=[1"], "data.batch_size=[1: cannot be read as a setting. Quote the value: "),
        (["seed=4294967296"], "seed=4294967296 is not a whole number from 0 to 2**32 - 1"),
        (["seed=x"], "seed=x is not a whole number"),
        (["data.epochs=0"], "data.epochs=0 is not a whole number"),
        (["optimizer.lr='1e-4'"], "optimizer.lr='1e-4' is a text, not a number above 0. Leave its quotes out."),
        (["optimizer.lr=inf"], "optimizer.lr=inf is not"),
        (["freeze.n=2"], "Of these: all_but_last_n, bitfit, dora, first_n, ia3, lora."),
        (["-m", "--cfg", "job"], "Only one of --run, --multirun, --cfg"),
        (["freeze=2"], "freeze=2: no such choice. There are: all_but_last_n,"),
        (["callbacks=null"], "callbacks=null: no such choice. There are: early_stopping, none."),
        (["-m", "freeze=null,head"], "freeze=null: no such choice"),
        (
            ["~freeze.reuse"],
            "freeze.reuse is missing. It cannot be left out with ~freeze.reuse. A file of your own for",
        ),
        (["freeze=pattern"], "freeze.pattern is missing. Give a regular expression for names of parameters."),
        (["freeze=pattern", "freeze.pattern='('"], "freeze.pattern=( is not a regular expression for names of param"),
        (["optimizer.layer_decay=2"], "optimizer.layer_decay=2 is not a number above 0 and at most 1, or null"),
        (["trainer.precision=transformer-engine"], "trainer.precision=transformer-engine is not one of: 32-true"),
        (["~callbacks"], "callbacks is missing. It cannot be left out with ~callbacks."),
        (["~loss"], "loss is missing. It cannot be left out with ~loss."),
        (["~monitor"], "monitor is missing. It cannot be left out with ~monitor."),
        (["monitor=3"], "monitor=3 is not val/ and a metric, such as val/f1"),
        (["monitor=f1"], "monitor=f1 is not val/ and a metric, such as val/f1"),
        (["freeze=first_n", "freeze.n=-1"], "freeze.n=-1 is not a whole number of at least 0"),
        (["freeze=gradual", "freeze.every=0"], "freeze.every=0 is not a whole number of at least 1"),
        (["freeze=lp_ft", "freeze.probe_epochs=0.5"], "freeze.probe_epochs=0.5 is not a whole number"),
        (["freeze=lp_ft", "freeze.probe_lr=0"], "freeze.probe_lr=0 is not a number above 0, or null"),
        (["trainer.checkpoint_every=5mins"], "trainer.checkpoint_every=5mins is not steps (500), time (30s,"),
        (["data.encoding=klingon"], "data.encoding=klingon is not a text encoding, such as utf-8 or cp1252"),
        (["data.encoding=base64"], "data.encoding=base64 is not a text encoding"),
        (["~trainer.max_epochs"], "trainer.max_epochs is missing"),
        (["data=csv", "data.label_names={0:neg,1:pos}"], "is not a list of names, or null"),
        (["data.label_separator=1"], "data.label_separator=1 is not a text"),
        (["data.text_column=0.5"], "data.text_column=0.5 is not the name of a column"),
        (["+callbacks.mine=3"], "callbacks={'mine': 3} is not a group of groups, each with a _target_"),
        (["callbacks=early_stopping", "callbacks.early_stopping.patience=soon"], "patience=soon is not a whole number"),
        (["optimizer.schedule=step"], "optimizer.schedule=step is not one of: linear, cosine, "),
        (["-m", "sweep=optuna", "hydra.sweeper.params=null"], "params=null is not a group of settings"),
        (["optimizer.class=null"], "optimizer.class=null is not a group with a _target_"),
        (["hydra.run.dir=/dev/null/run"], "/dev/null/run: cannot be made"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.glob("outputs/*/*/*"))


@pytest.mark.parametrize(
    ("script", "remedy"),
    [
        ("train", "Lower data.batch_size, data.eval_batch_size or data.max_length, or set model.gradient_check"),
        ("predict", "Lower batch_size."),
        ("explore", "CUDA_VISIBLE_DEVICES= runs it without the GPU."),
    ],
)
def test_a_gpu_without_room_is_told_with_what_needs_less(script: str, remedy: str) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79 GiB. See")
    assert str(readable(full, Script(ROOT / "conf", script))).startswith(f"CUDA out of memory. {remedy}")


@pytest.mark.parametrize("script", ["evaluate", "predict", "export"])
def test_settings_without_a_default_are_known_too(script: str) -> None:
    assert "run" in Script(ROOT / "conf", script).keys
    with pytest.raises(OmegaConfBaseException) as raised:
        str(OmegaConf.create({"run": "???"}).run)
    assert str(readable(raised.value, Script(ROOT / "conf", script))) == "run is missing. Give it: run=..."


def test_what_the_user_cannot_mend_keeps_its_traceback() -> None:
    for error in (ValueError("not enough values"), RuntimeError("shapes"), KeyError("x"), OSError("full")):
        assert readable(error, Script(ROOT / "conf", "train")) is error
    with pytest.raises(OmegaConfBaseException) as raised:
        str(OmegaConf.create({"own": "${nothing:1}"}).own)
    assert str(readable(raised.value, Script(ROOT / "conf", "train"))) == "Unsupported interpolation type nothing."


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("seed", ["data.seed", "seed"], ["seed"]),
        ("lr", ["optimizer.lr", "probe.lr"], ["optimizer.lr", "probe.lr"]),
        ("trainer.learning_rate", ["optimizer.lr"], ["optimizer.lr"]),
        ("learning_rate", ["a.learning_rate"], ["a.learning_rate"]),
        ("fp16", ["input", "output"], []),
        ("modle", ["mode", "model"], ["model"]),
        ("model.nmae", ["model.nam", "model.name"], ["model.name"]),
    ],
)
def test_what_a_word_may_have_meant(word: str, known: list[str], meant: list[str]) -> None:
    assert meant_by(word, known) == meant


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("loss.poly", ""),
        ("model.pooling", ""),
        ("data.weight_column", ""),
        ("trainer.plugins", ""),
        ("trainer.gpus", ""),
        ("data.loss", ""),
        ("loss.name", ""),  # there are several
        ("trainer.epochs", "data.epochs"),
        ("optimzer.lr", "optimizer.lr"),
        ("optimzer.lrr", "optimizer.lr"),
        ("trainer.max_epocs", "trainer.max_epochs"),
        ("trainer.precison", "trainer.precision"),
        ("data.textcolumn", "data.text_column"),
        ("data.maxlen", "data.max_length"),
        ("loss.smoothing", "loss.label_smoothing"),
        ("batchsize", "data.batch_size"),
        ("optimiser", "optimizer"),
        ("modl", "model"),
    ],
)
def test_settings_that_are_suggested_are_spelt_alike(word: str, meant: str) -> None:
    assert meant_by(word, Script(ROOT / "conf", "train").keys) == ([meant] if meant else [])


def changed(*overrides: str) -> dict[str, tuple[str, str]]:
    config = configured(*overrides)  # which knows how to resolve
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return {key: (own, default) for key, own, default in job.changed(config, "train", overrides)}


def test_changed_settings_are_shown_as_they_are_typed() -> None:
    found = changed("data=conll", "data.path=x", "data.label_names=[O,B-PER]", "data.clean_html=true")
    assert (found["data.label_names"][0], found["data.clean_html"][0]) == ("[O,B-PER]", "true")


def test_settings_are_compared_with_those_of_the_choices_made() -> None:
    own = ["data=csv", "data.path=x.csv", "data.epochs=5", "freeze=head", "sweep=seeds", "optimizer.lr=1e-3"]
    own_values = {"data.path": ("x.csv", "null"), "data.epochs": ("5", "auto")}
    assert changed(*own) == own_values, "the rate is that of the head"
    assert changed("experiment=emotion_distilbert_last_layer", "data.path=y") == {"data.path": ("y", "null")}


@pytest.mark.parametrize("script", ["train", "explore", "evaluate", "predict", "export", "report"])
def test_help_names_every_setting_and_says_what_it_does(script: str) -> None:
    command = [sys.executable, str(ROOT / f"{script}.py"), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for key, value in typed(configured(verb=script), resolve=True).items():
        assert f"\n  {key}={value}" in shown
    known = comments(ROOT / "conf", ROOT / "conf" / f"{script}.yaml")
    said = [line for key, line in known.items() if "." not in key and key not in ("defaults", "hydra")]
    assert said
    flat = " ".join(shown.split())
    for line in said:
        assert " ".join(line.split()) in flat


def test_help_is_that_of_the_choices_on_the_command_line() -> None:
    command = [sys.executable, str(ROOT / "train.py"), "freeze=lora", "trainer=gpu", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert " ia3 [lora] lp_ft " in " ".join(shown.split())
    assert re.search(r"freeze.target_modules=null +names of matrices, such as", shown)
    assert re.search(r"freeze.reuse_gb=20 +disk space for all that is stored", shown), "what its files have in common"
    assert "trainer.precision=auto" in shown
    assert re.search(r"trainer.num_nodes=1 +machines", shown)
    assert "optimizer.lr=0.001" in shown


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["-m", "freeze=none,head", "seed=choice(1,2)", "--help"], ["freeze=none", "seed=1"]),
        (["--cfg", "job", "--help", "freeze=head"], ["freeze=head"]),
        (["data.label_names=[a,b]", "text='a, b'"], ["data.label_names=[a,b]", "text='a, b'"]),
        (["-h", "callbacks=x", "~callbacks.x.patience"], ["callbacks=x", "~callbacks.x.patience"]),
        (["optimizer.lr=tag(log,interval(1e-5,1e-3))", "+freeze.n=range(2,4)", "model=glob(*)"], ["+freeze.n=2"]),
    ],
)
def test_help_is_given_for_any_command(arguments: list[str], left: list[str]) -> None:
    assert first_values(arguments) == left


def test_what_is_said_of_a_file_is_not_said_of_its_first_setting() -> None:
    said = comments(ROOT / "conf", ROOT / "conf/model/_encoder.yaml")
    assert "name" not in said
    assert said["hub"] == "or modelscope"


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("kept")
    command = [sys.executable, str(ROOT / "train.py"), "hydra.run.dir=run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is a run already. Give another, or resume it: python train.py resume=run" in done.stderr
    assert (tmp_path / "run/config.yaml").read_text() == "kept"


def test_what_a_run_would_write_over_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/metrics.json").write_text("kept")
    command = [sys.executable, str(ROOT / "train.py"), "hydra.run.dir=mine"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "mine: there is metrics.json already." in done.stderr) == (2, True)
    assert (tmp_path / "mine/metrics.json").read_text() == "kept"


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/other.log").write_text("kept")
    command = [sys.executable, str(ROOT / "train.py"), "hydra.run.dir=logs", "data=txt", "data.path=nowhere"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 2
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["other.log"]


@pytest.mark.parametrize("choice", ["csv", "null"])
def test_a_group_of_another_script_is_told_from_a_misspelling(choice: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "evaluate.py"), "run=x", f"data={choice}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "data: not a group of evaluate.py. Its settings: data.path, data.format" in done.stderr


@pytest.mark.parametrize(
    ("group", "content", "said"),
    [
        ("data", "defaults: [_data]\nname: own\nmax_lenght: 9\n", "did you mean data.max_length?"),
        ("model", "defaults: [_encoder]\nname: x\nlearning_rat: 1\n", "did you mean model.learning_rate?"),
        ("freeze", "defaults: [lora]\nrnak: 9\n", "did you mean freeze.rank?"),
        ("freeze", "defaults: [head]\nrank: 9\n", "freeze.rank: not a setting of freeze=head. Of these: dora, lora."),
        ("experiment", "# @package _global_\noptimiser: {lr: 3}\n", "did you mean optimizer?"),
        ("experiment", "# @package _global_\nloss: {focal: 3}\n", "loss.focal: nothing reads such a setting"),
        ("experiment", "data: {epochs: 3}\n", "conf/experiment/own.yaml: its settings are not found"),
        ("sweep", "defaults: [override /data: txt]\n", "Begin the file with: # @package _global_"),
    ],
)
def test_files_of_users_are_checked_like_the_command_line(group: str, content: str, said: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "train.py", tmp_path)
    (tmp_path / "conf" / group / "own.yaml").write_text(content)
    command = [sys.executable, "train.py", f"{group}=own"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("group", ["data", "model", "freeze", "optimizer", "loss", "trainer"])
def test_every_setting_of_a_shipped_file_is_known(group: str) -> None:
    script = Script(ROOT / "conf", "train")
    for file in script.choices(group):
        assert set(OmegaConf.load(file)) - {"defaults"} <= script.holds(
            group, file.stem if group == "freeze" else ""
        ), file


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+freeze.rank=8"], "freeze.rank: not a setting of freeze=none. Of these: dora, lora."),
        (["freeze=head", "+freeze.every=2"], "freeze.every: not a setting of freeze=head. Of these: gradual."),
        (["freeze=ia3", "+freeze.rank=8"], "freeze.rank: not a setting of freeze=ia3. Of these: dora, lora."),
        (["freeze=lora", "+freeze.rnak=8"], "freeze.rnak: nothing reads such a setting; did you mean freeze.rank?"),
        (["freeze=lora", "freeze.n=2", "freeze.target_modules=[q]"], ""),
        (["freeze=none", "+freeze.learning_rate=1e-3"], ""),  # optimizer.lr reads it
    ],
)
def test_a_strategy_takes_the_settings_that_it_reads(overrides: list[str], said: str) -> None:
    plain: Any = OmegaConf.to_container(configured(*overrides), resolve=True)
    with pytest.raises(UserError, match=re.escape(said)) if said else nullcontext():
        check_known(plain, Script(ROOT / "conf", "train"))


@pytest.mark.parametrize(
    "content",
    ["defaults: [lora]\nrank: 4\n", "defaults: [_reuse]\nname: first_n\nn: 2\n", "defaults: [head]\nreuse: off\n"],
)
def test_a_strategy_may_have_a_file_of_the_users(content: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/freeze/own.yaml").write_text(content)
    with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("train", overrides=["freeze=own"]), resolve=True)
    check_known(plain, Script(tmp_path / "conf", "train"))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("predict.py -m run=x text=a", "-m: only train.py has multiruns. Call predict.py once for each."),
        ("predict.py run=null text=a", "run=null is not a text"),
        ("predict.py run=x text=a batch_size=8,16", "batch_size=8,16: several values. Give one."),
        (
            "evaluate.py run=x data.text_column=a,b",
            "several values. The two of a pair are a list: data.text_column=[a,b]",
        ),
        ("predict.py run=x text=a +foo=1", "foo: nothing reads such a setting"),
        ("predict.py run=x --config-name nowhere text=a", "Cannot find primary config 'nowhere'"),
        ("evaluate.py run=x data.label_column=[a,a]", "data.label_column=['a', 'a'] is not the name of a column"),
        ("evaluate.py run=x data.label_separator=[a]", "data.label_separator=['a'] is not a text"),
        ("explore.py data=csv data.path=/dev/null", "/dev/null: neither a file nor a folder"),
        ("report.py runs=null", "runs=null is not a text"),
    ],
)
def test_mistakes_in_other_scripts_get_one_line(command: str, said: str, tmp_path: Path) -> None:
    script, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, ""), done.stderr
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def write_page(path: Path) -> None:
    with files.atomic_write(path) as file:
        file.write("page")


def write_folder(path: Path) -> None:
    files.replace_folder(path, lambda place: Path(place).mkdir())


@pytest.mark.parametrize(
    ("write", "name", "reason"),
    [
        (write_page, "file/page.html", "{file} is a file, not a folder"),
        (write_page, "x" * 252, "File name too long"),
        (write_folder, "file/export", "{file} is a file, not a folder"),
        (write_folder, "none/export", "No such file or directory"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_in_one_line(
    write: Callable[[Path], None], name: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        write(tmp_path / name)
    remedy = "Choose another place, or see to its permissions."
    told = reason.format(file=tmp_path / "file")
    assert str(caught.value) == f"{tmp_path / name}: cannot be written: {told}. {remedy}"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_fails_while_a_file_is_open_is_blamed_on_it_only_if_there_is_no_room(tmp_path: Path) -> None:
    failures: list[tuple[Exception, type[Exception]]] = [
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), ConnectionResetError),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/other/file"), FileNotFoundError),
        (OSError(errno.ENOSPC, "No space left on device"), UserError),
        (SafetensorError("I/O error: No space left on device (os error 28)"), UserError),
        (SafetensorError("Error while serializing"), SafetensorError),
    ]
    for failure, expected in failures:
        with pytest.raises(expected), files.atomic_write(tmp_path / "out.csv"):
            raise failure
    assert not list(tmp_path.iterdir())


def test_settings_of_all_swept_choices_of_a_group_are_those_of_each() -> None:
    """Hydra looks for them in the group's default, and finds none."""
    script = Script(ROOT / "conf", "train")
    for choices, forced in (("all_but_last_n,lora", "++freeze.n=1,2"), ("lora,head", "freeze.n=1,2")):
        arguments = ["-m", f"freeze={choices}", "freeze.n=1,2", "freeze.reuse=off", "seed=1,2"]
        assert of_every_choice(arguments, script) == [*arguments[:2], forced, *arguments[3:]]


def test_what_a_link_leads_to_is_replaced_not_the_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "labelled.csv"
    link.symlink_to("far/labelled.csv")  # where there is nothing yet
    for text in ("first", "second"):
        files.write_text(link, text)
        assert link.is_symlink()
        assert (tmp_path / "far/labelled.csv").read_text() == text
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["labelled.csv"]


def test_what_the_trainer_calls_its_arguments_names_settings_that_there_are() -> None:
    assert set(TRAINER.values()) <= set(Script(ROOT / "conf", "train").keys)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("tickets.csv.gz", "tickets"),
        ("data/2026-*.csv", "data-2026"),
        ("data/*.csv", "data"),
        ("[a]-{b}.csv", "{b}"),
        ("", "data"),
    ],
)
def test_a_run_folder_is_named_after_the_data(path: str, name: str) -> None:
    assert job.stem(path) == name
