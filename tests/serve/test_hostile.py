"""Hostile requests: each is refused by a sentence of a known type, nothing is opened or reached, and the next request is answered."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import pickle
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.serve.front import Front, FrontSettings, digest, token_of
from rsw_rewards.serve.service import Service
from rsw_rewards.serve.wire import Limits

TOKEN = "a token of some length"
LIMITS = Limits(body=1 << 20, items=8, text=1000, pixels=1 << 12, values=2000, decoded=1 << 16)
QUESTION = {"task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}
GOOD = {"items": [{**QUESTION, "text": "yes"}]}
RUBRIC = {"exact_match": 0.5, "gain_over_copy": 0.5, "change_mask": 0.5, "box_iou": 0.5}


def chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npy_header(text: str, data: bytes = b"") -> bytes:
    body = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + data


def saved(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, kind)
    return stream.getvalue()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


PIXELS = np.zeros((8, 8, 3), np.uint8)
PNG = text_of(saved("PNG"))


class Opens:
    def __reduce__(self) -> Any:
        return (open, ("/etc/passwd",))


def forecast(image: Any, **about: Any) -> dict[str, Any]:
    shown = {"npy": text_of(npy(PIXELS))}
    return {
        "items": [{"task": "forecast", "images": [shown], "reference": {"images": [shown]}, "image": image, **about}]
    }


def item(**fields: Any) -> dict[str, Any]:
    return {"items": [{**QUESTION, "text": "yes", **fields}]}


def truth(**reference: Any) -> dict[str, Any]:
    return {"items": [{"task": "change_qa", "reference": reference, "text": "yes"}]}


SECRET = "/etc/passwd"
NAMES = [
    SECRET, "file:///etc/passwd", "http://169.254.169.254/latest", "https://example.com/a.png", "../../secret.png", "~/.ssh/id_rsa",
    "/vsicurl/http://example.com/a.tif", "/vsimem/a", "s3://bucket/a", "data:image/png;base64," + PNG, "plugin.py:run", "\\\\host\\share",
    "a.png\0.txt", "", "${HOME}", "$(id)", "`id`", "/dev/zero", "/proc/self/environ",
]  # fmt: skip
BODIES: dict[str, Any] = {
    **{f"an image named {name[:30]!r}": forecast(name) for name in NAMES},
    **{f"an image at the path {name[:30]!r}": forecast({"path": name}) for name in NAMES[:8]},
    **{f"PNG bytes that are {name[:30]!r}": forecast({"png": name}) for name in NAMES[:8]},
    **{f"a true mask named {name[:30]!r}": {"items": [{"task": "change_mask", "reference": {"mask": name}, "mask": {"png": PNG}}]} for name in NAMES[:4]},
    **{f"true images named {name[:30]!r}": truth(answers=["yes"], images=[name]) for name in NAMES[:4]},
    **{f"a sample of the id {name[:30]!r}": {"items": [{"sample_id": name, "text": "yes"}]} for name in NAMES},
    "an image with bytes and a path": forecast({"png": PNG, "path": SECRET}),
    "an image with PNG and NPY": forecast({"png": PNG, "npy": PNG}),
    "an image with an unknown key": forecast({"png": PNG, "loader": "os.system"}),
    "a true image in place of a list": truth(answers=["yes"], images={"path": SECRET}),
    "a rubric in the request": {**GOOD, "rubric": "plugin.py:run"},
    "a verifier in an item": item(use="os.py:system"),
    "a pickle as NPY": forecast({"npy": text_of(pickle.dumps(Opens()))}),
    "a pickled array as NPY": forecast({"npy": text_of(npy(np.array([Opens(), None], dtype=object)))}),
    "records as NPY": forecast({"npy": text_of(npy(np.zeros((2, 2), "i4,f4")))}),
    "texts as NPY": forecast({"npy": text_of(npy(np.array([["a"]])))}),
    "complex numbers as NPY": forecast({"npy": text_of(npy(np.zeros((2, 2), complex)))}),
    "dates as NPY": forecast({"npy": text_of(npy(np.zeros((2, 2), "M8[s]")))}),
    "an NPZ as NPY": forecast({"npy": text_of(b"PK\x03\x04" + bytes(40))}),
    "an NPY that declares more than it has": forecast({"npy": text_of(npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (60, 60), }"))}),
    "an NPY that declares a terabyte": forecast({"npy": text_of(npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (400000, 400000), }"))}),
    "an NPY of negative size": forecast({"npy": text_of(npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 4), }"))}),
    "an NPY of huge dimensions": forecast({"npy": text_of(npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (9" + "9" * 40 + ", 4), }"))}),
    "an NPY without dimensions": forecast({"npy": text_of(npy(np.zeros(())))}),
    "an NPY of five dimensions": forecast({"npy": text_of(npy(np.zeros((2,) * 5)))}),
    "an NPY of many bands": forecast({"npy": text_of(npy(np.zeros((2, 2, 9000), np.float32)))}),
    "an NPY with code as header": forecast({"npy": text_of(npy_header("__import__('os').system('id')"))}),
    "an NPY with a deep header": forecast({"npy": text_of(npy_header("(" * 110))}),
    "an NPY cut in its header": forecast({"npy": text_of(npy(PIXELS)[:20])}),
    "a PNG bomb": forecast({"png": text_of(png_of(50_000, 50_000, bytes(1000)))}),
    "a PNG of more pixels than allowed": forecast({"png": text_of(png_of(65, 64, bytes(66 * 64)))}),
    "a PNG of no size": forecast({"png": text_of(png_of(0, 0))}),
    "a PNG without its pixels": forecast({"png": text_of(png_of(8, 8))}),
    "a PNG with a bomb in its text": forecast({"png": text_of(png_of(8, 8, bytes(72))[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(9 << 20))) + png_of(8, 8, bytes(72))[33:])}),
    "images that are too large together": {"items": [forecast({"npy": text_of(npy(np.zeros((60, 60), np.float32)))})["items"][0]] * 6},
    "a JPEG as PNG": forecast({"png": text_of(saved("JPEG"))}),
    "a TIFF as PNG": forecast({"png": text_of(saved("TIFF"))}),
    "an EPS as PNG": forecast({"png": text_of(b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file")}),
    "an SVG as PNG": forecast({"png": text_of(b"<svg><image href='file:///etc/passwd'/></svg>")}),
    "a PNG that is no base64": forecast({"png": "not base64!"}),
    "a PNG as a list": forecast({"png": [1, 2, 3]}),
    "a PNG that is null": forecast({"png": None}),
    "bands that are texts": forecast({"png": PNG, "bands": ["/etc/passwd"] * 3}),
    "a palette of objects": forecast({"png": PNG, "palette": [{}]}),
    "a float image without a range": forecast({"npy": text_of(npy(np.zeros((8, 8, 3))))}),
    "no items": {"items": []},
    "too many items": {"items": GOOD["items"] * 9},
    "items that are an object": {"items": {"0": GOOD["items"][0]}},
    "a body that is a list": [GOOD],
    "a body that is a text": "yes",
    "a body that is null": None,
    "a text that is a number": item(text=1),
    "a text that is a list": item(text=["yes"]),
    "a text that is too long": item(text="y" * 1001),
    "half a surrogate pair": item(text="\ud800"),
    "half a surrogate pair as a key": item(metadata={"\udfff": 1}),
    "a candidate that is a text": item(candidate="1"),
    "a candidate that is true": item(candidate=True),
    "a negative candidate": item(candidate=-1),
    "a huge candidate": item(candidate=1 << 62),
    "a group that is a list": item(group=[1]),
    "a group that is a float": item(group=0.5),
    "a group of some items alone": {"items": [item(group=1)["items"][0], item()["items"][0]]},
    "an id that is a number": item(id=7),
    "an id that is empty": item(id=""),
    "two samples in one item": item(sample_id="a"),
    "a sample that is not there": {"items": [{"sample": 0, "text": "yes"}]},
    "a negative sample": {"items": [{"sample": -1, "text": "yes"}], "samples": [QUESTION]},
    "no task": {"items": [{"reference": {"answers": ["yes"]}, "text": "yes"}]},
    "an unknown task": item(task="rm -rf"),
    "a task without a verifier": {"items": [{"task": "damage", "reference": {}}]},
    "answers that are a number": truth(answers=7),
    "boxes that are texts": {"items": [{"task": "grounding", "reference": {"boxes": [[0, 0, 1, 1]]}, "boxes": [["a"] * 4]}]},
    "boxes of three numbers": {"items": [{"task": "grounding", "reference": {"boxes": [[0, 0, 1, 1]]}, "boxes": [[0, 1, 2]]}]},
    "an invalid that is a list": item(invalid=[1]),
    "tokens of texts": item(tokens={"prompt_ids": ["a"], "completion_ids": [], "logprobs": []}),
    "nested metadata": item(metadata=json.loads('{"a":' * 60 + "1" + "}" * 60)),
    "a huge whole number": item(metadata={"a": 1 << 70}),
    "many values": item(metadata={"a": [0] * 3000}),
}  # fmt: skip
TEXTS: dict[str, bytes] = {
    "nothing": b"",
    "half an object": b'{"items": [',
    "bytes that are no UTF-8": b'{"items": ["\xff\xfe"]}',
    "a pickle": pickle.dumps(Opens()),
    "YAML with an object": b"!!python/object/apply:os.system [id]",
    "a million brackets": b"[" * 1900,
    "NaN": json.dumps(GOOD).replace('"yes"}', "NaN}").encode(),
    "Infinity": b'{"items": [{"metadata": {"a": Infinity}}]}',
    "a number over all floats": json.dumps(item(metadata={"a": 1})).replace(": 1}", ": 1e999}").encode(),
    "a number of 5,000 digits": json.dumps(item(metadata={"a": 1})).replace(": 1}", ": " + "9" * 5000 + "}").encode(),
    "a key twice": b'{"items": [], "items": [{"text": "yes"}]}',
    "a key twice in an item": json.dumps(GOOD).replace('"text"', '"text": "no", "text"').encode(),
    "two objects": json.dumps(GOOD).encode() * 2,
    "a comment": b"/* */" + json.dumps(GOOD).encode(),
}


@pytest.fixture(scope="module")
def service() -> Iterator[Front]:
    made = Service(rsw.Reward(RUBRIC), [rsw.Sample("a", **QUESTION)], limits=LIMITS, queue=4)
    made.warm()
    yield Front(made, FrontSettings(digest(TOKEN), LIMITS.body, held=2 << 20, seconds=0.2))
    made.close()


def ask(
    app: Front, method: str = "POST", path: str = "/v1/score", token: str = TOKEN, **request: Any
) -> httpx.Response:
    async def asked() -> httpx.Response:
        headers = {"authorization": f"Bearer {token}", **request.pop("headers", {})}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            return await client.request(method, path, headers=headers, **request)

    return asyncio.run(asked())


REACHED: list[str] = []


def _watch(event: str, given: tuple[Any, ...]) -> None:
    """Notes what is opened or reached while a hostile request is answered, but by the watch of a cluster that other tests started."""
    if (
        WATCHING
        and threading.current_thread().name != "rsw-cluster"
        and event
        in (
            "open",
            "socket.connect",
            "socket.getaddrinfo",
            "os.system",
            "subprocess.Popen",
            "exec.file",
        )
    ):
        name = str(given[0])
        if event != "open" or not name.endswith((".py", ".pyc", ".so")):
            REACHED.append(f"{event} {name}")


WATCHING: list[bool] = []
sys.addaudithook(_watch)


def test_there_are_a_hundred() -> None:
    assert len(BODIES) + len(TEXTS) >= 100


@pytest.mark.parametrize("what", [*BODIES, *TEXTS])
def test_a_hostile_request_is_refused_by_a_sentence(service: Front, what: str) -> None:
    body = TEXTS[what] if what in TEXTS else json.dumps(BODIES[what]).encode()
    REACHED.clear()
    WATCHING.append(True)
    try:
        answer = ask(service, content=body)
    finally:
        WATCHING.clear()
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["type"] in ("invalid_request", "config") and 10 < len(error["message"]) <= 1000
    assert "Traceback" not in error["message"] and error["request_id"] == answer.headers["x-request-id"]
    assert [one for one in REACHED if "/etc/" in one or not one.startswith("open")] == []
    assert ask(service, json=GOOD).json()["items"][0]["reward"] == 1.0


@pytest.mark.parametrize("token", ["", "another token", TOKEN + "x", TOKEN.upper(), "é" * 8, "a" * 9000])
@pytest.mark.parametrize("path", ["/v1/score", "/rubric", "/metrics", "/score", "/nowhere"])
def test_nothing_is_said_without_the_token(service: Front, token: str, path: str) -> None:
    method = "POST" if "score" in path else "GET"
    answer = ask(service, method, path, headers={"authorization": f"Bearer {token}".encode()}, json=GOOD)
    assert answer.status_code == 401 and answer.json()["error"]["type"] == "unauthorized"


def test_a_body_is_cut_off_while_it_comes(service: Front) -> None:
    sent = []

    async def endless() -> Any:
        while len(sent) < 1000:
            sent.append(1)
            yield b" " * (64 << 10)

    async def asked(**request: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://service") as client:
            return await client.post("/v1/score", headers={"authorization": f"Bearer {TOKEN}"}, **request)

    assert asyncio.run(asked(content=endless())).status_code == 413
    assert len(sent) < 20  # and not all of it

    async def slow() -> Any:
        yield b" "
        await asyncio.sleep(5)
        yield b" "

    assert asyncio.run(asked(content=slow())).status_code == 408
    assert ask(service, headers={"content-length": "9" * 30}).status_code == 400
    assert ask(service, headers={"content-length": str(1 << 40)}).status_code == 413
    assert ask(service, json=GOOD).status_code == 200


def test_more_requests_than_may_wait_are_told_to_come_again() -> None:
    import threading

    release = threading.Event()

    @rsw.verifier(tasks="change_qa")
    def waits(sample: rsw.Sample, output: rsw.Output) -> float:
        """Waits until it is let go."""
        release.wait(20)
        return 1.0

    made = Service(rsw.Reward(waits), limits=LIMITS, queue=4)
    made.warm()
    app = Front(made, FrontSettings())

    async def asked() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://service", timeout=30
        ) as client:
            waiting = [asyncio.create_task(client.post("/v1/score", json=GOOD)) for _ in range(4)]
            await asyncio.sleep(0.2)
            refused = [await client.post("/v1/score", json=GOOD), await client.get("/health")]
            release.set()
            return [*refused, *(await asyncio.gather(*waiting)), await client.post("/v1/score", json=GOOD)]

    busy, healthy, *answered = asyncio.run(asked())
    assert busy.status_code == 429 and busy.headers["retry-after"] == "1" and healthy.status_code == 200
    assert [one.json()["items"][0]["reward"] for one in answered] == [1.0] * 5
    made.close()


def test_what_takes_too_long_is_given_up() -> None:
    @rsw.verifier(tasks="change_qa")
    def sleeps(sample: rsw.Sample, output: rsw.Output) -> float:
        """Takes a while."""
        import time

        time.sleep(0.6)
        return 1.0

    made = Service(rsw.Reward(sleeps), limits=LIMITS, seconds=0.1)
    assert ask(Front(made, FrontSettings()), json=GOOD).json()["error"]["type"] == "not_ready"
    assert ask(Front(made, FrontSettings()), "GET", "/ready").status_code == 503
    made.warm()
    late = ask(Front(made, FrontSettings()), json=GOOD)
    assert late.status_code == 503 and late.json()["error"]["type"] == "timeout" and late.headers["retry-after"]
    made.close()


def test_an_application_that_dies_is_a_status_to_try_again() -> None:
    async def dies(scope: Any, receive: Any, send: Any) -> None:
        return

    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("/secret/path")

    gone = ask(Front(dies, FrontSettings()), json=GOOD)
    assert gone.status_code == 503 and gone.headers["retry-after"] == "1"
    broken = ask(Front(breaks, FrontSettings()), json=GOOD)
    assert broken.status_code == 500 and "secret" not in broken.text


def test_the_rubric_shows_no_path(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(
        "import rsw_rewards as rsw\n@rsw.verifier(tasks='change_qa')\ndef mine(sample, output, *, file: str = '', url: str = ''):\n"
        "    'Mine.'\n    return 1.0\n"
    )
    use = f"{tmp_path}/plugin.py:mine"
    config = {"file": f"{tmp_path}/weights.pt", "url": "http://judge.internal:8000/v1"}
    made = Service(rsw.Reward({"components": [{"use": use, "config": config}]}))
    shown = ask(Front(made, FrontSettings()), "GET", "/rubric")
    assert str(tmp_path) not in shown.text and "internal" not in shown.text
    (component,) = shown.json()["rubric"]["components"]
    assert component["use"] == "plugin.py:mine" and component["config"] == {"file": "weights.pt", "url": "v1"}
    made.close()


def test_metrics_count_requests_items_and_scores(service: Front) -> None:
    ask(service, json={"items": [item()["items"][0], item(text="no")["items"][0]]})
    lines = ask(service, "GET", "/metrics").text.splitlines()
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert values['rsw_requests_total{route="/v1/score",status="200"}'] >= 1
    assert values["rsw_items_total"] >= 2 and values["rsw_waiting_requests"] == 0
    assert values['rsw_scores_total{component="exact_match",status="ok"}'] >= 2
    assert values['rsw_request_seconds_bucket{le="+Inf"}'] == values["rsw_request_seconds_count"]


def test_a_service_needs_a_token_where_others_reach_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert token_of(tmp_path / "token", "", "0.0.0.0", False) == TOKEN
    assert token_of(None, TOKEN, "127.0.0.1", False) == TOKEN
    assert token_of(None, "", "127.0.0.1", True) == ""
    for given, host, none in (("", "127.0.0.1", False), ("short", "127.0.0.1", False), (TOKEN, "0.0.0.0", True)):
        with pytest.raises(rsw.ConfigError, match="token"):
            token_of(None, given, host, none)
