"""A multirun on Weights & Biases: its table, and ``report.py runs=<multirun> wandb=entity/project``."""

import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from thaw import files, runs
from thaw.errors import UserError, require
from thaw.hub import answers
from thaw.reporting.members import CHOSEN, Member, is_wandb, picks_a_file, read_members
from thaw.reporting.published import HEADER, all_rows, experiments_of
from thaw.reporting.summary import markdown_table
from thaw.reporting.sweep import Overview, command_of, overview

DRY_RUN = "dry_run"
TITLE = 128  # characters that W&B allows
STEP = "trainer/global_step"  # what Lightning counts; W&B's own step counts calls


def make_report(folder: Path, target: str) -> None:
    """What ``report.py wandb=`` does: save the report of a multirun and print its address, or write what would be sent.

    Args:
        folder: of the multirun.
        target: ``entity/project``, or ``dry_run``.

    Raises:
        UserError: when the runs were not logged to W&B, or W&B does not accept the report.
    """
    if target != DRY_RUN and not re.fullmatch(r"[^/\s]+/[^/\s]+", target):
        raise UserError(f"wandb={target} is neither entity/project nor {DRY_RUN}", "Give both names, as in W&B's URL.")
    members = read_members(folder)
    settings = logged(members)
    if not settings:
        hint = "Start them with logger=wandb, or logger=wandb_offline."
        raise UserError(f"{runs.display(folder)}: these runs were not logged to W&B", hint)
    group = settings["group"] or folder.name
    entity, _, project = target.partition("/")
    report = build_report(folder.name, group, members, entity, project or settings["project"])
    command = runs.sync_command(folder)
    if target == DRY_RUN:
        path = folder / "wandb_report.json"
        # Exactly what Report.save sends.
        sent = report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=2)
        files.write_text(path, sent + "\n")
        print(f"Report   {runs.display(path)}   (not sent)")
    else:
        print(f"Report   {publish(report, group, command)}")
    if command:
        print(f"Sync     {command}")


def logged(members: Sequence[Member]) -> dict[str, Any]:
    """How the runs of a multirun were logged to W&B; empty if none was."""
    for member in members:
        if (member.folder / "config.yaml").is_file():
            loggers: Any = OmegaConf.to_container(runs.load_config(member.folder).logger)
            for settings in filter(is_wandb, loggers.values()):
                # What a file of the user's need not say, as Lightning has it.
                return {"project": "lightning_logs", "group": None, "offline": False, **settings}
    return {}


def build_report(name: str, group: str, members: Sequence[Member], entity: str, project: str) -> Any:
    """The report as an object of ``wandb_workspaces.reports.v2``, made without network access.

    Args:
        name: of the multirun.
        group: of its runs on W&B.
        members: the runs.
        entity, project: where the report belongs.

    Raises:
        UserError: when the extra is not installed, or the group's name cannot be part of a filter.
    """
    wr = require("wandb_workspaces.reports.v2", "wandb=", "reports", "wandb-workspaces")
    over = overview(members)
    unfinished = [f"- {one.status}: `{one.folder.name}` {one.error}\n" for one in members if one.status != "finished"]
    published = all_rows(experiments_of(members))
    blocks = [
        wr.P(f"{len(members)} runs, {len(members) - len(unfinished)} finished. {over.about}"),
        wr.MarkdownBlock(markdown_table(over.header, over.rows)),
        *([wr.P(["A run with the best settings: ", wr.InlineCode(command_of(over.best))])] if over.best else []),
        wr.H2("Course"),
        _course(group, over, wr),
        wr.H2("Settings"),
        _by_settings(group, members, over, wr),
        *([wr.H2("Published and obtained"), wr.MarkdownBlock(markdown_table(HEADER, published))] if published else []),
        *([wr.H2("Not finished"), wr.MarkdownBlock("".join(unfinished))] if unfinished else []),
    ]
    return wr.Report(entity=entity, project=project, title=name[:TITLE], blocks=blocks, width="fluid")


def _course(group: str, over: Overview, wr: Any) -> Any:
    """Losses and the monitored score by step; runs that differ only in their seed are one line."""
    config = _config(over)
    repeated = any(len(one.members) > 1 for one in over.groups)
    keys = [f"config.{_name(key, config)}" for key in over.keys] if config and repeated else []
    names = dict.fromkeys([over.monitor, "train/loss", "val/loss"])
    panels = [wr.LinePlot(title=name, x=STEP, y=[name]) for name in names]
    return wr.PanelGrid(runsets=[_run_set("Over seeds" if keys else "Runs", group, wr, groupby=keys)], panels=panels)


def _by_settings(group: str, members: Sequence[Member], over: Overview, wr: Any) -> Any:
    """Each run as a line through its settings to its score."""
    config = _config(over)
    seeds = ["seed"] if len({member.settings.get("seed") for member in members}) > 1 else []
    columns = [
        wr.ParallelCoordinatesPlotColumn(wr.Config(_name(key, config)), display_name=key)
        for key in [*over.keys, *seeds]
        if config
    ]
    # W&B's summary keeps the last value of a metric logged by step; this one is the value of the best checkpoint.
    score = over.monitor.replace("val/", "validation/")
    columns.append(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(score), display_name=score))
    order = [wr.OrderBy(wr.SummaryMetric(score), ascending=over.mode == "min")]
    panel = wr.ParallelCoordinatesPlot(columns=columns, layout=wr.Layout(w=24, h=9))
    return wr.PanelGrid(runsets=[_run_set("Runs", group, wr, order=order)], panels=[panel])


def _config(over: Overview) -> DictConfig | None:
    return runs.load_config(over.groups[0].members[0].folder) if over.groups else None


def _name(key: str, config: DictConfig | None) -> str:
    """The key of a setting in the config of a W&B run."""
    return f"{CHOSEN}.{key}" if config is not None and picks_a_file(key, config) else key


def _run_set(name: str, group: str, wr: Any, **settings: Any) -> Any:
    # Without entity and project, which default to the report's own, nothing is looked up.
    from wandb_workspaces.expr import Metric

    if re.search(r"['\"\\=<>!]", group):  # the library formats filters as Python code and parses it again
        raise UserError(
            f"the W&B group {group}: such a name cannot be used in a report's filter", "Use letters, digits and dashes."
        )
    return wr.Runset(name=name, filters=[Metric("Group") == group, Metric("JobType") != "summary"], **settings)


def publish(report: Any, group: str, sync: str) -> str:
    """Save a report on W&B.

    Args:
        report: as `build_report` makes it.
        group: of the runs, which must exist on W&B.
        sync: the command that uploads the runs recorded offline, or "".

    Returns:
        The address of the report.

    Raises:
        UserError: without an account or network, or where W&B has no such project or runs.
    """
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    target = f"{report.entity}/{report.project}"
    address = wandb.setup(wandb.Settings(silent=True)).settings.base_url
    remedy = f"Check the names, the network and `wandb login`; wandb={DRY_RUN} needs none of them."
    if not answers(address):  # otherwise W&B's client retries for minutes
        raise UserError(f"wandb={target}: {address} does not answer", remedy)
    hint = f"Send them: {sync}" if sync else "Give the entity and project that the runs were logged to."
    try:
        api = wandb.Api()
        # Report.save would create a misspelt project.
        if report.project not in _projects(api, report.entity):
            raise UserError(f"wandb={target}: W&B has no such project, or not for this account", hint)
        if not len(api.runs(target, filters={"group": group})):
            raise UserError(f"wandb={target}: the project has no runs of the group {group}", hint)
        report.save()
        return str(report.url)
    except (wandb.errors.Error, WandbApiFailedError) as error:
        raise UserError(f"wandb={target}: {error}", remedy) from error


def _projects(api: Any, entity: str) -> list[str]:
    try:
        return [project.name for project in api.projects(entity)]
    except ValueError:  # unknown entity
        return []


def send_table(folder: Path) -> None:
    """Log the table of a finished multirun to W&B as a run of its own; if that fails, print a warning.

    Args:
        folder: of the multirun.
    """
    members = read_members(folder)
    settings = logged(members)
    if not settings or not (over := overview(members)).rows:
        return
    import wandb

    group = settings["group"] or folder.name
    try:
        # The id is the same for the same multirun, so that repeating it does not add a second table.
        run = wandb.init(
            project=settings["project"], entity=settings.get("entity"), group=group, job_type="summary",
            name=f"summary of {folder.name}", id=hashlib.sha256(group.encode()).hexdigest()[:12], dir=str(folder),
            mode="offline" if settings["offline"] else "online", resume=None if settings["offline"] else "allow",
            settings=wandb.Settings(silent=True),
        )  # fmt: skip
        run.log({"sweep": wandb.Table(columns=[*over.header], data=over.rows)})
        run.finish()
    except wandb.errors.Error as error:
        print(f"warning: the table was not sent to W&B: {error}", file=sys.stderr)
