"""Requests of other projects' reward clients: UniRL's, Flow-Factory's and OpenRLHF's, as these send them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rsw_rewards.core.answer import AT_LIMIT
from rsw_rewards.core.image_ref import ImageRef, image
from rsw_rewards.core.image_values import describe
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.engine.reward import Result, Reward
from rsw_rewards.errors import InputError, RunStopped, as_input_error
from rsw_rewards.serve.wire import Limits, Reader, SampleRecord, parsed, validated


class Scoring(Protocol):
    """What a route needs of the service."""

    reward: Reward
    limits: Limits
    by_prompt: Mapping[str, list[Sample]]

    def results(self, outputs: Sequence[Any], samples: Sequence[Sample], groups: Sequence[Any] | None) -> list[Result]:
        """Rewards, which are counted."""
        ...

    def hide(self, text: str) -> str:
        """A text without the folders of this machine."""
        ...


Route = Callable[[Scoring, Reader, bytes, dict[str, str]], Any]


def by_prompt(samples: Sequence[Sample]) -> Mapping[str, list[Sample]]:
    """The samples of every prompt."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.prompt].append(sample)
    return dict(found)


def names_of(reward: Reward) -> list[str]:
    """What a client of UniRL's may ask for: the reward, and every component."""
    return ["reward", *(component.label for component in reward.rubric.components)]


def unirl(service: Scoring, reader: Reader, body: bytes, given: dict[str, str]) -> dict[str, Any]:
    """``{"requests": [{history, required_rewards, metadata}]}``: the last image of each history is an output.

    Its sample is ``metadata.sample_id``, or the one of the last turn's text as prompt. A reward of the name ``reward`` is the
    rubric's, any other the component's.
    """
    asked = _list(_object(parsed(body, service.limits, service.limits.body)), "requests")
    names, outputs, samples = [], [], []
    for place, one in enumerate(asked):
        where = f"requests.{place}"
        turns, wanted = _list(_object(one), "history"), _list(_object(one), "required_rewards")
        last = _object(turns[-1] if turns else None)
        if any(_object(turn).get(key) is not None for turn in turns for key in ("video_path", "video_b64")):
            raise InputError(f"{where}: videos are not read; send the last image")
        if unknown := [name for name in wanted if name not in names_of(service.reward)]:
            raise InputError(
                f"{where}: there is no reward {describe(unknown[0])}; known are {', '.join(names_of(service.reward))}"
            )
        name = (one.get("metadata") or {}).get("sample_id") if isinstance(one.get("metadata"), dict) else None
        sample = _of_prompt(service, last.get("text")) if name is None else reader.named(str(name))
        names.append(wanted)
        samples.append(sample)
        outputs.append(Output(sample.id, image=_picture(reader, last.get("image_b64"), f"{where}: image_b64")))
    results, errors = [], []
    for wanted, result in zip(names, service.results(outputs, samples, None), strict=True):
        values = {name: _values(result, name) for name in wanted}
        results.append({name: value for name, value in values.items() if isinstance(value, dict)})
        errors.append({name: service.hide(why) for name, why in values.items() if isinstance(why, str)})
    return {"results": results, "errors": errors}


def _values(result: Result, name: str) -> dict[str, float] | str:
    """The numbers of a reward, or why there are none."""
    if name == "reward":
        return result.reason if result.reward is None else {"reward": result.reward}
    score = result.parts.get(name)
    if score is None or score.value is None:
        return "the sample is of a task that this component does not know" if score is None else score.reason
    return {"value": score.value}


def flow_factory(service: Scoring, reader: Reader, body: bytes, given: dict[str, str]) -> dict[str, Any]:
    """``{prompt, image | video, condition_images}``: each prompt names the sample that has it."""
    asked = _object(parsed(body, service.limits, service.limits.body))
    prompts = _list(asked, "prompt")
    key = "image" if asked.get("image") is not None else "video"
    given_images = _list(asked, key)
    if len(given_images) != len(prompts):
        raise InputError(f"{len(given_images)} of {key!r} for {len(prompts)} of 'prompt'")
    samples = [_of_prompt(service, prompt) for prompt in prompts]
    outputs = []
    for place, (sample, held) in enumerate(zip(samples, given_images, strict=True)):
        frames = held if key == "video" and isinstance(held, list) else [held]
        images = tuple(_picture(reader, frame, f"{key}.{place}") for frame in frames)
        outputs.append(Output(sample.id, image=images[0]) if len(images) == 1 else Output(sample.id, images=images))
    results = service.results(outputs, samples, None)
    rewards = [result.reward for result in results]
    if None not in rewards:
        return {"rewards": rewards}
    return {"rewards": rewards, "error": service.hide(results[rewards.index(None)].reason)}


def openrlhf(service: Scoring, reader: Reader, body: bytes, given: dict[str, str]) -> dict[str, Any]:
    """``{query, prompts, labels}``: a label is the id of a sample, or a whole sample as JSON. The address has ``?end=TOKEN``."""
    ends = tuple(given.get("end", "").split(",")) if given.get("end") else ()
    if not ends:
        raise InputError(
            "the address needs '?end=' with the tokens that end a text, by commas: a text without one was cut off"
        )
    asked = _object(parsed(body, service.limits))
    queries, prompts, labels = (_list(asked, key) for key in ("query", "prompts", "labels"))
    if not len(queries) == len(prompts) == len(labels):
        raise InputError(f"{len(queries)} of 'query', {len(prompts)} of 'prompts' and {len(labels)} of 'labels'")
    outputs, samples = [], []
    for place, (query, prompt, label) in enumerate(zip(queries, prompts, labels, strict=True)):
        if not all(isinstance(text, str) for text in (query, prompt, label)):
            raise InputError(f"'query', 'prompts' and 'labels' hold texts; number {place} is none")
        text, is_cut = completion(query, prompt, ends)
        sample = reader.known.get(label) or _whole(service, reader, label, place)
        samples.append(sample)
        outputs.append(Output(sample.id, invalid=AT_LIMIT) if is_cut else Output(sample.id, text=text))
    results = service.results(outputs, samples, range(len(outputs)) if not service.reward.needs_groups else None)
    rewards = [result.reward for result in results]
    if None in rewards:
        raise RunStopped(f"an output has no reward: {results[rewards.index(None)].reason}")
    logs: dict[str, list[float]] = {}
    for label in names_of(service.reward)[1:]:
        values = [None if (score := result.parts.get(label)) is None else score.value for result in results]
        if None not in values:
            logs[label] = values  # type: ignore[assignment]
    return {"rewards": rewards, "scores": rewards, "extra_logs": logs}


def completion(query: str, prompt: str, ends: Sequence[str]) -> tuple[str, bool]:
    """The text behind the prompt without the token that ends it, and whether it was cut off. Raises :class:`InputError`."""
    if not query.startswith(prompt):
        raise InputError(
            "a query does not start with its prompt, so that the model's text is not known; raise the limit of prompts, which"
            " OpenRLHF cuts from the left"
        )
    text = query[len(prompt) :]
    end = next((end for end in ends if text.endswith(end)), None)
    return (text, True) if end is None else (text.removesuffix(end), False)


ROUTES: Mapping[str, Route] = {"/score": unirl, "/compute": flow_factory, "/openrlhf": openrlhf}


def _whole(service: Scoring, reader: Reader, label: str, place: int) -> Sample:
    if not label.lstrip().startswith("{"):
        return reader.named(label)
    return reader.sample(validated(SampleRecord, parsed(label.encode(), service.limits)), str(place))


def _of_prompt(service: Scoring, prompt: Any) -> Sample:
    found = service.by_prompt.get(prompt, []) if isinstance(prompt, str) else []
    if len(found) != 1:
        raise InputError(f"{len(found)} of the service's samples have the prompt {describe(prompt)}; it must name one")
    return found[0]


def _picture(reader: Reader, text: Any, where: str) -> ImageRef:
    with as_input_error(where, InputError):
        return image(reader.png(text))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"an object is wanted, not {describe(value)}")
    return value


def _list(value: dict[str, Any], key: str) -> list[Any]:
    if not isinstance(held := value.get(key), list) or not held:
        raise InputError(f"{key!r} must be a list that is not empty, not {describe(held)}")
    return held
