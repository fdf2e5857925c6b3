"""``rsw view``: the pages of runs, served to a browser on this machine."""

from __future__ import annotations

from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

HOST = "127.0.0.1"


def view(
    folder: Annotated[Path, typer.Argument(help="Folder with runs, or a run.")] = Path("runs"),
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port on this machine; 0 for a free one.")
    ] = 8765,
    as_list: Annotated[bool, typer.Option("--list", help="Only print the list of runs.")] = False,
) -> None:
    """List the runs in a folder, and serve their reports to a browser on this machine until Ctrl-C."""
    from rsw_rewards.cli.display import print_rows
    from rsw_rewards.errors import InputError
    from rsw_rewards.evaluation.run_list import listed

    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; name the one that holds your runs")
    if as_list:
        print_rows(("run", "what", "numbers", "written"), [(one["name"], one["what"], one["numbers"], one["written"]) for one in listed(folder)])  # fmt: skip
        return
    try:
        server = server_of(folder, port)
    except OSError as error:
        raise InputError(f"port {port} cannot be used: {error.strerror}; name another with --port") from error
    with server:
        typer.echo(f"{len(listed(folder))} pages of runs: http://{HOST}:{server.server_address[1]}/   (Ctrl-C ends it)")
        server.serve_forever()


def server_of(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the pages in a folder, which answers this machine alone."""
    return ThreadingHTTPServer((HOST, port), partial(_Pages, folder.resolve()))


class _Pages(BaseHTTPRequestHandler):
    """The list of runs at ``/``, and the HTML files below the folder; nothing else, and nothing that a link leads out to."""

    def __init__(self, root: Path, *about: object) -> None:
        self.root = root
        super().__init__(*about)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        from rsw_rewards.evaluation.run_list import list_page

        name = (self.headers.get("Host") or "").partition(":")[0].lower()
        path = unquote(urlsplit(self.path).path).lstrip("/")
        if name not in (HOST, "localhost"):  # a page of somewhere else that was made to point here
            self._answer(403, b"this server answers this machine alone")
        elif not path:
            self._answer(200, list_page(self.root).encode())
        elif (page := self._page(path)) is not None:
            self._answer(200, page)
        else:
            self._answer(404, b"there is no such page")

    def _page(self, path: str) -> bytes | None:
        """The bytes of a page below the folder; None where there is none."""
        try:
            file = (self.root / path).resolve()
            found = file.suffix == ".html" and file.is_relative_to(self.root) and file.is_file()
            return file.read_bytes() if found else None
        except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links that lead in a circle
            return None

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8" if status == 200 else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tell nobody of requests."""
