"""A vision-language model behind an OpenAI-compatible server, as a policy: scoring a served model live."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.io.chat_reply import Answer
from rsw_rewards.io.endpoint import ChatClient, EndpointConfig, EndpointError, UnusableEndpointError
from rsw_rewards.io.images import encode_png, read_rgb
from rsw_rewards.rollouts.policy import Policy, Request, after_setup, request_text


class OpenAIEndpoint(Policy):
    """Shows a served model the images of a sample and its prompt, and takes what it says as the answer.

    Args:
        base_url: address up to and with ``/v1``.
        model: the model's name at the server.
        template: text of the request; ``{prompt}`` is the sample's prompt, ``{vocabulary}`` its closed answers, if any.
        system: system message; none by default.
        longest_side: larger images are scaled down to this many pixels; None sends them as they are.
        send_images: False asks the questions without the pictures, which is what a blind model would answer.
        **endpoint: further keys of :class:`rsw_rewards.io.endpoint.EndpointConfig`, such as ``max_tokens`` or ``cache``.

    An answer that is cut off (within its text or its reasoning), refused, filtered or no text is invalid. A request that the server
    does not answer is lost, not wrong. A server that answers none (wrong address, key, model or certificate) stops the run at
    the first request. Seeds are sent along; whether they make an answer repeatable is up to the server.
    """

    name = "openai_endpoint"
    tasks = frozenset({Task.CHANGE_QA, Task.CHANGE_CAPTION, Task.CLASSIFICATION, Task.GROUNDING})

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        template: str = "{prompt}",
        system: str = "",
        longest_side: int | None = None,
        send_images: bool = True,
        **endpoint: Any,
    ) -> None:
        try:
            self.config = EndpointConfig(base_url=base_url, model=model, **endpoint)
        except ValidationError as error:
            problem = error.errors()[0]
            raise ConfigError(f"{self.name}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
        self.template = template
        self.system = system
        self.longest_side = longest_side
        self.send_images = send_images
        self._client: ChatClient | None = None

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        self._client = ChatClient(self.config)

    def describe(self) -> dict[str, Any]:
        shown = {"template": self.template, "system": self.system, "send_images": self.send_images}
        return {"name": self.name, "model": self.config.model, "base_url": self.config.base_url, **shown}

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        """See :class:`Policy`; the requests are in flight together, up to ``concurrency``."""
        client = after_setup(self._client)
        outputs: dict[int, Output] = {}
        bodies: dict[int, Mapping[str, Any]] = {}
        shown: dict[str, list[dict[str, Any]]] = {}
        for place, request in enumerate(requests):
            sample = request.sample
            try:
                if sample.id not in shown:  # candidates of a sample share its encoded pictures
                    shown[sample.id] = self._messages(sample)
                bodies[place] = {
                    "messages": shown[sample.id],
                    "temperature": request.temperature,
                    "seed": request.seed & 0x7FFFFFFF,
                }
            except ImageError as error:
                outputs[place] = Output(sample.id, request.candidate, lost=str(error))
        answers = client.ask_all(list(bodies.values()))
        for place, answer in zip(bodies, answers, strict=True):
            if isinstance(answer, UnusableEndpointError):
                raise answer
            outputs[place] = _output(requests[place], answer)
        return [outputs[place] for place in range(len(requests))]

    def _messages(self, sample: Sample) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = []
        for image in sample.images if self.send_images else ():
            content.append({"type": "image_url", "image_url": {"url": self._data_uri(image)}})
        content.append({"type": "text", "text": request_text(self.template, sample)})
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": content}]

    def _data_uri(self, image: ImageRef) -> str:
        pixels = read_rgb(image)
        if self.longest_side is not None and max(pixels.shape[:2]) > self.longest_side:
            import numpy as np
            from PIL import Image

            picture = Image.fromarray(pixels)
            picture.thumbnail((self.longest_side, self.longest_side), Image.Resampling.LANCZOS)
            pixels = np.asarray(picture)
        return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()


def _output(request: Request, answer: Answer | EndpointError) -> Output:
    name, candidate = request.sample.id, request.candidate
    if isinstance(answer, EndpointError):
        return Output(name, candidate, lost=str(answer), seed=request.seed)
    text, invalid = (None, answer.problem) if answer.problem else (answer.text, None)
    finish = answer.finish_reason or "stop"
    return Output(name, candidate, text=text, invalid=invalid, seed=request.seed, finish_reason=finish)
