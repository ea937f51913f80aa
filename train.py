"""Fine-tune an encoder: python train.py model=distilbert data=emotion freeze=all_but_last_n."""

from omegaconf import DictConfig

from thaw.cli import command
from thaw.job import job
from thaw.memory import importing
from thaw.multirun import begin
from thaw.rules import RULES
from thaw.runs import occupy
from thaw.settings import check_source


@command("train", RULES)
def main(config: DictConfig) -> float | None:
    """Train, evaluate, save and report; returns the best validation score."""
    around = job(config)
    with occupy(around["folder"]):
        if around["multirun"]:
            if (score := begin(config, around["folder"])) is not None:
                return score  # finished when the same multirun was started before
            check_source(config.data)  # which the finished ones do not need
        with importing():
            from thaw.training.fit import fit

        return fit(config, **around)


if __name__ == "__main__":
    main()
