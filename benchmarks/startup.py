"""From command to answer: ``--help``, a mistyped override, and a whole run of one training step with warm caches.

python -m benchmarks.startup [repeats=5]
"""

import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.pairs import environment
from benchmarks.settings import ROOT, own_settings, script
from thaw.errors import UserError

STEP = ["data.train_size=64", "data.eval_size=64", "data.batch_size=64", "data.epochs=1"]
CASES = {
    "help": ["train.py", "--help"],
    "mistyped override": ["train.py", "modle=bert"],
    "one step, evaluated": ["train.py", *STEP],
    "import torch": ["-c", "import torch"],
    "import transformers.Trainer": ["-c", "from transformers import Trainer"],
}


def main(arguments: list[str]) -> None:
    own = own_settings(arguments, {"repeats": "5"})
    with tempfile.TemporaryDirectory() as folder:
        for name, command in CASES.items():
            seconds = []
            for turn in range(int(own["repeats"]) + 1):
                path = [*command, f"hydra.run.dir={folder}/{turn}"] if "one step" in name else command
                clock = time.perf_counter()
                done = subprocess.run([sys.executable, *path], cwd=ROOT, env=environment("warm"), capture_output=True)
                seconds.append(time.perf_counter() - clock)
                if done.returncode != (2 if "mistyped" in name else 0):
                    print(done.stderr.decode(), file=sys.stderr)
                    raise UserError(f"{name}: ended with exit code {done.returncode}", "What it said stands above.")
            # The first fills the caches, the system's own too.
            middle, least, most = statistics.median(seconds[1:]), min(seconds[1:]), max(seconds[1:])
            print(f"{name:28} {middle:6.2f} s  ({least:.2f} to {most:.2f})", flush=True)


if __name__ == "__main__":
    script(main)
