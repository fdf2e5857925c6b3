"""Verifiers made of one function ``(sample, output)``: the decorator :func:`verifier`, and functions that are not decorated."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, TypeVar, overload

from pydantic import BaseModel, ConfigDict, create_model

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import ALL_TASKS, Batch, Card, Verifier, names_of
from rsw_rewards.errors import ConfigError, ImageError, InputError

F = TypeVar("F", bound=Callable[..., Any])

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class FunctionVerifier(Verifier):
    """A verifier made of one function; :func:`verifier_class` derives one class from this for each function."""

    function: ClassVar[Callable[..., Any]]

    def score(self, batch: Batch) -> list[Score]:
        settings = dict(self.config)
        calls = zip(batch.samples, batch.outputs, strict=True)
        function = type(self).function
        if inspect.iscoroutinefunction(function):
            results = finished(_all(function(sample, output, **settings) for sample, output in calls))
        else:
            results = [_result(function, sample, output, settings) for sample, output in calls]
        return [_score(result) for result in results]

    def _read(self, sample: Sample) -> None:
        """The truth of a function: what it declares that it reads is there, and its images can be decoded. Raises otherwise."""
        for need in sorted(self.needs):
            kind, _, key = need.partition(".")
            if need == "images":
                found: Any = sample.images
            elif kind == "reference":
                found = sample.reference.get(key)
            else:
                continue
            if found is None or found == ():
                raise InputError(f"it has no {need}, which {self.name!r} reads")
            for item in found if isinstance(found, list | tuple) else (found,):
                if isinstance(item, ImageRef):
                    self.context.bank.check([item], "pixels", item.pixels)

    def _code(self) -> Callable[..., Any]:
        return type(self).function

    def __reduce__(self) -> Any:
        # The class is made at run time, so that the function is what another process can import.
        return _rebuilt, (type(self).function, self.config.model_dump())


def _rebuilt(function: Callable[..., Any], config: Mapping[str, Any]) -> Verifier:
    cls = verifier_class(function)
    return cls(cls.Config.model_validate(dict(config)))


async def _all(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*map(_kept, calls), return_exceptions=True)


async def _kept(call: Awaitable[Any]) -> Any:
    """What a coroutine gives or raises: ``SystemExit`` and ``KeyboardInterrupt`` would end the loop that all of them share."""
    try:
        return await call
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return error


def _result(function: Callable[..., Any], sample: Any, output: Any, settings: Mapping[str, Any]) -> Any:
    try:
        return function(sample, output, **settings)
    except Exception as error:  # of one output, which costs the others nothing
        return error


def _score(result: Any) -> Score:
    if isinstance(result, Score):
        return result
    if isinstance(result, ImageError):
        raise result  # the engine knows whose image it is
    if isinstance(result, BaseException):
        return Score.error(f"{type(result).__name__}: {result}")
    if result is None:
        return Score.not_applicable("the verifier returned None for this sample")
    try:
        return Score(float(result), raw={"value": float(result)})
    except (TypeError, ValueError) as error:
        return Score.error(f"{type(error).__name__}: {error}")


@overload
def verifier(function: F, /) -> F: ...
@overload
def verifier(
    *,
    tasks: str | Iterable[str] = ...,
    name: str | None = ...,
    needs: str | Iterable[str] = ...,
    card: Card | None = ...,
) -> Callable[[F], F]: ...
def verifier(
    function: Any = None,
    /,
    *,
    tasks: str | Iterable[str] = ALL_TASKS,
    name: str | None = None,
    needs: str | Iterable[str] = (),
    card: Card | None = None,
) -> Any:
    """Declare that a function ``(sample, output)`` is a verifier. It can still be called as a function.

    The function gives a number in [0, 1], a :class:`Score`, or None where it does not apply to the sample. It may be ``async
    def``: all outputs of a batch are then waited for at the same time. Keyword-only parameters are its configuration, with their
    types and defaults.

    Args:
        tasks: the task or the tasks that it scores; all of them where left out.
        name: what it is called; the name of the function where left out.
        needs: what it reads, see :attr:`Verifier.needs`. Where an entry of the reference or an image that it names cannot be used, every
            output of the sample is an error.
        card: what a user must know of it; made from the docstring where left out.

    Returns:
        The same function. Its attribute ``verifier`` is the :class:`Verifier` class that was made of it.

    Raises:
        ConfigError: a task that does not exist, or a function that does not take a sample and an output.

    >>> @rsw.verifier(tasks="change_qa")
    ... def short_answer(sample, output, *, limit: int = 1):
    ...     return float(len(output.text.split()) <= limit)
    >>> rsw.Component(use=short_answer, config={"limit": 2}).build().config.limit
    2
    """

    def declared(function: F) -> F:
        if not inspect.isfunction(function):
            raise ConfigError(
                f"{function!r:.80} is no function; write @rsw.verifier(tasks=...) above a def, or derive a class from rsw.Verifier"
            )
        vars(function)["verifier"] = _made(function, tasks, name, needs, card)
        return function

    return declared if function is None else declared(function)


def verifier_class(function: Callable[..., Any]) -> type[Verifier]:
    """The :class:`Verifier` class of a function: as it was declared, or of all tasks where it was not. Raises :class:`ConfigError`."""
    found: type[FunctionVerifier] | None = vars(function).get("verifier")
    if found is None or found.function is not function:  # functools.wraps copies the attributes of what it wraps
        found = vars(verifier(function))["verifier"]
    return found


def _made(
    function: Callable[..., Any],
    tasks: str | Iterable[str],
    name: str | None,
    needs: str | Iterable[str],
    card: Card | None,
) -> type[Verifier]:
    label = name or function.__name__
    members: dict[str, Any] = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": inspect.getdoc(function),
        "name": label,
        "tasks": tasks,
        "needs": needs,
        "function": staticmethod(function),
        "Config": _configuration(function, label),
    }
    if any(need == "images" or need.startswith("reference.") for need in names_of(needs)):
        # Not for all: functions of texts would lose time. Nothing is held for a row, so batches stay whole.
        members |= {"truth": FunctionVerifier._read, "at_once": sys.maxsize}
    return type(label, (FunctionVerifier,), members if card is None else {**members, "card": card})


def _configuration(function: Callable[..., Any], label: str) -> type[BaseModel]:
    """The keyword-only parameters of a function as a pydantic model. Raises :class:`ConfigError` for a function of another form."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except NameError:  # an annotation that only type checkers can read
        parameters = inspect.signature(function).parameters.values()
    given = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    settings = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    if len(given) != 2 or len(given) + len(settings) != len(parameters):
        raise ConfigError(
            f"the function {label!r} is no verifier: it must take a sample and an output, and settings after a star, such as"
            f" def {function.__name__}(sample, output, *, limit: int = 1)"
        )
    empty = inspect.Parameter.empty
    fields: dict[str, Any] = {
        parameter.name: (
            Any if parameter.annotation is empty or isinstance(parameter.annotation, str) else parameter.annotation,
            ... if parameter.default is empty else parameter.default,
        )
        for parameter in settings
    }
    rules = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=())
    return create_model(f"{label}_config", __config__=rules, __module__=function.__module__, **fields)


def finished(value: Any) -> Any:
    """The value, or what it gives once it is waited for, where it is a coroutine.

    Coroutines of this process run in one event loop in a thread of its own, so that a client that a verifier keeps from one batch
    to the next stays usable, and so that a notebook, whose main thread has a loop already, can score as well.

    Raises:
        RuntimeError: a coroutine of that loop calls it, and would wait for itself.
    """
    if not inspect.iscoroutine(value):
        return value
    if in_loop():
        value.close()
        raise RuntimeError(f"an async verifier cannot wait for another one; {INSTEAD}")
    future = asyncio.run_coroutine_threadsafe(_kept(value), _loop())
    try:
        result = future.result()
    except BaseException:
        future.cancel()
        raise
    if isinstance(result, KeyboardInterrupt):  # nobody pressed a key: those go to the main thread
        raise RuntimeError(f"a coroutine raised KeyboardInterrupt: {result}") from result
    if isinstance(result, BaseException):
        raise result
    return result


INSTEAD = "await aone() or amany() of a Reward of its own instead"
"""What a verifier does that asks other verifiers, the end of a message."""

_running: list[tuple[asyncio.AbstractEventLoop, threading.Thread]] = []
_starting = threading.Lock()


def in_loop() -> bool:
    """Whether the caller is a coroutine of an async verifier."""
    return bool(_running) and threading.current_thread() is _running[0][1]


def _loop() -> asyncio.AbstractEventLoop:
    with _starting:
        if not _running:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_run, args=(loop,), name="rsw-async", daemon=True)
            thread.start()
            _running.append((loop, thread))
        return _running[0][0]


def _run(loop: asyncio.AbstractEventLoop) -> None:
    while not loop.is_closed():
        with suppress(BaseException):  # of a task that a verifier made: it leaves the loop, which others wait for
            loop.run_forever()


os.register_at_fork(after_in_child=_running.clear)  # the thread does not live on in a forked process
