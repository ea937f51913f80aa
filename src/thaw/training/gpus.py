"""Which GPU a run takes where several runs go on side by side."""

import os
import platform
from functools import cache
from itertools import count
from typing import Any

import torch
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig

from thaw.cache import cache_folder


@cache  # joblib's processes do one run after the other, and each keeps its GPU until it ends
def take_gpu() -> Any:
    """Let a process of joblib see one GPU only: the first of those that the fewest of them have taken.

    To be called before anything else asks for devices, since CUDA looks once which ones it may see.

    Returns:
        The lock by which others know; None for other launchers, and where there is no choice.
    """
    if "joblib" not in HydraConfig.get().launcher._target_ or torch.cuda.device_count() < 2:
        return None
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = seen.split(",") if seen else [str(number) for number in range(torch.cuda.device_count())]
    folder = cache_folder() / "gpus"
    folder.mkdir(parents=True, exist_ok=True)
    locks = (
        (gpu, FileLock(folder / f"{platform.node()}-{gpu}-{turn}.lock"))
        for turn in count()  # the second process on a GPU takes its second lock
        for gpu in gpus
    )
    gpu, lock = next((gpu, lock) for gpu, lock in locks if _acquired(lock))
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    return lock


def _acquired(lock: Any) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
