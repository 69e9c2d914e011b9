"""Data sets on the Hub: a loopback one, and some that do not answer. The endpoint is read at import: each run is a
process of its own.
"""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from tests.test_data import load, saved, write_flat

LOAD = """
import sys, time
from seg_recipe.data import load_data
from seg_recipe.labels import LabelSpace
start = time.perf_counter()
try:
    space = LabelSpace(("ground", "leaf", "stem"))
    data = load_data(
        ["ada/leaves"], label_space=space, val_fraction=0.3, streaming="stream" in sys.argv, progress=False
    )
    print(sorted(row["id"] for row in data.splits["train"]), next(iter(data.splits["train"]))["label"].mode)
except ValueError as error:
    print("ValueError:", error)
print("seconds:", time.perf_counter() - start)
"""


def run(tmp_path, endpoint: str, *arguments: str, **variables: str) -> str:
    """What LOAD prints when HF_ENDPOINT is this."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()
    }
    home = {"HF_HOME": str(tmp_path / "hub"), "SEG_RECIPE_CACHE": str(tmp_path / "cache"), "HF_ENDPOINT": endpoint}
    command = [sys.executable, "-c", LOAD, *arguments]
    done = subprocess.run(command, env=clean | home | variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


class _DataSets(BaseHTTPRequestHandler):
    """One public data set, ada/leaves, of one parquet file."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes] = {}  # noqa: RUF012 (set once, by the fixture)
    status = 200

    def log_message(self, *_):
        """Nothing on stderr."""

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if self.status != 200:
            self._send(b"", self.status)
        elif re.fullmatch(r"/api/datasets/ada/leaves(/revision/[^/]+)?", path):
            siblings = [{"rfilename": name} for name in self.files]
            self._json(
                {
                    "id": "ada/leaves",
                    "sha": "1" * 40,
                    "private": False,
                    "gated": False,
                    "tags": [],
                    "downloads": 0,
                    "siblings": siblings,
                }
            )
        elif re.fullmatch(r"/api/datasets/ada/leaves/tree/[^/]+(/.*)?", path):
            folder = path.split("/tree/")[1].partition("/")[2]
            self._json([self._entry(name) for name in self.files if name.startswith(folder)])
        elif re.fullmatch(r"/datasets/ada/leaves/resolve/[^/]+/.*", path) and path.split("/", 6)[6] in self.files:
            self._send(
                self.files[path.split("/", 6)[6]],
                headers={"ETag": f'"{self._oid(path.split("/", 6)[6])}"', "X-Repo-Commit": "1" * 40},
            )
        elif path.startswith(("/api/datasets/ada/leaves", "/datasets/ada/leaves")):
            self._send(b"", 404, {"X-Error-Code": "EntryNotFound"})
        else:
            self._send(b"", 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        paths = (
            json.loads(body).get("paths", []) if body.startswith(b"{") else re.findall(r"paths=([^&]+)", body.decode())
        )
        self._json([self._entry(unquote(name)) for name in paths if unquote(name) in self.files])

    def _oid(self, name):
        return hashlib.sha1(self.files[name]).hexdigest()

    def _entry(self, name):
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": self._oid(name)}

    def _json(self, content):
        self._send(json.dumps(content).encode(), headers={"Content-Type": "application/json"})

    def _send(self, content, status=200, headers=None):
        whole = len(content)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and status == 200:
            first, last = int(wanted[1]), int(wanted[2] or whole - 1)
            content, status = content[first : last + 1], 206
            headers = {**(headers or {}), "Content-Range": f"bytes {first}-{last}/{whole}"}
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    rows = saved(tmp_path / "saved", write_flat(tmp_path / "faces", 30), range(30))
    rows.load_from_disk(str(tmp_path / "saved")).to_parquet(str(tmp_path / "p.parquet"))
    monkeypatch.setattr(_DataSets, "files", {"train-00000-of-00001.parquet": (tmp_path / "p.parquet").read_bytes()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _DataSets)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.long
def test_downloaded_once_and_then_used_without_a_network(tmp_path, hub):
    wanted = str(load(tmp_path / "saved", val_fraction=0.3).splits["train"]["id"][:]) + " L\n"
    assert run(tmp_path, hub).startswith(wanted)
    assert run(tmp_path, hub, HF_HUB_OFFLINE="1").startswith(wanted)
    unreachable = run(tmp_path, "http://127.0.0.1:9")
    assert unreachable.startswith(wanted) and float(unreachable.split("seconds: ")[1]) < 60


@pytest.mark.long
def test_streamed(tmp_path, hub):
    printed = run(tmp_path, hub, "stream")
    ids = re.findall(r"'([0-9a-f]{16})'", printed)
    assert len(set(ids)) == len(ids) and 12 < len(ids) < 30 and "] L\n" in printed  # named by what is in the pictures


@pytest.mark.long
def test_no_hub_is_said_within_a_minute(tmp_path):
    refused = run(tmp_path, "http://127.0.0.1:9")
    with socket.socket() as silent:  # takes the connection and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        mute = run(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
    for printed in (refused, mute):
        assert re.match(
            r"ValueError: ada/leaves is no folder here, and cannot be had from the Hub: http://\S+ does not answer "
            r"\(\w+\); nor was",
            printed,
        )
        assert "Ways out: download it where there is a network" in printed and printed.count("\n") == 2
        assert float(printed.split("seconds: ")[1]) < 60


@pytest.mark.long
def test_what_the_hub_refuses(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(_DataSets, "status", 503)
    assert "cannot be had from the Hub: http" in (printed := run(tmp_path, hub)) and "answered 503" in printed
    monkeypatch.setattr(_DataSets, "status", 404)
    monkeypatch.setattr(_DataSets, "send_response", _not_found)
    assert "ada/leaves is neither a folder here nor a data set on the Hub; check the spelling" in run(tmp_path, hub)


def _not_found(handler, status):
    BaseHTTPRequestHandler.send_response(handler, status)
    handler.send_header("X-Error-Code", "RepoNotFound")


def test_offline_and_never_downloaded():
    with pytest.raises(
        ValueError,
        match=r"^owner/name is no folder here, and cannot be had from the Hub: HF_HUB_OFFLINE is set; nor .* Ways "
        r"out: ",
    ):
        load("owner/name")
    with pytest.raises(
        ValueError,
        match=r"^owner/name is no folder here, and cannot be streamed from the Hub: HF_HUB_OFFLINE is set. Way out: ",
    ):
        load("owner/name", streaming=True)
