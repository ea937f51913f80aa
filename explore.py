"""Look before training: python explore.py data=emotion model=distilbert, or text="..." model=bert."""

from datetime import datetime

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from thaw.cli import command
from thaw.job import run_folder
from thaw.memory import importing
from thaw.overrides import unquoted
from thaw.rules import EXPLORE_RULES
from thaw.settings import check_source


@command("explore", EXPLORE_RULES)
def main(config: DictConfig) -> None:
    """Measure the data, write the page, show the summary; or show how one text is split."""
    if config.text is None:
        check_source(config.data)
    with importing():
        from thaw.exploration.explore import explore

    around = HydraConfig.get()
    overrides = [unquoted(item) for item in around.overrides.task]
    if config.text is None and not config.output:
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        model = str(around.runtime.choices["model"])
        config.output = run_folder(None, f"explore/{config.data.name}", model, overrides, now)
    explore(config, overrides)


if __name__ == "__main__":
    main()
