"""RolloutPool: replicas of a policy in Ray actors (or in this process) that turn samples into groups of outputs.

The work is cut into fixed chunks whose seeds derive from run, step, sample and candidate. A chunk is therefore the same work
whoever does it: a killed actor is replaced and its chunk gives the same rollouts elsewhere, and no actor at all gives them too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.engine.workers import Done, Workers
from rsw_rewards.errors import RswError, RunStopped
from rsw_rewards.rollouts.policy import Policy, Request, request_seed
from rsw_rewards.rollouts.replica import Replica, torch_threads, with_refs
from rsw_rewards.rollouts.weights import pack_weights

if TYPE_CHECKING:
    import torch


@dataclass(slots=True)
class _Chunk:
    """Whole groups that one replica makes in one call."""

    requests: list[Request]
    candidates: int
    failures: int = 0


class RolloutPool:
    """Runs a policy on samples.

    Args:
        policy: what to run; pickled to the actors before its weights are loaded.
        actors: replicas in Ray actors; 0 runs the policy in this process.
        num_gpus: share of a GPU per actor; fractions put several replicas on one card.
        num_cpus: what an actor asks of Ray's scheduler; small, so that rollouts and scoring fit on few cores.
        threads: torch threads per replica. Part of the arithmetic: other numbers may give other roundings.
        chunk: groups per call of a replica. Also part of the arithmetic, because the shape of a batch is.
        retries: how often a chunk is tried again after its actor died or hung. What raises is tried again sample by sample.
        timeout_s: a chunk that takes longer counts as hung and its actor is replaced. None waits for ever.
        device: where replicas run; ``"cuda"`` when actors have a share of a GPU, else ``"cpu"``, unless given.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        actors: int = 1,
        num_gpus: float = 0.0,
        num_cpus: float = 0.5,
        threads: int = 1,
        chunk: int = 4,
        retries: int = 2,
        timeout_s: float | None = None,
        device: str | None = None,
    ) -> None:
        self.policy = policy
        self.chunk = chunk
        self.retries = retries
        self.version = 0
        self._threads = threads
        setup = (policy, device or ("cuda" if num_gpus else "cpu"), threads)
        self._here: Replica | None = None
        self._workers: Workers[_Chunk] | None = None
        if actors == 0:
            self._here = Replica()
            with torch_threads(threads):
                self._here.setup(*setup)
        else:
            self._workers = Workers(
                Replica,
                setup,
                actors,
                called=f"the policy {policy.name!r}",
                limit_s=timeout_s,
                answers=2,
                num_gpus=num_gpus,
                num_cpus=num_cpus,
            )

    @property
    def replaced(self) -> int:
        """Actors that died or hung and were replaced."""
        return self._workers.replaced if self._workers is not None else 0

    def __enter__(self) -> RolloutPool:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Give every replica new weights; rollouts carry ``version`` from now on.

        With actors the weights go into the object store once and each node fetches them once. Calls of one actor run in order,
        so nothing generated after this uses older weights (and a replica refuses to, should a load have failed).
        """
        packed = pack_weights(weights)
        self.version = version
        if self._workers is None:
            assert self._here is not None
            self._here.update(packed, version)
            return
        import ray

        self._workers.update(ray.put(packed), version)

    def generate(
        self,
        samples: Sequence[Sample],
        candidates: int = 1,
        temperature: float = 1.0,
        run_seed: int = 0,
        step: int = 0,
        chunk: int | None = None,
    ) -> Iterator[list[Output]]:
        """Yield one group (``candidates`` outputs of one sample, in order) at a time, as chunks finish.

        ``chunk`` replaces the pool's own number of groups per call: evaluation, with one candidate each, wants more.

        Pixels made in actors stay in the object store. Work that could not be done after all retries comes back as outputs with
        ``lost`` set.

        Raises:
            RunStopped: everything was lost, so going on would train or score on nothing.
        """
        requests = [
            [
                Request(sample, number, request_seed(run_seed, step, sample.id, number), temperature)
                for number in range(candidates)
            ]
            for sample in samples
        ]
        chunks = _cut(requests, chunk or self.chunk)
        done = self._in_process(chunks) if self._workers is None else self._on_actors(self._workers, chunks)
        lost = 0
        for part, outputs in done:
            lost += sum(output.lost is not None for output in outputs)
            if chunks and lost == len(samples) * candidates:
                raise RunStopped(f"no rollout could be made: {outputs[0].lost}")
            for start in range(0, len(outputs), part.candidates):
                yield outputs[start : start + part.candidates]

    def _in_process(self, chunks: Sequence[_Chunk]) -> Iterator[tuple[_Chunk, list[Output]]]:
        assert self._here is not None
        for chunk in chunks:
            with torch_threads(self._threads):
                outputs = self._here.made(chunk.requests, self.version)
            yield chunk, outputs

    def _on_actors(self, workers: Workers[_Chunk], chunks: Sequence[_Chunk]) -> Iterator[tuple[_Chunk, list[Output]]]:
        workers.warm()
        waiting = deque(chunks)
        try:
            while waiting or workers.busy:
                while waiting and workers.idle:
                    chunk = waiting.popleft()
                    workers.give(chunk, chunk.requests, self.version)
                for done in workers.wait():
                    chunk = done.work
                    if done.end == "answered":
                        yield chunk, [with_refs(output, done.refs[1]) for output in done.values[0]]
                        continue
                    failure = _failure(done, workers.limit_s)
                    chunk.failures += 1
                    if chunk.failures <= self.retries:
                        waiting.appendleft(chunk)
                    else:
                        yield chunk, [_lost(request, self.version, failure) for request in chunk.requests]
        finally:
            workers.abandon()

    def close(self) -> None:
        """Stop the actors. Pixels of outputs already made stay readable: this process owns them."""
        if self._workers is not None:
            self._workers.close()


def _failure(done: Done[_Chunk], limit_s: float | None) -> str:
    """Why a chunk gave nothing. Raises what the policy raised to stop the run: bad input stays bad, whoever reads it."""
    if done.end == "late":
        return f"a rollout actor did not answer within {limit_s:g} s and was replaced"
    if done.end == "died":
        return f"a rollout actor died ({str(done.error).splitlines()[0]})"
    if isinstance(done.error, RswError):
        raise done.error from None
    return f"the policy failed: {done.error!r}"


def _cut(groups: Sequence[list[Request]], size: int) -> list[_Chunk]:
    """Chunks of one task each: a policy makes short answers and long images in different ways. Images, which take longest, go first."""
    by_task: dict[str, list[list[Request]]] = {}
    for group in groups:
        by_task.setdefault(str(group[0].sample.task), []).append(group)
    chunks: list[_Chunk] = []
    for task in sorted(by_task, key=lambda name: (name != "forecast", name)):
        for start in range(0, len(by_task[task]), size):
            part = by_task[task][start : start + size]
            chunks.append(_Chunk([request for group in part for request in group], len(part[0])))
    return chunks


def _lost(request: Request, version: int, reason: str) -> Output:
    return Output(request.sample.id, request.candidate, lost=reason, seed=request.seed, policy_version=version)
