"""Frozen layers: a linear probe over 5 epochs and the last layer over 3, with an empty cache each time.

python -m benchmarks.frozen data.path=~/emotion [pairs=3] [systems=thaw,trainer_grouped] [any override of train.py]
"""

from benchmarks.pairs import alternate, report
from benchmarks.settings import own_settings, script, sides

CASES = (["freeze=head", "trainer.max_epochs=5"], ["freeze=all_but_last_n", "freeze.n=1", "trainer.max_epochs=3"])


def main(arguments: list[str]) -> None:
    own = own_settings(arguments, {"pairs": "3", "systems": "thaw,trainer_dynamic,trainer_grouped"})
    cases = [["data=emotion", "data.batch_size=64", *case, *arguments] for case in CASES]
    commands = [sides(own["systems"], settings) for settings in cases]  # all are checked before the first one runs
    for settings, own_commands in zip(cases, commands, strict=True):
        report("frozen", settings, alternate(own_commands, int(own["pairs"]), cold=True))


if __name__ == "__main__":
    script(main)
