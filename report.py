"""Compare two finished runs on the same test rows: python report.py runs=outputs/...,outputs/..."""

from omegaconf import DictConfig

from thaw.cli import command


@command("report")
def main(config: DictConfig) -> None:
    """Paired tests of the difference, and the texts that changed sides."""
    from thaw.reporting.comparison import report

    report(config)


if __name__ == "__main__":
    main()
