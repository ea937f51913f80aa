"""Compare two runs, runs=outputs/...,outputs/..., or sum a multirun up: python report.py runs=outputs/multirun/..."""

from omegaconf import DictConfig

from thaw.cli import command


@command("report", rules={})
def main(config: DictConfig) -> None:
    """Paired tests of two runs on the same rows; figures over seeds of many."""
    from thaw.reporting.comparison import report

    report(config)


if __name__ == "__main__":
    main()
