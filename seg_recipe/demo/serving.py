"""Serving the page: to this machine unless told otherwise, and with no file from outside."""

import os
import socket
import tempfile
import threading
from types import TracebackType

import gradio as gr
import uvicorn
from fastapi import FastAPI

from seg_recipe.demo.comparison import Models
from seg_recipe.runtime.errors import InputError

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONOSPACE = ("ui-monospace", "SFMono-Regular", "Menlo", "monospace")
LARGEST_UPLOAD = "64mb"
_STOP_SECONDS = 3


def listen(host: str, port: int) -> socket.socket:
    """Open a socket for `host`; port 0: any free one. Raises InputError where that is impossible."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--host {host} cannot be found ({error}); wanted an address of this machine, as 127.0.0.1."
        ) from None
    try:
        return socket.create_server(address[:2], family=family)
    except PermissionError:
        raise InputError(f"--port {port} needs rights that you lack here; give one above 1023.") from None
    except OSError as error:
        way_out = "give another --port, or 0 for any that is free" if port else "give an address of this machine"
        raise InputError(
            f"--port {port} on {host} cannot be opened ({os.strerror(error.errno or 0)}); {way_out}."
        ) from None


class Running:
    """A page that is being served from a thread: `url` is its address. It ends with `stop`, or as a context."""

    def __init__(self, models: Models, listener: socket.socket):
        from seg_recipe.demo.page import TEMPLATES, build_page

        self.models = models
        self._listener = listener
        self._folder = tempfile.TemporaryDirectory(prefix="seg-recipe-demo-")
        os.environ["GRADIO_TEMP_DIR"] = (
            self._folder.name
        )  # what visitors send; the default folder is shared by the machine's users
        page = build_page(models)
        app = gr.mount_gradio_app(
            FastAPI(openapi_url=None),
            page,
            path="/",
            footer_links=[],
            run_history=False,
            max_file_size=LARGEST_UPLOAD,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=gr.themes.Base(font=FONTS, font_mono=MONOSPACE),
            css=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        )
        # else Gradio (6.31) takes a mounted page for one that is being built, and copies any path into its cache
        page.has_launched = True
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=_STOP_SECONDS - 1)
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        host, port = listener.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def wait(self) -> None:
        """Until Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(1)

    def stop(self) -> None:
        """Serve no more, and delete what visitors sent."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._listener.close()
        self._folder.cleanup()

    def __enter__(self) -> "Running":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
