#!/bin/bash
# A command of rsw on all nodes of a Slurm job: a Ray node on each, the command itself on the first. From a shared folder:
#
#   sbatch --nodes 2 --gpus-per-node 8 examples/cluster/slurm.sh train config.yaml --set rollouts.actors=15
#
# The job has the exit code of the command. It goes on in a new job: the same line with --resume FOLDER behind it.
#SBATCH --job-name=rsw
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --output=%x-%j.log
set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_ADDRESS="$first:${RAY_PORT:-6379}"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN   # who reaches Ray's ports without the token is turned away
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
node=(--num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block)
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

srun --overlap --nodes=1 --ntasks=1 --nodelist="$first" \
    env -u RAY_ADDRESS ray start --head --port="${RAY_ADDRESS##*:}" --include-dashboard=false "${node[@]}" &
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$first" \
        ray start --address="$RAY_ADDRESS" "${node[@]}" &
fi

# Until every node is there, for five minutes at most.
timeout 300 python - <<'PYTHON'
import os, time
import ray

while True:
    try:
        ray.init(os.environ["RAY_ADDRESS"], logging_level="ERROR", log_to_driver=False)
        break
    except ConnectionError:
        time.sleep(2)
while sum(node["Alive"] for node in ray.nodes()) < int(os.environ["SLURM_JOB_NUM_NODES"]):
    time.sleep(1)
PYTHON

rsw "$@" --ray-address auto
