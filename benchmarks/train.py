"""Full fine-tuning: thaw against the Hugging Face Trainer in three forms, one epoch with its validation.

Seconds, peak memory, model FLOPs utilisation and the quality of each; on a GPU with its settings: ``trainer=gpu``.

python -m benchmarks.train data.path=~/emotion [pairs=3] [systems=thaw,trainer_grouped] [any override of train.py]
"""

from benchmarks.pairs import alternate, report
from benchmarks.settings import own_settings, script, sides

SYSTEMS = "thaw,trainer_padded,trainer_dynamic,trainer_grouped"
SETTINGS = ["data=emotion", "data.train_size=6400", "data.eval_size=1000", "trainer.max_epochs=1", "data.batch_size=64"]


def main(arguments: list[str]) -> None:
    own = own_settings(arguments, {"pairs": "3", "systems": SYSTEMS})
    settings = [*SETTINGS, *arguments]
    report("train", settings, alternate(sides(own["systems"], settings), int(own["pairs"])))


if __name__ == "__main__":
    script(main)
