"""How fast and how steadily the reward service answers, with the load generator beside it on the same machine.

    python benchmarks/serving.py                 # rates and latencies
    python benchmarks/serving.py --minutes 10    # and a soak with 1 % malformed and 1 % oversized requests

Every answer is compared with what rsw.Reward says without HTTP; a different one ends the benchmark. Needs the extra [serve].
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import psutil

import rsw_rewards as rsw
from rsw_rewards.encoders import SCENE_CLIP
from rsw_rewards.serve.deployment import Plan, start, stop
from rsw_rewards.serve.entries import dumped, output_entry, result_entry, sample_entry
from rsw_rewards.serve.wire import Limits

TOKEN = "only for this benchmark"
TEXTS = ["yes", "no", "<think>roofs</think> yes", "maybe"]
QUESTION = rsw.Sample("q", "change_qa", reference={"answers": ["yes"], "vocabulary": ["yes", "no"]})
BODY_MIB = 8


def served(rubric: Any, **plan: Any) -> str:
    """The address of a service at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    plan = {"port": port, "num_cpus": 0.5, **plan}
    return start(rubric, token=TOKEN, plan=Plan(**plan), limits=Limits(body=BODY_MIB << 20))


def body_of(outputs: list[rsw.Output], samples: list[rsw.Sample]) -> bytes:
    known = {id(sample): place for place, sample in enumerate(samples)}
    sent = [samples[place] for place in sorted(set(known.values()))]
    places = {id(sample): place for place, sample in enumerate(sent)}
    items = [
        {"sample": places[id(sample)], "group": number, **output_entry(output)}
        for number, (output, sample) in enumerate(zip(outputs, samples, strict=True))
    ]
    return dumped({"items": items, "samples": [sample_entry(sample) for sample in sent]})


def expected(results: list[rsw.Result]) -> list[Any]:
    return json.loads(dumped([result_entry(result)["reward"] for result in results]))


def load(url: str, requests: list[tuple[bytes, list[Any]]], flights: int, seconds: float) -> tuple[float, np.ndarray]:
    """Items a second, and the latency of each request in milliseconds. Every reward must be the expected one."""
    latencies: list[float] = []
    items = [0] * flights
    end = time.perf_counter() + seconds

    def ask(flight: int) -> None:
        with httpx.Client(headers={"authorization": f"Bearer {TOKEN}"}, timeout=120) as client:
            number = flight
            while time.perf_counter() < end:
                body, right = requests[number % len(requests)]
                number += flights
                begun = time.perf_counter()
                answer = client.post(url + "/v1/score", content=body)
                latencies.append(time.perf_counter() - begun)
                found = [item["reward"] for item in answer.json()["items"]]
                if found != right:
                    raise SystemExit(f"wrong answer: {answer.text[:300]}")
                items[flight] += len(right)

    begun = time.perf_counter()
    with ThreadPoolExecutor(flights) as pool:
        for done in [pool.submit(ask, flight) for flight in range(flights)]:
            done.result()
    return sum(items) / (time.perf_counter() - begun), np.array(latencies) * 1e3


def show(what: str, rate: float, unit: str, latencies: np.ndarray) -> None:
    p50, p99 = np.percentile(latencies, [50, 99])
    print(
        f"{what:48} {rate:9.1f} {unit}   p50 {p50:7.1f} ms   p99 {p99:7.1f} ms   {len(latencies)} requests", flush=True
    )


def texts(seconds: float) -> None:
    reward = rsw.Reward({"exact_match": 1.0})
    url = served({"exact_match": 1.0})
    outputs = [rsw.Output("q", text=text) for text in TEXTS * 16]
    many = body_of(outputs, [QUESTION] * 64), expected(reward.many(outputs, [QUESTION] * 64, range(64)))
    ones = [
        (body_of([rsw.Output("q", text=text)], [QUESTION]), expected([reward.one(text, QUESTION)])) for text in TEXTS
    ]
    load(url, [many], 4, min(3.0, seconds))
    show("exact_match, 64 items a request, 4 in flight", *_with(load(url, [many], 4, seconds), "items/s"))
    show("exact_match, 1 item a request, 4 in flight", *_with(load(url, ones, 4, seconds), "requests/s"))


def _with(found: tuple[float, np.ndarray], unit: str) -> tuple[float, str, np.ndarray]:
    return found[0], unit, found[1]


def clip(rubric: rsw.Rubric) -> None:
    """CLIP alignment of 64 x 64 images, over HTTP and without."""
    rng = np.random.default_rng(0)
    samples = [
        rsw.Sample(str(number), "forecast", prompt="new houses along the road", images=[picture], reference={"images": [picture]})
        for number, picture in enumerate(rng.integers(0, 256, (4, 64, 64, 3)).astype(np.uint8))
    ]  # fmt: skip
    batches = []
    for _ in range(32):  # new images each, since features of images that were seen are kept
        pictures = rng.integers(0, 256, (32, 64, 64, 3)).astype(np.uint8)
        outputs = [rsw.Output(image=picture) for picture in pictures]
        batches.append((outputs, [samples[number % 4] for number in range(32)]))
    with rsw.Reward(rubric) as reward:
        reward.warm()
        first = expected(reward.many(*batches[0], range(32)))
        begun = time.perf_counter()
        right = [reward.many(outputs, asked, range(32)) for outputs, asked in batches[1:]]
        alone = 32 * len(right) / (time.perf_counter() - begun)
    print(f"{'CLIP of 64 x 64, 32 a call, without HTTP':48} {alone:9.1f} items/s", flush=True)
    url = served(rubric)
    requests = [
        (body_of(outputs, asked), expected(found)) for (outputs, asked), found in zip(batches[1:], right, strict=True)
    ]
    once(url, [(body_of(*batches[0]), first)], 1)
    rate, latencies = once(url, requests, 4)
    show("CLIP of 64 x 64, 32 a request, 4 in flight", rate, "items/s", latencies)
    print(f"{'':48} {rate / alone:9.2f} of the rate without HTTP", flush=True)


def once(url: str, requests: list[tuple[bytes, list[Any]]], flights: int) -> tuple[float, np.ndarray]:
    """Each request once. A value may differ in the last bits, since a batch of another size sums in another order."""
    latencies = []

    def ask(request: tuple[bytes, list[Any]]) -> int:
        begun = time.perf_counter()
        answer = client.post(url + "/v1/score", content=request[0])
        latencies.append(time.perf_counter() - begun)
        found = [item["reward"] for item in answer.json()["items"]]
        if not np.allclose(found, request[1], rtol=0, atol=1e-5):
            raise SystemExit(f"wrong answer: {answer.text[:300]}")
        return len(found)

    client = httpx.Client(headers={"authorization": f"Bearer {TOKEN}"}, timeout=300)
    begun = time.perf_counter()
    with client, ThreadPoolExecutor(flights) as pool:
        items = sum(pool.map(ask, requests))
    return items / (time.perf_counter() - begun), np.array(latencies) * 1e3


def soak(minutes: float) -> None:
    """Load with 1 % malformed and 1 % oversized requests: nobody else's request may fail, and memory must stay."""
    reward = rsw.Reward({"exact_match": 1.0})
    url = served({"exact_match": 1.0})
    outputs = [rsw.Output("q", text=text) for text in TEXTS * 4]
    good, right = body_of(outputs, [QUESTION] * 16), expected(reward.many(outputs, [QUESTION] * 16, range(16)))
    malformed = [
        b"{",
        b"[" * 5000,
        b'{"items":[{"image":{"path":"/etc/passwd"}}]}',
        good[:-5],
        good.replace(b'"yes"', b"1e999"),
    ]
    oversized = b" " * ((BODY_MIB << 20) + 1)
    seen: Counter[str] = Counter()
    latencies: list[float] = []
    end = time.monotonic() + 60 * minutes

    def ask(flight: int) -> None:
        chance = random.Random(flight)
        with httpx.Client(headers={"authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
            while time.monotonic() < end:
                drawn = chance.random()
                body = chance.choice(malformed) if drawn < 0.01 else oversized if drawn < 0.02 else good
                begun = time.perf_counter()
                try:
                    answer = client.post(url + "/v1/score", content=body)
                except httpx.TransportError as error:  # a server may close before it has read an oversized body
                    seen[f"{'good' if body is good else 'bad'}: {type(error).__name__}"] += 1
                    continue
                if body is good:
                    latencies.append(time.perf_counter() - begun)
                    same = answer.status_code == 200 and [i["reward"] for i in answer.json()["items"]] == right
                    seen["good: right" if same else f"good: WRONG {answer.status_code} {answer.text[:80]}"] += 1
                else:
                    seen[f"bad: {answer.status_code}"] += 1

    threads = [threading.Thread(target=ask, args=(flight,)) for flight in range(4)]
    for thread in threads:
        thread.start()
    ours = psutil.Process(os.getpid())
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(30.0, max(1.0, 60 * minutes / 10)))
        sizes = {}
        for one in ours.children(recursive=True):
            try:
                name = " ".join(one.cmdline())[:60]
                if "ServeReplica" in name or "ProxyActor" in name:
                    sizes["replica" if "Replica" in name else "proxy"] = one.memory_info().rss / 2**20
            except psutil.Error:
                continue
        print("  MiB:", {name: round(size) for name, size in sizes.items()}, dict(seen), flush=True)
    show(
        f"soak of {minutes:g} minutes, 16 items a request",
        len(latencies) / minutes / 60,
        "requests/s",
        np.array(latencies) * 1e3,
    )
    if failed := {what: count for what, count in seen.items() if what.startswith("good") and what != "good: right"}:
        raise SystemExit(f"requests failed: {failed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--minutes", type=float, default=0.0, help="of the soak; 0 leaves it out")
    parser.add_argument("--only", choices=("texts", "clip", "soak"))
    parser.add_argument("--encoder", default=SCENE_CLIP, help="of the CLIP alignment")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}", flush=True)
    parts: dict[str, Callable[[], None]] = {
        "texts": lambda: texts(given.seconds),
        "clip": lambda: clip(rsw.Rubric([rsw.Component(use="clip_score", config={"encoder": given.encoder})])),
        "soak": lambda: soak(given.minutes),
    }
    for name, part in parts.items():
        if given.only in (None, name) and (name != "soak" or given.minutes):
            part()
            stop()


if __name__ == "__main__":
    main()
