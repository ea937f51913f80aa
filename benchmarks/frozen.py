"""Frozen layers: a linear probe over 5 epochs and the last layer over 3, with an empty cache each time.

python -m benchmarks.frozen data.path=~/emotion [pairs=3] [systems=thaw,trainer_grouped] [any override of train.py]
"""

import sys

from benchmarks.pairs import alternate, own_settings, report

CASES = (["freeze=head", "trainer.max_epochs=5"], ["freeze=all_but_last_n", "freeze.n=1", "trainer.max_epochs=3"])


def main(arguments: list[str]) -> None:
    own = own_settings(arguments, {"pairs": "3", "systems": "thaw,trainer_dynamic,trainer_grouped"})
    for case in CASES:
        settings = ["data=emotion", "data.batch_size=64", *case, *arguments]
        commands = {system: ["benchmarks.side", system, *settings] for system in own["systems"].split(",")}
        report("frozen", settings, alternate(commands, int(own["pairs"]), cold=True))


if __name__ == "__main__":
    main(sys.argv[1:])
