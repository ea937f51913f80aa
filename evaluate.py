"""Evaluate a finished run: python evaluate.py run=outputs/... [split=validation] [data.path=new.csv]."""

from omegaconf import DictConfig

from thaw.cli import command
from thaw.memory import importing
from thaw.rules import EVALUATE_RULES
from thaw.settings import check_source


@command("evaluate", EVALUATE_RULES)
def main(config: DictConfig) -> None:
    """Score the run again from its folder alone, or on new data with the same labels."""
    if config.data.path:
        check_source(config.data)
    with importing():
        from thaw.evaluation import evaluate

    evaluate(config)


if __name__ == "__main__":
    main()
