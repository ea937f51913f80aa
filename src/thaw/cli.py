"""From the command line to one function call: Hydra around it, one line and exit code 2 for what users can mend.

Nothing heavy is imported here, so that ``--help``, ``--cfg job`` and a mistyped override answer at once.
"""

import atexit
import difflib
import io
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw import multirun
from thaw.errors import Interrupted, Pruned, UserError, missing
from thaw.memory import keep_freed_memory
from thaw.runs import LOCK, open_unfinished, rank, resume_command
from thaw.settings import Rule, check, check_source

FREE_TEXT = ("text", "run", "runs", "resume", "input", "output", "explain_page", "data.path", "model.name")
WRITTEN = ("config.yaml", "metrics.json", "report.html", "model", "checkpoints", "predictions")  # by every run
QUOTED = re.compile(r"""'([^'\\]|\\.)*'|"([^"\\]|\\.)*\"""")
NUMBER = re.compile(r"[-+]?[\d_.]+(e[-+]?\d+)?|true|false|nan|[-+]?inf", re.IGNORECASE)  # or a truth, for Hydra


def command(name: str, rules: dict[str, Rule]) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of a config the main function of a root script.

    Args:
        name: of the config in ``conf/``.
        rules: for its settings, which are checked before the function imports anything heavy.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        conf = Path(function.__code__.co_filename).resolve().parent / "conf"

        begun = False

        def task(config: DictConfig) -> Any:
            folder = Path(HydraConfig.get().runtime.output_dir)
            summed = multirun.active() and name == "train"  # of other scripts nothing tells of failures at the end
            nonlocal begun
            begun = True
            keep_freed_memory()  # here, since launchers start processes that do not pass through main
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # else a launcher has one
                signal.signal(signal.SIGTERM, end)
            try:
                plain: Any = OmegaConf.to_container(config, resolve=True)
                check(plain, rules)
                return function(config)
            except Pruned:
                raise  # the sweeper takes note
            except (Interrupted, BrokenPipeError, KeyboardInterrupt) as error:
                drop_empty(folder)
                if summed:
                    print("The multirun ends here; the same command goes on with it.", file=sys.stderr)
                elif isinstance(error, KeyboardInterrupt):
                    with suppress(UserError):  # there is no run, or it is finished
                        command = resume_command(open_unfinished(folder))
                        error = Interrupted(f"Interrupted. Go on with: {command}", exit_code(error))
                fail(error, conf, name)
            except Exception as error:
                if summed:
                    return multirun.keep_failure(readable(error, conf, name), folder)
                drop_empty(folder)
                fail(error, conf, name)
            finally:
                if signal.getsignal(signal.SIGTERM) is end:
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)

        def main() -> None:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character still gets the rest
            # Hydra prints its own errors over several lines, unless it is told to raise them.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            sys.argv[1:] = [quoted(argument) for argument in sys.argv[1:]]
            # conf/hydra/launcher/ gives values to the settings that the launcher's package declares: that is meant.
            warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against")
            OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
            OmegaConf.register_new_resolver("stem", stem, replace=True)
            # Cached, since a job's config holds its own overrides: it gets those of its multirun from where it began.
            OmegaConf.register_new_resolver("multirun_overrides", list, use_cache=True, replace=True)
            OmegaConf.register_new_resolver("multirun_folder", multirun.multirun_folder, replace=True)
            OmegaConf.register_new_resolver("job_folder", multirun.job_folder, replace=True)
            OmegaConf.register_new_resolver("sample", lambda data: str(conf.parent / "samples" / data), replace=True)
            try:
                hydra.main(version_base="1.3", config_path=str(conf), config_name=name)(task)()
            except KeyboardInterrupt as error:  # while a multirun begins or ends
                fail(error, conf, name)
            except (HydraException, OmegaConfBaseException, UserError, OSError, ValueError, RuntimeError) as error:
                if isinstance(error, OSError) and error.filename and not begun:  # Hydra makes the folder of the run
                    error = UserError(f"{error.filename}: cannot be made: {error.strerror}", "Change hydra.run.dir.")
                fail(error, conf, name)

        return main

    return decorate


def end(number: int, _: Any) -> NoReturn:
    """Let a signal end the process as Ctrl-C does."""
    raise KeyboardInterrupt(128 + number)


def exit_code(interrupt: KeyboardInterrupt) -> int:
    return int(interrupt.args[0]) if interrupt.args else 130


def fail(error: BaseException, conf: Path, name: str) -> NoReturn:
    """Say what is wrong and end: exit code 2 for what the user can mend, 128 + n after signal n."""
    if isinstance(error, BrokenPipeError):  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    if isinstance(error, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        sys.exit(exit_code(error))
    if isinstance(error, Interrupted):
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    if isinstance(error, Exception):
        error = readable(error, conf, name)
    if not isinstance(error, UserError):
        raise error
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def drop_empty(folder: Path) -> None:
    """Remove the folder that Hydra made for a run which never began: it holds Hydra's log and a lock at most."""
    ours = [folder / f"{HydraConfig.get().job.name}.log", folder / LOCK]
    if any(path not in ours for path in folder.iterdir()) or folder == Path.cwd():
        return
    for path in ours:
        path.unlink(missing_ok=True)
    folder.rmdir()
    for parent in folder.parents[:2]:
        if any(parent.iterdir()):
            return
        parent.rmdir()


def readable(error: Exception, conf: Path, name: str) -> Exception:
    """One line for what Hydra and OmegaConf say over several; other errors as they are."""
    said = str(error)
    if match := re.search(r"Unknown plugin class : 'hydra_plugins\.hydra_(\w+)_launcher", said):
        return missing("this hydra/launcher", f"hydra-{match[1]}-launcher", match[1])
    if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not imported here
        hint = "Lower data.batch_size or data.max_length, or set model.gradient_checkpointing=true."
        return UserError(said.split(". ")[0], hint)
    if "Config group override must be" in said:  # by a name; Hydra does not say which
        for argument in sys.argv[1:]:
            group, _, choice = argument.partition("=")
            if (conf / group).is_dir() and (choice == "null" or NUMBER.fullmatch(choice)):
                return no_choice(group, choice, conf)
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return error
    if isinstance(error, OverrideParseException):
        return UserError(f"{error.override}: cannot be read as a setting", "Quote the value: 'key=\"value\"'.")
    if match := re.search(r"Missing mandatory value: (\S+)", said):
        return UserError(f"{match[1]} is missing", f"Give it: {match[1]}=...")
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", said):
        group, choice = match.groups()
        if (conf / group).is_dir():
            return no_choice(group, choice, conf)
    if match := re.search(r"Could not (?:override|delete) '(?:[^']*@)?([^'@]+)'|append to config '([^']+)'", said):
        key = match[1] or match[2]
        group, _, own = key.rpartition(".")
        holders = [file.stem for file in sorted((conf / group).glob("[!_]*.yaml")) if own in OmegaConf.load(file)]
        if group and holders:
            return UserError(f"{key}: not a setting of the {group} that is chosen", f"Of these: {', '.join(holders)}.")
        known = list(known_keys(conf, name))
        if below := [one for one in known if one.startswith(f"{key}.")]:
            return UserError(f"{key}: not a group of {name}.py", f"Its settings: {', '.join(below)}.")
        hint = f"All settings: python {name}.py --cfg job."
        return UserError(f"{key}: no such setting{near(key, known)}", hint)
    lines = [line.strip() for line in said.splitlines() if line.strip() and "full_key" not in line]
    return UserError(" ".join(line for line in lines if not line.startswith(("object_type", "reference_type"))))


def no_choice(group: str, choice: str, conf: Path) -> UserError:
    options = sorted(file.stem for file in (conf / group).glob("[!_]*.yaml"))
    return UserError(f"{group}={choice}: no such choice{near(choice, options)}", f"There are: {', '.join(options)}.")


def near(word: str, known: Sequence[str]) -> str:
    """``; did you mean x?``, or nothing."""
    close = difflib.get_close_matches(word, known)
    close.sort(key=lambda one: sorted(one) != sorted(word))  # first what has the same letters in another order
    return f"; did you mean {close[0]}?" if close else ""


def known_keys(conf: Path, name: str) -> Iterator[str]:
    """Every setting of the default config, dotted, and the names of the groups."""
    from hydra import compose, initialize_config_dir

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose(name)

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key in map(str, node) if isinstance(node, DictConfig) else ():
            path = f"{prefix}{key}"
            yield path
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                yield from walk(node[key], f"{path}.")

    yield from walk(config, "")


def quoted(argument: str) -> str:
    """Quote the value of a setting that holds free text, which Hydra's grammar would otherwise take apart."""
    key, equals, value = argument.partition("=")
    if not equals or key not in FREE_TEXT or QUOTED.fullmatch(value):
        return argument
    special = r"[=()\[\]{}'\"$:~\s,]" if key == "runs" else r"[=()\[\]{}'\"$:~\s]"
    plain = not re.search(special, value) and not NUMBER.fullmatch(value)
    if value in ("", "null") or (key != "text" and plain):
        return argument if value else f"{key}=''"
    if "\n" in value or "\r" in value:
        value = " ".join(value.split())
    # Of backslashes Hydra reads those before a quote by twos.
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (found[2] and "\\'"), value.replace("${", "\\${"))
    return f"{key}='{escaped}'"


def stem(path: str | None) -> str:
    """A short name for data given by its path: the file or folder name without its endings."""
    if not path or path == "???":
        return "data"  # what is missing is said where it is needed
    return Path(path).expanduser().name.split(".")[0] or "data"


def run_folder(resume: str | None, data: str, model: str, overrides: Sequence[str], time: str) -> str:
    """Where a run is kept: ``outputs/<data>/<model>/<time>``, or the folder of the run to go on with.

    Processes but the first of a distributed run get a folder of their own, to be thrown away.
    """
    if rank():
        folder = tempfile.mkdtemp(prefix="thaw-rank-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
    if resume and not (Path(resume).expanduser() / "config.yaml").is_file():
        return tempfile.mkdtemp(prefix="thaw-")  # an error is to follow, and must not create the folder it complains of
    if resume:
        return str(Path(resume).expanduser())
    named = [override.split("=", 1)[1] for override in overrides if override.startswith("model.name=")]
    model = Path(named[-1].strip("'\"")).name if named else model
    return f"outputs/{data}/{model}/{time}"


def job(config: DictConfig) -> dict[str, Any]:
    """Check what a run starts from, and tell what Hydra knows of it and the config does not.

    Returns:
        ``folder`` of the run; ``multirun``: whether it is one of several in this process; ``origin``: the ``command``
        that makes this very run, its ``overrides``, and the settings ``changed`` by it, each with its value and the
        default.

    Raises:
        UserError: when the data or the run to go on with is missing, or settings are changed together with ``resume``.
    """
    state = HydraConfig.get()
    others = [item for item in state.overrides.task if not item.startswith("resume=")]
    if len(others) < len(state.overrides.task) and others:
        raise UserError(
            f"{others[0]} beside resume: a resumed run keeps its own settings", "Leave it out, or start a new run."
        )
    if config.resume:
        open_unfinished(config.resume)  # now, before anything heavy is imported
    else:
        check_source(config.data)
        folder = Path(state.runtime.output_dir)
        taken = [name for name in WRITTEN if (folder / name).exists()]
        if taken and not multirun.active() and not rank():
            what, way = (
                ("a run", f", or go on: {resume_command(folder)}") if "config.yaml" in taken else (taken[0], ".")
            )
            raise UserError(f"{folder}: there is {what} already", f"Give another{way}")
    name = str(state.job.config_name)
    own = [item for item in state.overrides.task if not item.startswith("sweep=")]  # a preset makes many runs of one
    command = shlex.join(["python", f"{name}.py", *own])
    origin = {"command": command, "overrides": list(state.overrides.task), "changed": changed(config, name)}
    return {"folder": Path(state.runtime.output_dir), "multirun": multirun.active(), "origin": origin}


def changed(config: DictConfig, name: str) -> list[tuple[str, str, str]]:
    """The settings that differ from the defaults: key, value, default; a setting of one side only shows a dash."""
    ours, theirs = flat(config), defaults(name)
    keys = [*ours, *(key for key in theirs if key not in ours)]
    rows = [(key, ours.get(key, "–"), theirs.get(key, "–")) for key in keys]
    return [row for row in rows if row[1] != row[2]]


@cache
def defaults(name: str) -> dict[str, str]:
    """What a script does without overrides, as `flat` gives it."""
    config = GlobalHydra.instance().config_loader().load_configuration(name, [], RunMode.RUN)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return flat(config)


def flat(config: DictConfig) -> dict[str, str]:
    """Dotted keys and values as a user would type them."""
    found: dict[str, str] = {}

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                walk(value, f"{prefix}{key}.")
            else:
                found[f"{prefix}{key}"] = "null" if value is None else str(value)

    walk(OmegaConf.to_container(config, resolve=True), "")
    return found
