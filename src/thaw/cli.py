"""From the command line to one function call: Hydra around it, one line and exit code 2 for what users can mend.

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
from thaw.errors import Interrupted, Pruned, UserError
from thaw.help import help_text
from thaw.job import run_folder, stem
from thaw.memory import keep_freed_memory
from thaw.mistakes import check_options, readable
from thaw.overrides import latest, quoted
from thaw.runs import drop_empty, open_unfinished, resume_command
from thaw.settings import Rule, check

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # that end a process without a word, unless one listens


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
            nonlocal begun
            begun = True
            return perform(function, config, rules, conf, name)

        def main() -> None:
            prepare(conf)
            try:
                check_options(sys.argv[1:], conf, name)
                sys.argv[1:] = [quoted(latest(argument)) for argument in sys.argv[1:]]
                if {"--help", "-h"} & set(sys.argv[1:]):
                    print(help_text(conf, name, str(function.__globals__["__doc__"]), sys.argv[1:]))
                    return
                hydra.main(version_base="1.3", config_path=str(conf), config_name=name)(task)()
            except KeyboardInterrupt as error:  # while a multirun begins or ends
                fail(error, conf, name)
            except (HydraException, OmegaConfBaseException, UserError, OSError, ValueError, RuntimeError) as error:
                if isinstance(error, OSError) and error.filename and not begun:  # Hydra makes the folder of the run
                    error = UserError(f"{error.filename}: cannot be made: {error.strerror}", "Change hydra.run.dir.")
                fail(error, conf, name)

        return main

    return decorate


def prepare(conf: Path) -> None:
    """Set what holds for the whole process before Hydra reads the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character still gets the rest
    # Hydra prints its own errors over several lines, unless it is told to raise them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # conf/hydra/launcher/ gives values to the settings that the launcher's package declares: that is meant.
    warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against")
    resolvers: dict[str, Callable[..., Any]] = {
        "run_folder": run_folder,
        "stem": stem,
        "multirun_folder": multirun.multirun_folder,
        "job_folder": multirun.job_folder,
        "sample": lambda data: str(conf.parent / "samples" / data),
    }
    for key, resolver in resolvers.items():
        OmegaConf.register_new_resolver(key, resolver, replace=True)
    # Cached, since a job's config holds its own overrides: it gets those of its multirun from where it began.
    OmegaConf.register_new_resolver("multirun_overrides", list, use_cache=True, replace=True)


def perform(
    function: Callable[[DictConfig], Any], config: DictConfig, rules: dict[str, Rule], conf: Path, name: str
) -> Any:
    """Call the function of a script, its settings checked; end the process, or the run of a multirun, if it fails."""
    folder, log = Path(HydraConfig.get().runtime.output_dir), f"{HydraConfig.get().job.name}.log"
    summed = multirun.active() and name == "train"  # of other scripts nothing tells of failures at the end
    keep_freed_memory()  # here, since launchers start processes that do not pass through main
    heard = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]  # a launcher's are not
    for number in heard:
        signal.signal(number, end)
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
        check(plain, rules)
        return function(config)
    except Pruned:
        raise  # the sweeper takes note
    except (Interrupted, BrokenPipeError, KeyboardInterrupt) as error:
        drop_empty(folder, log)
        if summed:
            print("The multirun was stopped; the same command resumes it.", file=sys.stderr)
        elif isinstance(error, KeyboardInterrupt):
            with suppress(UserError):  # there is no run, or it is finished
                resume = resume_command(open_unfinished(folder))
                error = Interrupted(f"Interrupted. Resume with: {resume}", exit_code(error))
        fail(error, conf, name)
    except Exception as error:
        if summed:
            return multirun.keep_failure(readable(error, conf, name), folder)
        drop_empty(folder, log)
        fail(error, conf, name)
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


def end(number: int, _: Any) -> NoReturn:
    """Let a signal end the process as Ctrl-C does."""
    raise KeyboardInterrupt(128 + number)


def exit_code(interrupt: KeyboardInterrupt) -> int:
    return int(interrupt.args[0]) if interrupt.args else 130


def fail(error: BaseException, conf: Path, name: str) -> NoReturn:
    """Say what is wrong and end: exit code 2 for what the user can mend, 128 + n after signal n."""
    atexit.register(logging.disable)  # libraries log as Python ends, when the log may be gone with its folder
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
