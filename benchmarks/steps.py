"""One training step of an encoder on a GPU: kernels launched one by one, as CUDA graphs, and compiled as well.

Random weights and token ids, every row full but the last; milliseconds, and model FLOPs utilisation.

python -m benchmarks.steps [models=bert,distilbert] [shapes=64x24,32x256,128x256] [any override of train.py]
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.settings import configured, own_settings, script
from benchmarks.utilisation import forward_flops, machine_rate
from thaw.errors import UserError
from thaw.hub import locate_encoder
from thaw.labels import LabelSet
from thaw.models.cuda_graphs import StepGraphs
from thaw.models.encoder import load_encoder
from thaw.models.losses import make_loss
from thaw.models.speed import accelerate, compile_layers
from thaw.settings import plain

LABELS = LabelSet("sequence", ("bad", "good"), (1, 1), rows=2)
TIMES = 20  # steps that are measured
WAYS = ("one by one", "graphs", "graphs, compiled")


def seconds(step: Callable[[], None]) -> float:
    """Seconds per step, on average, after some warm-up steps."""
    for _ in range(4):
        step()
    torch.cuda.synchronize()
    clock = time.perf_counter()
    for _ in range(TIMES):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - clock) / TIMES


def measure(model: str, rows: int, width: int, way: str, overrides: list[str]) -> None:
    """Print what a step of full fine-tuning takes."""
    cfg = plain(configured([f"model={model}", "trainer=gpu", "trainer.precision=bf16-mixed", *overrides]))
    network: Any = load_encoder(locate_encoder(cfg["model"]), LABELS, {**cfg["model"], "random_init": True}).cuda()
    accelerate(network)
    network.train()
    if "compiled" in way:
        compile_layers(network)
    loss_of, parameters = make_loss(cfg["loss"], LABELS), list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)

    def losses(batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cuda", torch.bfloat16, enabled=cfg["trainer"]["precision"] == "bf16-mixed"):
            logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = loss_of(logits, batch["labels"])
        return loss, loss

    graphs = StepGraphs(losses, parameters) if "graphs" in way else None
    ids = torch.randint(1000, 20_000, (rows, width), device="cuda")
    mask, labels = torch.ones_like(ids), torch.arange(rows, device="cuda") % 2
    mask[-1, -1] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, "padded": True}

    def step() -> None:
        _, loss = (graphs or losses)(batch)
        optimizer.zero_grad(set_to_none=not graphs)
        if graphs and not loss.requires_grad:
            graphs.backward()
        else:
            loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    taken = seconds(step)
    mfu = 3 * forward_flops(network, np.full(rows, width)) / taken / machine_rate()
    print(f"{model:12} {rows:4} x {width:<4} {way:18} {1000 * taken:7.2f} ms   mfu {mfu:.3f}", flush=True)


def main(arguments: list[str]) -> None:
    own = own_settings(arguments, {"models": "bert,distilbert", "shapes": "64x24,32x256,128x256"})
    if not torch.cuda.is_available():
        raise UserError("no GPU is at hand, and there are no CUDA graphs without one")
    for model in own["models"].split(","):
        for shape in own["shapes"].split(","):
            for way in WAYS:
                rows, width = map(int, shape.split("x"))
                measure(model, rows, width, way, arguments)


if __name__ == "__main__":
    script(main)
