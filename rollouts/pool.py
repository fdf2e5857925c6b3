"""RolloutPool: replicas of a policy in Ray actors (or in this process) that turn samples into groups of outputs.

The work is cut into fixed chunks whose seeds derive from run, step, sample and candidate. A chunk is therefore the same work
whoever does it: a killed actor is replaced and its chunk gives the same rollouts elsewhere, and no actor at all gives them too.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import RswError, RunStopped
from rsw_rewards.extras import has
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.policy import Policy, Request, outputs_of, request_seed, set_up
from rsw_rewards.rollouts.weights import pack_weights, unpack_weights

if TYPE_CHECKING:
    import torch
    from ray import ObjectRef

START_TIMEOUT_S = 300
"""How long the first actors may take to load their weights."""

_Running = dict[Any, tuple[int, "_Chunk", Any, float]]
"""What was asked of actors: place, chunk, reference of its outputs and when, by the reference of its pixels."""

_IMAGE_FIELDS = tuple(item.name for item in fields(Output) if "ImageRef" in str(item.type))


@dataclass(slots=True)
class _Chunk:
    """Whole groups that one replica makes in one call."""

    number: int
    requests: list[Request]
    candidates: int
    failures: list[str] = field(default_factory=list)


class _Replica:
    """One copy of the policy. Runs in an actor, or in this process for a pool without actors."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.version = 0

    def setup(self, device: str, threads: int) -> None:
        """Load the policy. Apart from ``__init__``, whose errors Ray reports without their cause."""
        set_up(self.policy, device, threads)

    def load(self, packed: Mapping[str, Any], version: int) -> None:
        """Take weights out of the object store; what is read there is shared and read-only, so it is copied."""
        self.policy.load_weights(unpack_weights(packed), version)
        self.version = version

    def generate(self, requests: Sequence[Request], version: int) -> tuple[list[Output], list[np.ndarray]]:
        """Outputs whose images are indices into the second list. Raises when the weights are not those asked for."""
        if self.version != version:
            raise RuntimeError(f"this replica holds version {self.version} of the weights, not {version}")
        outputs = [_sane(output) for output in outputs_of(self.policy, requests)]
        pixels: list[np.ndarray] = []
        stamped = [
            replace(
                _without_pixels(output, pixels),
                sample_id=request.sample.id,
                candidate=request.candidate,
                seed=request.seed,
                policy_version=version,
            )
            for request, output in zip(requests, outputs, strict=True)
        ]
        return stamped, pixels


def _sane(output: Output) -> Output:
    """The output, or why it is none: tokens drawn from what is no distribution would be scored like any others."""
    if output.tokens is None or np.isfinite(output.tokens.logprobs).all():
        return output
    why = "the policy's probabilities are not numbers, so its weights or logits are not finite; go back to an earlier checkpoint"
    return Output(output.sample_id, output.candidate, lost=why)


def _without_pixels(output: Output, pixels: list[np.ndarray]) -> Output:
    """Move the arrays of an output into ``pixels``; its references then hold an index and the hash of the content."""

    def move(image: ImageRef) -> ImageRef:
        if image.array is None:
            return image
        pixels.append(image.array)
        return replace(image, array=None, index=len(pixels) - 1, sha256=image.sha256 or content_hash(image.array))

    return _map_images(output, move)


def _map_images(output: Output, change: Any) -> Output:
    changed: dict[str, Any] = {}
    for name in _IMAGE_FIELDS:
        value = getattr(output, name)
        if isinstance(value, ImageRef):
            changed[name] = change(value)
        elif value is not None:
            changed[name] = tuple(change(image) for image in value)
    return replace(output, **changed) if changed else output


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
        self.timeout_s = timeout_s
        self.version = 0
        self._closed = False
        self.replaced = 0
        """Actors that died or hung and were replaced."""
        self._setup = (device or ("cuda" if num_gpus else "cpu"), threads)
        self._options = {"num_gpus": num_gpus, "num_cpus": num_cpus, "max_concurrency": 1}
        self._packed: Any = None
        self._local: _Replica | None = None
        self._actors: list[Any] = []
        self._starting: list[Any] = []
        self._coming: dict[ObjectRef, tuple[int, float]] = {}
        """Places of replacements that are not ready yet, and since when, by what they will answer."""
        if actors == 0:
            self._local = _Replica(policy)
            with _torch_threads(threads):
                self._local.setup(*self._setup)
            return
        from rsw_rewards.engine.cluster import ensure_ray

        ensure_ray()
        for _ in range(actors):
            actor, ready = self._start()
            self._actors.append(actor)
            self._starting.append(ready)

    def __enter__(self) -> RolloutPool:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _start(self) -> tuple[Any, ObjectRef]:
        import ray

        actor: Any = ray.remote(_Replica).options(**self._options).remote(self.policy)
        ready = actor.setup.remote(*self._setup)
        if self._packed is not None:
            actor.load.remote(self._packed, self.version)
        return actor, ready

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Give every replica new weights; rollouts carry ``version`` from now on.

        With actors the weights go into the object store once and each node fetches them once. Calls of one actor run in order,
        so nothing generated after this uses older weights (and a replica refuses to, should a load have failed).
        """
        packed = pack_weights(weights)
        self.version = version
        if self._local is not None:
            self._local.load(packed, version)
            return
        import ray

        self._packed = ray.put(packed)
        for actor in self._actors:
            actor.load.remote(self._packed, version)

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
        done = self._in_process(chunks) if self._local is not None else self._on_actors(chunks)
        lost = 0
        for part, outputs in done:
            lost += sum(output.lost is not None for output in outputs)
            if chunks and lost == len(samples) * candidates:
                raise RunStopped(f"no rollout could be made: {outputs[0].lost}")
            for start in range(0, len(outputs), part.candidates):
                yield outputs[start : start + part.candidates]

    def _in_process(self, chunks: Sequence[_Chunk]) -> Iterator[tuple[_Chunk, list[Output]]]:
        assert self._local is not None
        for chunk in chunks:
            with _torch_threads(self._setup[1]):
                outputs, pixels = self._local.generate(chunk.requests, self.version)
            yield (
                chunk,
                [_map_images(output, lambda image, held=pixels: _with_array(image, held)) for output in outputs],
            )

    def _on_actors(self, chunks: Sequence[_Chunk]) -> Iterator[tuple[_Chunk, list[Output]]]:
        import ray

        self._await_start()
        waiting = deque(chunks)
        absent = {place for place, _ in self._coming.values()}
        idle = deque(place for place in range(len(self._actors)) if place not in absent)
        running: _Running = {}
        while waiting or running:
            while waiting and idle:
                place, chunk = idle.popleft(), waiting.popleft()
                outputs_ref, pixels_ref = (
                    self._actors[place].generate.options(num_returns=2).remote(chunk.requests, self.version)
                )
                running[pixels_ref] = (place, chunk, outputs_ref, time.monotonic())
            # Pixels are ready once this node's store has them: what becomes of the node that made them then costs nothing.
            ready, _ = ray.wait([*running, *self._coming], num_returns=1, timeout=self._patience(running))
            for ref in ready or self._overdue(running):
                if ref in self._coming:  # what went wrong with it, if anything, shows in its next chunk
                    idle.append(self._coming.pop(ref)[0])
                    continue
                place, chunk, outputs_ref, _ = running.pop(ref)
                failure = self._failure((outputs_ref, ref), place, overdue=not ready)
                if all(place != missing for missing, _ in self._coming.values()):
                    idle.append(place)
                if failure is None:
                    outputs = [
                        _map_images(out, lambda im, held=ref: _with_ref(im, held)) for out in ray.get(outputs_ref)
                    ]
                    yield chunk, outputs
                    continue
                chunk.failures.append(failure)
                if len(chunk.failures) <= self.retries:
                    waiting.appendleft(chunk)
                else:
                    yield chunk, [_lost(request, self.version, failure) for request in chunk.requests]
            if waiting and not running and not idle:
                self._check_replacements()

    def _await_start(self) -> None:
        """Wait for the first actors, so that what stops all of them (no weights, no free GPU) is said once and plainly."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError, RayTaskError

        starting, self._starting = self._starting, []
        try:
            ray.get(starting, timeout=START_TIMEOUT_S)
        except RayTaskError as error:
            if isinstance(error.cause, RswError):
                raise error.cause from None
            raise RunStopped(f"the policy {self.policy.name!r} cannot be loaded: {error.cause!r}") from error
        except GetTimeoutError:
            raise RunStopped(
                f"the rollout actors did not start within {START_TIMEOUT_S} s; each asks for {self._options}, "
                f"Ray has {ray.available_resources()} free"
            ) from None
        except RayError as error:
            raise RunStopped(f"the rollout actors died while loading the policy: {error}") from error

    def _check_replacements(self) -> None:
        """Raise :class:`RunStopped` where nobody is left to work and nobody comes."""
        import ray

        if all(time.monotonic() - since > START_TIMEOUT_S for _, since in self._coming.values()):
            raise RunStopped(
                f"all rollout actors were lost, and none could be started again within {START_TIMEOUT_S} s; each asks for "
                f"{self._options}, Ray has {ray.available_resources()} free"
            )

    def _patience(self, running: _Running) -> float | None:
        """Seconds until somebody must be looked after."""
        if not running:
            return 5.0  # only replacements are waited for
        if self.timeout_s is None:
            return None
        oldest = min(started for *_, started in running.values())
        return max(0.0, oldest + self.timeout_s - time.monotonic())

    def _overdue(self, running: _Running) -> list[Any]:
        now = time.monotonic()
        return [ref for ref, (*_, began) in running.items() if self.timeout_s and now - began >= self.timeout_s]

    def _failure(self, refs: tuple[ObjectRef, ObjectRef], place: int, overdue: bool) -> str | None:
        """Why a chunk gave nothing, or None; its actor is replaced unless it is alive and only its task failed."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        if overdue:
            self._replace(place)
            return f"a rollout actor did not answer within {self.timeout_s:g} s and was replaced"
        try:
            ray.get(list(refs))  # arrays are looked at where they lie, not copied
            return None
        except RayTaskError as error:
            if isinstance(error.cause, RswError):  # bad input stays bad, whoever reads it
                raise error.cause from None
            return f"the policy failed: {error.cause!r}"
        except RayError as error:
            self._replace(place)
            return f"a rollout actor died ({str(error).splitlines()[0]})"

    def _replace(self, place: int) -> None:
        import ray

        if self._closed:  # under somebody who is still waiting for rollouts in another thread
            raise RunStopped("the rollout pool was closed")
        ray.kill(self._actors[place])
        self._actors[place], ready = self._start()
        self._coming[ready] = (place, time.monotonic())
        self.replaced += 1

    def close(self) -> None:
        """Stop the actors. Pixels of outputs already made stay readable: this process owns them."""
        self._closed = True
        if self._actors:
            import ray

            for actor in self._actors:
                ray.kill(actor)
            self._actors = []


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """So many torch threads inside, as many as before afterwards: this process has other work as well."""
    if not has("torch"):
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cut(groups: Sequence[list[Request]], size: int) -> list[_Chunk]:
    """Chunks of one task each: a policy makes short answers and long images in different ways. Images, which take longest, go first."""
    by_task: dict[str, list[list[Request]]] = {}
    for group in groups:
        by_task.setdefault(str(group[0].sample.task), []).append(group)
    chunks: list[_Chunk] = []
    for task in sorted(by_task, key=lambda name: (name != "forecast", name)):
        for start in range(0, len(by_task[task]), size):
            part = by_task[task][start : start + size]
            chunks.append(_Chunk(len(chunks), [request for group in part for request in group], len(part[0])))
    return chunks


def _with_array(image: ImageRef, pixels: Sequence[np.ndarray]) -> ImageRef:
    return image if image.path is not None else replace(image, array=pixels[image.index], index=0)


def _with_ref(image: ImageRef, pixels: ObjectRef) -> ImageRef:
    return image if image.path is not None else replace(image, ref=pixels)


def _lost(request: Request, version: int, reason: str) -> Output:
    return Output(request.sample.id, request.candidate, lost=reason, seed=request.seed, policy_version=version)
