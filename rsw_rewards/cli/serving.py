"""``rsw serve``."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from rsw_rewards.cli.options import Address, Device, Roots


def serve(
    rubric: Annotated[Path, typer.Argument(help="Rubric (YAML).", show_default=False)],
    samples: Annotated[
        Path | None,
        typer.Option("--samples", help="Samples that requests may name by id (JSON Lines).", show_default=False),
    ] = None,
    root: Roots = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 accepts other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that score.")] = 1,
    max_replicas: Annotated[int, typer.Option(help="Add replicas up to this number under load; 0 adds none.")] = 0,
    num_cpus: Annotated[float, typer.Option(min=0, help="CPUs of a replica, as Ray counts them.")] = 1.0,
    num_gpus: Annotated[float, typer.Option(min=0, help="Share of a GPU of a replica, such as 0.25.")] = 0.0,
    device: Device = "cpu",
    queue: Annotated[
        int, typer.Option(min=1, help="Requests that may wait at a replica; further ones get the status 429.")
    ] = 256,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds after which a request is given up.")] = 600.0,
    body_mib: Annotated[int, typer.Option(min=1, help="Largest request, in MiB.")] = 64,
    items: Annotated[int, typer.Option(min=1, help="Most outputs of a request.")] = 1024,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the bearer token; the default is the variable RSW_SERVE_TOKEN.", show_default=False
        ),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Require no token; only for an address of this machine.")
    ] = False,
    ray_address: Address = None,
) -> None:
    """Serve rewards over HTTP, on Ray Serve. Clients are rsw.RemoteReward and those of UniRL, Flow-Factory and OpenRLHF."""
    from rsw_rewards.serve.deployment import Plan, start, stop
    from rsw_rewards.serve.front import token_of
    from rsw_rewards.serve.wire import TOKEN, Limits

    token = token_of(token_file, os.environ.get(TOKEN, ""), host, no_token)
    plan = Plan(host, port, replicas, max_replicas, num_cpus, num_gpus, device, queue, seconds)
    limits = Limits(body=body_mib << 20, items=items)
    url = start(rubric, samples, root or [], token=token, plan=plan, limits=limits, address=ray_address)
    typer.echo(f"ready: {url}")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # in the place of Ray's handlers
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    stop()
    typer.echo("ended")
