"""Predict with a finished run: python predict.py run=outputs/... text="I love this"."""

from omegaconf import DictConfig

from thaw.cli import command
from thaw.memory import importing
from thaw.rules import PREDICT_RULES


@command("predict", PREDICT_RULES)
def main(config: DictConfig) -> None:
    """Label one text, or every text of a file or of standard input."""
    with importing():
        from thaw.inference.labelling import label

    label(config)


if __name__ == "__main__":
    main()
