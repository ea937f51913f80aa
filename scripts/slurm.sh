#!/bin/bash
# A run on one node or several under SLURM, a process for each GPU; put back into the queue when its time is up:
#   sbatch --nodes=2 scripts/slurm.sh model=roberta data=imdb trainer=ddp
#SBATCH --job-name=thaw
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
#SBATCH --output=outputs/slurm/%j.log

# Known to all processes and the same after a requeue, unlike a folder named after the time.
run=outputs/slurm/$SLURM_JOB_ID
if [ -f "$run/config.yaml" ]; then
    set -- "resume=$run"
else
    set -- "$@" "hydra.run.dir=$run" "trainer.num_nodes=$SLURM_NNODES" "trainer.devices=$SLURM_NTASKS_PER_NODE"
fi

# Five minutes before the end: let the run save, then queue it again.
again=
trap 'again=yes; kill -TERM "$step"' USR1
srun python train.py "$@" &
step=$!
wait "$step"
code=$?
if [ "$again" ]; then
    wait "$step" # the signal ended the first wait
    code=$?
    [ "$code" -eq 0 ] || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
