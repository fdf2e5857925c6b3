"""RemoteReward: what rsw.Reward says, bit by bit, through HTTP; and what becomes of a service that is busy, gone or closed to it."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.serve.front import FrontSettings, digest
from rsw_rewards.serve.wire import Limits
from tests.serve.served import TOKEN, served

RNG = np.random.default_rng(0)
YES = {"answers": ["yes"], "vocabulary": ["yes", "no"]}
QUESTIONS = [rsw.Sample(f"q{number}", "change_qa", reference=YES) for number in range(3)]
TEXTS: list[Any] = ["yes", "no", "<think>roofs</think> yes", None, "maybe", {"text": "yes", "finish_reason": "length"}]


def same(found: list[rsw.Result], expected: list[rsw.Result]) -> None:
    """Every number to the last bit, every status and reason."""
    assert found == expected
    for one, other in zip(found, expected, strict=True):
        assert one.reward is other.reward or one.reward.hex() == other.reward.hex()  # type: ignore[union-attr]
        for label, score in one.parts.items():
            raw = other.parts[label].raw
            assert {key: float(value).hex() for key, value in score.raw.items()} == {
                key: float(value).hex() for key, value in raw.items()
            }


@pytest.fixture(scope="module")
def answers() -> Iterator[str]:
    with served({"exact_match": 0.9, "answer_format": 0.1}, QUESTIONS) as url:
        yield url


def test_texts_score_as_without_http(answers: str) -> None:
    outputs, samples = TEXTS * 3, [sample for sample in QUESTIONS for _ in TEXTS]
    with rsw.RemoteReward(answers, TOKEN) as remote, rsw.Reward({"exact_match": 0.9, "answer_format": 0.1}) as local:
        remote.warm()
        same(remote.many(outputs, samples), local.many(outputs, samples))
        same([remote.one("yes", QUESTIONS[0])], [local.one("yes", QUESTIONS[0])])
        assert remote.rubric == local.rubric and remote.needs_groups == local.needs_groups == ""

        async def together() -> list[Any]:
            return await asyncio.gather(
                *(remote.aone(text, QUESTIONS[0]) for text in TEXTS), remote.amany(["no"], QUESTIONS[:1])
            )

        *ones, many = asyncio.run(together())
        same([*ones, *many], [local.one(text, QUESTIONS[0]) for text in [*TEXTS, "no"]])


def test_an_id_names_a_sample_of_the_service(answers: str) -> None:
    with rsw.RemoteReward(answers, TOKEN, by_id=True) as remote:
        assert remote.one("yes", rsw.Sample("q1", "change_qa")).reward == 1.0
        with pytest.raises(rsw.InputError, match="'other' is the id of none of the service's 3 samples"):
            remote.one("yes", rsw.Sample("other", "change_qa"))


def test_large_calls_are_parts_in_which_groups_stay_whole() -> None:
    rubric = rsw.Rubric({"exact_match": 1.0, "answer_format": 1.0}, combine="normalize_each")
    outputs = [text for text in ("yes", "no", "yes", "maybe") for _ in range(6)]
    samples, groups = [QUESTIONS[0]] * 24, [number % 6 for number in range(24)]
    with (
        served(rubric, limits=Limits(items=9)) as url,
        rsw.RemoteReward(url, TOKEN) as remote,
        rsw.Reward(rubric) as local,
    ):
        same(remote.many(outputs, samples, groups), local.many(outputs, samples, groups))
        with pytest.raises(rsw.InputError, match="a group has 24 outputs; the service takes 9"):
            remote.many(outputs, samples)
        with pytest.raises(rsw.ConfigError, match="normalises each component within a group"):
            remote.one("yes", QUESTIONS[0])


def rasters() -> tuple[rsw.Sample, list[Any]]:
    """13 bands as float32 and as uint16, with a nodata value and clouds."""
    before, after = (RNG.uniform(0, 0.6, (20, 24, 13)).astype(np.float32) for _ in range(2))
    shown = {"bands": (3, 2, 1), "stretch": [(0.0, 0.6)] * 13, "nodata": -1.0}
    after[0, 0] = -1.0
    valid = np.ones((20, 24), bool)
    valid[:2] = False
    sample = rsw.Sample(
        "r", "forecast", images=(rsw.image(before, **shown),), prompt="greener fields",
        reference={"images": [rsw.image(after, **shown)], "valid": valid},
    )  # fmt: skip
    return sample, [rsw.image(pixels, **shown) for pixels in (after, before, (after + before) / 2)]


def test_rasters_of_13_bands_score_as_without_http() -> None:
    sample, outputs = rasters()
    rubric = {"gain_over_copy": 0.5, "ssim": 0.3, "psnr": 0.2}
    with served(rubric) as url, rsw.RemoteReward(url, TOKEN) as remote, rsw.Reward(rubric) as local:
        expected = local.many(outputs, [sample] * 3)
        assert len({result.reward for result in expected}) == 3 and None not in {one.reward for one in expected}
        same(remote.many(outputs, [sample] * 3), expected)


def test_images_masks_and_boxes_score_as_without_http(tmp_path: Path) -> None:
    before, after, large = (
        RNG.integers(0, 256, shape).astype(np.uint8) for shape in ((16, 16, 3), (16, 16, 3), (200, 200, 3))
    )
    Image.fromarray(before).save(tmp_path / "before.png")
    Image.fromarray(after).convert("P").save(tmp_path / "palette.png")
    np.save(tmp_path / "after.npy", after)
    truth = np.zeros((8, 8), bool)
    truth[2:5] = True
    cases: list[tuple[str, rsw.Sample, Any]] = [
        ("gain_over_copy", rsw.Sample("f", "forecast", images=(tmp_path / "before.png",), reference={"images": [tmp_path / "after.npy"]}), output)
        for output in (Image.fromarray(after), tmp_path / "palette.png", [before, after], {"invalid": "the policy said so"})
    ]  # fmt: skip
    cases += [
        ("gain_over_copy", rsw.Sample("l", "forecast", images=(large,), reference={"images": [large]}), large),
        ("change_mask", rsw.Sample("m", "change_mask", reference={"mask": truth}), np.roll(truth, 1, 0)),
        ("change_mask", rsw.Sample("p", "change_mask", reference={"mask": truth}), rsw.image(truth * 0.7, threshold=0.5)),
        ("box_iou", rsw.Sample("g", "grounding", reference={"boxes": [[0, 0, 4, 4]]}), [[1, 0.5, 4, 4.25]]),
    ]  # fmt: skip
    for name, sample, output in cases:
        with served(name) as url, rsw.RemoteReward(url, TOKEN) as remote, rsw.Reward(name) as local:
            same([remote.one(output, sample)], [local.one(output, sample)])


def test_what_would_be_read_otherwise_is_refused_before_it_travels(tmp_path: Path) -> None:
    seen = RNG.integers(0, 255, (8, 8, 4)).astype(np.uint8)
    seen[:3, :, 3] = 0
    Image.fromarray(seen, "RGBA").save(tmp_path / "clear.png")
    sample = rsw.Sample("f", "forecast", images=(seen[..., :3],), reference={"images": [tmp_path / "clear.png"]})
    with served("gain_over_copy") as url, rsw.RemoteReward(url, TOKEN) as remote:
        with pytest.raises(rsw.InputError, match="a mask or an alpha band, which does not travel"):
            remote.one(seen[..., :3], sample)
        with pytest.raises(rsw.InputError, match="has no declared range"):
            remote.one(np.zeros((8, 8, 3)), sample)


@rsw.verifier(tasks="change_qa")
def broken(sample: rsw.Sample, output: rsw.Output) -> float:
    """Fails for some texts."""
    if output.text == "no":
        raise ValueError(f"{Path(__file__).parents[2]}/secret broke")
    return 1.0


def test_a_failure_is_a_status_and_never_a_zero() -> None:
    with served(broken) as url, rsw.RemoteReward(url, TOKEN) as remote:
        fine, failed = remote.many(["yes", "no"], [QUESTIONS[0]] * 2)
        assert fine.reward == 1.0 and failed.reward is None
        assert failed.parts["broken"].status is rsw.Status.ERROR and failed.parts["broken"].value is None
        assert "secret broke" in failed.reason and str(Path(__file__).parents[2]) not in repr(failed)


def test_threads_and_a_pickled_copy_use_it(answers: str) -> None:
    with rsw.RemoteReward(answers, TOKEN) as remote, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: remote.one(text, QUESTIONS[0]).reward, ["yes", "maybe"] * 20))
        assert found == [1.0, 0.1] * 20
        with pickle.loads(pickle.dumps(remote)) as copy:
            assert copy.one("yes", QUESTIONS[0]).reward == 1.0
    with pytest.raises(rsw.ConfigError, match="closed"):
        remote.one("yes", QUESTIONS[0])


def test_a_forked_process_has_connections_of_its_own(answers: str) -> None:
    with rsw.RemoteReward(answers, TOKEN) as remote:
        remote.warm()
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            os.write(writer, str(remote.one("yes", QUESTIONS[0]).reward).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 100) == b"1.0"
        assert remote.one("no", QUESTIONS[0]).reward == pytest.approx(0.1)


def test_the_token_is_asked_for(answers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSW_SERVE_TOKEN", "another one")
    with pytest.raises(rsw.ConfigError, match="does not take the token"):
        rsw.RemoteReward(answers).warm()
    monkeypatch.setenv("RSW_SERVE_TOKEN", TOKEN)
    rsw.RemoteReward(answers).warm()


class Moody(BaseHTTPRequestHandler):
    """Busy, then gone, then another's error page, then an answer."""

    answers: list[tuple[int, str]] = []
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, body = type(self).answers.pop(0)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *unused: Any) -> None:
        pass


@pytest.fixture
def moody() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_busy_or_broken_service_is_asked_again(moody: str) -> None:
    busy = '{"error": {"type": "busy", "message": "16 requests are waiting"}}'
    about = '{"wire": 1, "needs_groups": ""}'
    Moody.answers = [(429, busy), (0, ""), (502, "<html>"), (503, ""), (200, about)]
    assert rsw.RemoteReward(moody, "").needs_groups == ""
    assert not Moody.answers
    Moody.answers = [(429, busy)] * 3
    with pytest.raises(rsw.RunStopped, match=r"no answer in 3 tries \(16 requests are waiting"):
        rsw.RemoteReward(moody, "", retries=2).warm()
    Moody.answers = [(404, "<html>nothing here</html>")]
    with pytest.raises(rsw.ConfigError, match="is no reward service"):
        rsw.RemoteReward(moody, "").warm()
    Moody.answers = [(200, '{"wire": 99}')]
    with pytest.raises(rsw.ConfigError, match="install one version on both"):
        rsw.RemoteReward(moody, "").needs_groups  # noqa: B018


def test_bodies_over_the_limit_are_refused_while_they_come(answers: str) -> None:
    settings = FrontSettings(digest(TOKEN), body=2000)
    with served("exact_match", front=settings) as url, rsw.RemoteReward(url, TOKEN) as remote:
        assert remote.one("yes", QUESTIONS[0]).reward == 1.0
        with pytest.raises(rsw.InputError, match="more than 2,000 bytes"):
            remote.one("yes" * 1000, QUESTIONS[0])


def test_adapters_take_a_service_in_place_of_a_rubric(answers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsw_rewards.integrations.adapter import Adapter
    from rsw_rewards.integrations.easyr1 import compute_score

    monkeypatch.setenv("RSW_SERVE_TOKEN", TOKEN)
    rows = [{"response": text, "response_length": 3, "ground_truth": "q0"} for text in ("yes", "no", "maybe")]
    local = compute_score(
        rows, rubric={"exact_match": 0.9, "answer_format": 0.1}, samples=QUESTIONS, max_response_length=9
    )
    assert [row["overall"] for row in local] == pytest.approx([1.0, 0.1, 0.1])
    assert compute_score(rows, rubric=answers, samples=QUESTIONS, max_response_length=9) == local
    adapter = Adapter(rsw.RemoteReward(answers), QUESTIONS)
    assert adapter.labels == ["exact_match", "answer_format"]
    assert adapter.reward.many(["yes"], [adapter.sample("q1")])[0].reward == 1.0
    with pytest.raises(rsw.ConfigError, match="device: give these where the Reward is made"):
        Adapter(answers, QUESTIONS, device="cuda")
