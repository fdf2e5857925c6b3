"""Several Ray nodes (raylets on one machine): weights go to each once, and a node that goes takes no rollout with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SIDE, WEIGHTS = 192, 200_000


@pytest.mark.slow
def test_a_node_that_goes_costs_no_rollout_and_weights_go_to_each_node_once() -> None:
    # In a process of its own: the other tests share a cluster of one node.
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert found["puts"] == [1, 1]  # two updates, however many actors and nodes
    assert found["copies"] == 3  # the driver's node and the two of the actors, which are three on two nodes
    assert found["lost"] == 0
    assert found["replaced"] >= 1
    assert found["outputs"] == [24, 24]
    assert found["same"] is True  # as those of a pool without actors, pixel for pixel


def main() -> None:
    import numpy as np
    import ray
    import torch
    from ray.cluster_utils import Cluster

    from rsw_rewards.core.plugins import load_file
    from rsw_rewards.rollouts.pool import RolloutPool

    toy = load_file(Path(__file__).parent / "toy_policy.py")
    policies = load_file(Path(__file__).parent / "large_pictures.py")
    samples = [sample for sample in toy.toy_samples(24) if sample.task == "forecast"]

    def weights(value: float) -> dict[str, torch.Tensor]:
        return {"w": torch.tensor(value), "rest": torch.full((WEIGHTS,), value)}

    def pixels(made: dict[str, list[Any]]) -> dict[str, list[np.ndarray]]:
        return {key: [output.image.pixels() for output in made[key]] for key in sorted(made)}

    expected = []
    with RolloutPool(policies.LargePictures(SIDE), actors=0, chunk=1) as here:
        for step in (0, 1):
            here.load_weights(weights(step), step)
            expected.append(pixels({g[0].sample_id: g for g in here.generate(samples, 2, step=step)}))

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    going = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)

    puts: list[Any] = []
    put = ray.put
    ray.put = lambda value: (puts.append(put(value)), puts[-1])[1]
    made, counted, copies = [], [], 0
    with RolloutPool(policies.LargePictures(SIDE, 0.1), actors=3, num_cpus=1, chunk=1) as pool:
        for step in (0, 1):
            puts.clear()
            pool.load_weights(weights(step), step)
            groups = {}
            for number, group in enumerate(pool.generate(samples, 2, step=step)):
                groups[group[0].sample_id] = group
                if step == 1 and number == 2:
                    copies = len(ray.experimental.get_object_locations(puts)[puts[-1]]["node_ids"])
                    cluster.remove_node(
                        going, allow_graceful=False
                    )  # its actor is at work, and what it made lies there
            counted.append(len(puts))
            made.append(groups)
        replaced = pool.replaced
    outputs = [output for groups in made for group in groups.values() for output in group]
    same = all(
        a.keys() == b.keys() and all(np.array_equal(x, y) for key in a for x, y in zip(a[key], b[key], strict=True))
        for a, b in zip(expected, [pixels(groups) for groups in made], strict=True)
    )
    print(
        json.dumps(
            {
                "puts": counted,
                "copies": copies,
                "replaced": replaced,
                "lost": sum(output.lost is not None for output in outputs),
                "outputs": [sum(len(group) for group in groups.values()) for groups in made],
                "same": same,
            }
        )
    )
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
