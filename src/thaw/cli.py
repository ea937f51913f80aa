"""From the command line to one function call: Hydra around it, one line and exit code 2 for what users can fix.

Nothing heavy is imported here, so that ``--help``, ``--cfg job`` and a mistyped override answer at once.
"""

import atexit
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw import multirun
from thaw.errors import REQUEUE, Interrupted, Pruned, UserError
from thaw.help import help_text
from thaw.job import run_folder, stem
from thaw.memory import keep_freed_memory
from thaw.mistakes import readable
from thaw.overrides import is_setting, latest, quoted
from thaw.runs import drop_empty, open_unfinished, resume_command
from thaw.script import Script, check_known, check_options, of_every_choice
from thaw.settings import check
from thaw.values import Rule

SIGNALS = (signal.SIGTERM, *REQUEUE)  # they end a process silently, unless it handles them


def command(name: str, rules: dict[str, Rule]) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of a config the main function of a root script.

    Args:
        name: of the config in ``conf/``.
        rules: for its settings, checked before the function imports anything heavy.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        script = Script(Path(function.__code__.co_filename).resolve().parent / "conf", name)
        begun = False

        def task(config: DictConfig) -> Any:
            nonlocal begun
            begun = True
            return perform(function, config, rules, script)

        def main() -> None:
            prepare(script.conf)
            listen()  # also while a multirun starts, ends, or waits for the processes of a launcher
            try:
                check_options(sys.argv[1:], script)
                # Options first, since argparse takes settings from one place only.
                options_first = sorted(sys.argv[1:], key=is_setting)
                settings = [quoted(latest(argument)) for argument in options_first]
                sys.argv[1:] = of_every_choice(settings, script)
                if {"--help", "-h"} & set(sys.argv[1:]):
                    print(help_text(script, str(function.__globals__["__doc__"]), sys.argv[1:]))
                    return
                hydra.main(version_base="1.3", config_path=str(script.conf), config_name=name)(task)()
            except KeyboardInterrupt as error:  # while a multirun starts or ends
                fail(error, script)
            except (HydraException, OmegaConfBaseException, UserError, OSError, ValueError, RuntimeError) as error:
                # Raised by Hydra when it creates the run folder.
                if isinstance(error, OSError) and error.filename and not begun:
                    error = UserError(f"{error.filename}: cannot be made: {error.strerror}", "Change hydra.run.dir.")
                fail(error, script)

        return main

    return decorate


def prepare(conf: Path) -> None:
    """Configure the process before Hydra reads the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character that the terminal cannot show is no error
    logging.raiseExceptions = False  # or each line for a pipe that was closed, as by head, would be a traceback
    # Makes Hydra raise its errors instead of printing them over several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Files in conf/hydra/launcher/ override the settings that the launcher's package declares, on purpose.
    warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against")
    register_resolvers(conf)


def register_resolvers(conf: Path) -> None:
    """The functions that the files in ``conf/`` call; `thaw.settings` registers those that only compute values."""
    resolvers: dict[str, Callable[..., Any]] = {
        "run_folder": run_folder,
        "stem": stem,
        "multirun_folder": multirun.multirun_folder,
        "job_folder": multirun.job_folder,
        "sample": lambda data: str(conf.parent / "samples" / data),
    }
    for key, resolver in resolvers.items():
        OmegaConf.register_new_resolver(key, resolver, replace=True)
    # Cached, since a job's config holds only its own overrides, and needs those of the whole multirun.
    OmegaConf.register_new_resolver("multirun_overrides", list, use_cache=True, replace=True)


def perform(function: Callable[[DictConfig], Any], config: DictConfig, rules: dict[str, Rule], script: Script) -> Any:
    """Check the settings and call the function of a script; if it fails, end the process, or this run of a multirun."""
    folder, log = Path(HydraConfig.get().runtime.output_dir), f"{HydraConfig.get().job.name}.log"
    summed = multirun.active() and script.name == "train"  # only train.py reports failures at the end of a multirun
    keep_freed_memory()  # here, since processes started by launchers do not call main
    heard = listen()  # in a process started by a launcher
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
        check_known(plain, script)
        check(plain, rules)
        return function(config)
    except Pruned:
        raise  # for the sweeper
    except (Interrupted, BrokenPipeError, KeyboardInterrupt) as error:
        drop_empty(folder, log)
        if summed:
            print("The multirun was stopped; the same command resumes it.", file=sys.stderr)
        elif isinstance(error, KeyboardInterrupt):
            with suppress(UserError):  # if there is no run, or it is finished
                resume = resume_command(open_unfinished(folder))
                error = Interrupted(f"Interrupted. Resume with: {resume}", exit_code(error))
        fail(error, script)
    except Exception as error:
        if summed:
            return multirun.keep_failure(readable(error, script), folder)
        drop_empty(folder, log)
        fail(error, script)
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


def listen() -> list[signal.Signals]:
    """Have signals that nobody handles, such as a launcher, end the process the way Ctrl-C does; returns which."""
    heard = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in heard:
        signal.signal(number, end)
    return heard


def end(number: int, _: Any) -> NoReturn:
    """A signal handler that ends the process the way Ctrl-C does."""
    raise KeyboardInterrupt(128 + number)


def exit_code(interrupt: KeyboardInterrupt) -> int:
    return int(interrupt.args[0]) if interrupt.args else 130


def fail(error: BaseException, script: Script) -> NoReturn:
    """Print what is wrong and exit: with code 2 for what the user can fix, 128 + n after signal n."""
    atexit.register(logging.disable)  # libraries log while Python exits, when the folder of the log may be gone
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
        error = readable(error, script)
    if not isinstance(error, UserError):
        raise error
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
