"""The ``rsw`` command. Every command imports what it needs when it runs, so that asking for help costs nothing."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Annotated

import typer

from rsw_rewards.cli import attacking, cards, data, evaluation, serving, training, viewing

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Rewards and evaluation for remote-sensing world models: train with verifiable rewards, and score any model's outputs with the same verifiers.",
)
_data = typer.Typer(no_args_is_help=True, help="Make samples: from the scene world, or from a data set on disk.")
_predictions = typer.Typer(no_args_is_help=True, help="Read answers that other tools wrote.")
_make = typer.Typer(no_args_is_help=True, help="Make samples from a generator.")
app.add_typer(_data, name="data")
app.add_typer(_predictions, name="predictions")
_data.add_typer(_make, name="make")

for command in (
    training.init, training.train, training.report, training.export, training.ablate, evaluation.evaluate, evaluation.evaluate_encoder, evaluation.suite, evaluation.score, evaluation.compare, evaluation.validate, evaluation.reweight, attacking.attack, serving.serve, viewing.view, cards.verifiers, cards.protocols,
):  # fmt: skip
    app.command()(command)
_make.command("scene-world")(data.make_scene_world)
_data.command("from")(data.data_from)
_data.command("adapters")(data.data_adapters)
_predictions.command("from")(data.predictions_from)


@app.callback()
def _everywhere(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error arose. May also follow a command.")
    ] = False,
) -> None:
    # main() takes it out of the arguments, among which it may stand anywhere; here it is declared for the help alone.
    pass


def _end(number: int, frame: object) -> None:
    sys.exit(signal.SIGTERM)  # as Ray's own handler does, which takes the place of this one where Ray is imported


def main() -> None:
    """Entry point: an error that is the user's to mend is one sentence and exit code 2; ``--debug`` shows where it arose."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    from rsw_rewards.errors import RswError
    from rsw_rewards.extras import quiet

    if not debug:
        quiet()
    signal.signal(signal.SIGTERM, _end)
    try:
        app(arguments, prog_name="rsw")
    except SystemExit as ended:
        if ended.code != signal.SIGTERM:
            raise
        typer.echo("rsw: ended by SIGTERM; go on with --resume where a run was cut off", err=True)
        sys.exit(128 + signal.SIGTERM)
    except RswError as error:
        if debug:
            raise
        typer.echo(f"rsw: {_short(str(error))}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("rsw: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug or (said := _of_the_disk(error)) is None:
            raise
        typer.echo(f"rsw: {_short(said)}", err=True)
        sys.exit(2)


def _of_the_disk(error: Exception) -> str | None:
    """What to say of an error of the file system: a folder that is a file, no permission, a full disk; None for other errors."""
    # torch and safetensors say in errors of their own that they could not write.
    full = ("No space left on device", "PytorchStreamWriter", "inline_container")
    if getattr(error, "errno", None) == errno.ENOSPC or any(words in str(error) for words in full):
        return "the disk is full; free space, and go on with --resume DIR where a run was cut off"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def _short(text: str) -> str:
    """A message without its middle where it is long: it may quote a text of any length."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 300]}…{text[-300:]}"


_LONGEST = 1200
"""Characters of a message that are shown."""
