"""Schedulers: SLURM's commands are played by small scripts, all else is real; several nodes by torchrun."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, Run, configured, files_of, only_run
from thaw.files import read_json
from thaw.training.fit import fit

SLURM = {
    # Starts a process for each task, and hands on the signal that ends them.
    "srun": """#!/bin/bash
while [[ $1 == --* ]]; do case $1 in --output|--error) shift 2;; *) shift;; esac; done
trap 'kill -TERM $(jobs -p)' TERM
tasks=${SLURM_NTASKS:-1}
for ((i = 0; i < tasks; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NODEID=0 SLURM_NTASKS=$tasks "$@" &
done
code=0
for job in $(jobs -p); do
    wait $job; one=$?
    while kill -0 $job 2>/dev/null; do wait $job; one=$?; done
    [ $one = 0 ] || code=$one
done
exit $code
""",
    "scontrol": '#!/bin/bash\necho "$@" >> "$(dirname "$0")/scontrol.log"\n',
    # Runs an array at once.
    "sbatch": """#!/bin/bash
folder=$(dirname "$0")
cp "$1" "$folder/submitted.sh"
last=$(sed -n 's/.*--array=0-\\([0-9]*\\).*/\\1/p' "$folder/submitted.sh")
for ((i = 0; i <= last; i++)); do
    SLURM_JOB_ID=47$i SLURM_ARRAY_JOB_ID=4711 SLURM_ARRAY_TASK_ID=$i SLURM_JOB_NUM_NODES=1 \\
        bash "$folder/submitted.sh" > "$folder/$i.log" 2>&1 &
done
echo "Submitted batch job 4711"
""",
    "sacct": "#!/bin/bash\necho 'JobID|State|NodeList'\nfor i in 0 1; do echo \"4711_$i|RUNNING|here\"; done\n",
}  # fmt: skip
SMALL = ["data.train_size=48", "data.eval_size=20", "data.epochs=1"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with SLURM's commands, first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {**SLURM, "python": f'#!/bin/bash\nexec {sys.executable} "$@"\n'}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def wait_for(path: Path, text: str) -> None:
    """Until a file holds a text."""
    end = time.monotonic() + 60
    while not (path.is_file() and text in path.read_text()):
        assert time.monotonic() < end, path.read_text() if path.is_file() else f"no {path}"
        time.sleep(0.02)


def test_a_sweep_becomes_a_job_array(encoders: Callable[[str], Path], script: Run, tmp_path: Path, slurm: Path) -> None:
    script(
        "train.py", "-m", f"model.name={encoders('distilbert')}", *SMALL, "seed=1,2", "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=gpu", "hydra.launcher.mem_gb=64", "hydra.sweep.dir=sweep",
        "+hydra.launcher.additional_parameters.mail-type=FAIL",
    )  # fmt: skip
    submitted = (slurm / "submitted.sh").read_text()
    for option in (
        "--array=0-1%2", "--partition=gpu", "--mem=64GB", "--gpus-per-node=1", "--cpus-per-task=8", "--nodes=1",
        "--ntasks-per-node=1", "--time=720", "--signal=USR2@300", "--mail-type=FAIL", "--job-name=thaw",
    ):  # fmt: skip
        assert f"#SBATCH {option}\n" in submitted
    scores = [read_json(run)["best"]["score"] for run in sorted(tmp_path.glob("sweep/*/metrics.json"))]
    assert len(scores) == 2


def test_a_job_out_of_time_saves_and_goes_on_after_the_requeue(
    encoders: Callable[[str], Path], script: Run, tmp_path: Path
) -> None:
    """submitit on this machine: the signal of the scheduler, the requeue, and the weights of a run not stopped."""
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=200", "data.eval_size=24", "data.batch_size=4",
        "data.epochs=3", "optimizer.lr=choice(0.01)", "trainer.checkpoint_every=null",
    ]  # fmt: skip
    command = [
        sys.executable, str(ROOT / "train.py"), "-m", *settings, "hydra/launcher=submitit_local",
        "hydra.sweep.dir=sweep",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    run = tmp_path / "sweep/lr-0.01"
    wait_for(run / "train.log", "epoch 1 ")
    (running,) = [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if b"submitit.core._submit" in (command := cmdline(folder)) and str(tmp_path).encode() in command
    ]
    os.kill(running, signal.SIGUSR2)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    log = (run / "train.log").read_text()
    assert "Saving, then stopping" in log
    assert "Resuming after batch" in log
    script("train.py", *settings[:-2], "optimizer.lr=1e-2", "hydra.run.dir=whole")
    assert files_of(run) == files_of(tmp_path / "whole")


def cmdline(folder: Path) -> bytes:
    try:
        return (folder / "cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def test_the_script_for_slurm_requeues_and_resumes(
    encoders: Callable[[str], Path], tmp_path: Path, slurm: Path
) -> None:
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=100", "data.eval_size=24", "data.batch_size=2",
        "data.epochs=2", "optimizer.lr=1e-2", "trainer=ddp_cpu",
    ]  # fmt: skip
    (tmp_path / "train.py").write_text(f"import runpy; runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')")
    job = {"SLURM_JOB_ID": "815", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NTASKS": "2"}
    command, env = ["bash", str(ROOT / "scripts/slurm.sh"), *settings], {**os.environ, **job}
    with (tmp_path / "job.log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log)
        wait_for(tmp_path / "job.log", "epoch 1 ")
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=60) != 0
    assert (slurm / "scontrol.log").read_text() == "requeue 815\n"
    run = tmp_path / "outputs/slurm/815"
    assert (run / "checkpoints/last.ckpt").is_file()
    assert not (run / "metrics.json").exists()
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "Resuming after batch" in done.stdout
    assert read_json(run / "metrics.json")["best"]["step"] > 0
    assert (slurm / "scontrol.log").read_text() == "requeue 815\n", "it is done"


def test_two_nodes_by_torchrun_give_the_figures_of_one_process(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    """Two starts of torchrun that meet at an address, as on two machines."""
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=64", "data.eval_size=24", "data.epochs=1",
        "model.dropout=0", "optimizer.lr=1e-2",
    ]  # fmt: skip
    node = [
        str(Path(sys.executable).parent / "torchrun"), "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:29417", str(ROOT / "train.py"), *settings, "data.batch_size=4", "trainer=ddp_cpu",
        "trainer.num_nodes=2", "trainer.devices=1",
    ]  # fmt: skip
    nodes = [
        subprocess.Popen(node, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=180)[0] for process in nodes]
    assert [process.returncode for process in nodes] == [0, 0], "\n".join(said)
    fit(configured(*settings, "data.batch_size=8"), tmp_path / "one")
    two, one = (read_json(folder / "metrics.json") for folder in (only_run(tmp_path), tmp_path / "one"))
    for name in ("validation/loss", "test/loss", "test/f1"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)
