"""Compare two runs, runs=outputs/...,outputs/..., or sum a multirun up: python report.py runs=outputs/multirun/..."""

from omegaconf import DictConfig

from thaw.cli import command
from thaw.rules import REPORT_RULES


@command("report", REPORT_RULES)
def main(config: DictConfig) -> None:
    """Paired tests of two runs on the same rows; figures over seeds of many."""
    from thaw.reporting.comparison import report

    report(config)


if __name__ == "__main__":
    main()
