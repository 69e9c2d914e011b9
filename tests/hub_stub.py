"""A Hugging Face Hub on loopback, with faults that can be switched on: enough of its API to push a model and to pull
it again.

    with HubStub() as stub:
        subprocess.run([...], env=os.environ | stub.environment())
        assert "model.safetensors" in stub.files("ada/face-parser")

`HF_ENDPOINT` is read when huggingface_hub is imported, and HF_HUB_OFFLINE blocks loopback too: a process of its own
gets `environment()`; in the test's own process `connect(...)` sets the constants. Tokens: `WRITE_TOKEN` may write,
`READ_TOKEN` may not, any other is unknown.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

WRITE_TOKEN = "hf_" + "W" * 34
READ_TOKEN = "hf_" + "R" * 34
USER = "ada"


@dataclass
class Commit:
    """One commit as it was received: its message and the files it added."""

    message: str
    files: dict[str, bytes]

    @property
    def oid(self) -> str:
        content = repr(
            (self.message, sorted((path, hashlib.sha1(data).hexdigest()) for path, data in self.files.items()))
        )
        return hashlib.sha1(content.encode()).hexdigest()


@dataclass
class Fault:
    """What happens to the next `times` requests whose path contains `path`: an error status, a cut connection, or a
    long silence.
    """

    kind: str
    times: int
    path: str
    status: int = 0


@dataclass
class Repo:
    """A repository: visibility and history. That of a Space is known as spaces/{owner}/{name}."""

    private: bool = False
    commits: list[Commit] = field(default_factory=list)

    @property
    def head(self) -> str:
        return self.commits[-1].oid if self.commits else "0" * 40

    @property
    def files(self) -> dict[str, bytes]:
        return {path: data for commit in self.commits for path, data in commit.files.items()}


class HubStub:
    """The server. `lfs=True` sends *.safetensors the way of large files (batch, PUT, pointer), as the real Hub without
    Xet does.
    """

    def __init__(self, *, lfs: bool = False):
        self.lfs = lfs
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self._received: list[bytes] = []
        self._faults: list[Fault] = []
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # What a test switches

    def answer(self, status: int, *, times: int = 1, path: str = "") -> None:
        """The next `times` requests whose path contains `path` get this status and no useful body."""
        self._faults.append(Fault("status", times, path, status))

    def cut(self, *, times: int = 1, path: str = "") -> None:
        """The next `times` such requests lose their connection in the middle of their body."""
        self._faults.append(Fault("cut", times, path))

    def hold(self, *, times: int = 1, path: str = "") -> None:
        """The next `times` such requests are accepted and not answered before `release()`: until then a black hole."""
        self._released.clear()
        self._faults.append(Fault("hold", times, path))

    def release(self) -> None:
        """Answer what was held."""
        self._released.set()

    def heal(self) -> None:
        """No more faults."""
        with self._lock:
            self._faults.clear()

    def add_repo(self, repo: str, *, private: bool = False) -> None:
        """A repository that is there already."""
        self.repos[repo] = Repo(private)

    # What a test asks

    def files(self, repo: str) -> dict[str, bytes]:
        """The files on main: path -> content."""
        return self.repos[repo].files

    def commits(self, repo: str) -> list[Commit]:
        """All commits, oldest first."""
        return self.repos[repo].commits

    def environment(self, token: str = WRITE_TOKEN) -> dict[str, str]:
        """The variables that send a process's huggingface_hub here."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        }

    def connect(self, monkeypatch, tmp_path, token: str | None = WRITE_TOKEN) -> None:
        """Send this process's huggingface_hub here, until the test ends; the token files of the user are out of its
        sight.
        """
        connect(monkeypatch, tmp_path, self.url, token)

    @property
    def received_bytes(self) -> bytes:
        """All that came in but the Authorization header, which is where a token belongs; files that were encoded in a
        body also decoded.
        """
        return b"\n".join(self._received)

    # What the handler calls

    def record(self, data: bytes) -> None:
        self._received.append(data)

    def next_fault(self, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    def commit(self, repo: str, lines: list[dict]) -> Commit:
        commit = Commit("", {})
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                commit.message = value["summary"]
            elif line["key"] == "file":
                commit.files[value["path"]] = base64.b64decode(value["content"])
                self.record(commit.files[value["path"]])
            elif line["key"] == "lfsFile":
                commit.files[value["path"]] = self.objects[value["oid"]]
        with self._lock:
            self.repos[repo].commits.append(commit)
        return commit


def connect(monkeypatch, tmp_path, url: str, token: str | None = WRITE_TOKEN) -> None:
    """Point this process's huggingface_hub at `url` with this token, until the test ends."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    close_session()
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(
        constants, "HF_HUB_DISABLE_TELEMETRY", True
    )  # its requests would take faults that were meant for others
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "stored_tokens"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)


def unreachable_url() -> str:
    """An address of this machine at which nobody listens: connections are refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, plays the fault that is due, or answers by `_ROUTES`: (verbs, path, role that is needed,
    answer).
    """

    stub: HubStub
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *_):
        pass

    def _serve(self):
        stub = self.stub
        self.route = unquote(urlsplit(self.path).path)
        stub.requests.append(f"{self.command} {self.route}")
        headers = "".join(
            f"{name}: {value}\n" for name, value in self.headers.items() if name.lower() != "authorization"
        )
        stub.record(f"{self.command} {self.path}\n{headers}".encode())
        length = int(self.headers.get("Content-Length") or 0)
        fault = stub.next_fault(self.route)
        if fault and fault.kind == "cut":
            self.rfile.read(length // 2)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        stub.record(body)
        if fault and fault.kind == "hold":
            stub._released.wait()
            if stub._closing.is_set():
                self.close_connection = True
                return
        if fault and fault.kind == "status":
            self._send(
                b"<html>fault asked for by the test</html>", status=fault.status, headers={"Content-Type": "text/html"}
            )
            return
        self._dispatch(body)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _dispatch(self, body: bytes):
        for verb, pattern, needs, answer in _ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and self.command in verb:
                role = {f"Bearer {WRITE_TOKEN}": "write", f"Bearer {READ_TOKEN}": "read"}.get(
                    self.headers.get("Authorization", "")
                )
                if needs and role is None:
                    self._send({"error": "Invalid username or password."}, status=401)
                elif needs == "write" and role != "write":
                    self._send({"error": "This token has no write permission."}, status=403)
                elif "repo" in match.groupdict() and self._repo(match) not in self.stub.repos:
                    self._send({"error": "Repository not found"}, status=404, headers={"X-Error-Code": "RepoNotFound"})
                else:
                    answer(self, match, body)
                return
        self._send(
            {"error": f"no such route: {self.command} {self.route}"},
            status=404,
            headers={"X-Error-Code": "EntryNotFound"},
        )

    def _send(self, content, *, status: int = 200, headers: dict[str, str] | None = None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @staticmethod
    def _repo(match: re.Match[str]) -> str:
        return ("spaces/" if match.groupdict().get("kind") == "spaces" else "") + match["repo"]

    def _whoami(self, _match, _body):
        self._send({"name": USER, "type": "user", "orgs": []})

    def _create(self, _match, body):
        asked = json.loads(body)
        repo = (
            f"{'spaces/' if asked.get('type') == 'space' else ''}{asked.get('organization') or USER}/{asked['name']}"
        )
        exists = repo in self.stub.repos
        if not exists:
            self.stub.add_repo(repo, private=asked.get("visibility") == "private")
        self._send({"url": f"{self.stub.url}/{repo}"}, status=409 if exists else 200)

    def _info(self, match, _body):
        repo = self.stub.repos[self._repo(match)]
        siblings = [{"rfilename": path} for path in repo.files]
        self._send(
            {
                "id": match["repo"],
                "sha": repo.head,
                "private": repo.private,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
        )

    def _tree(self, match, _body):
        files = self.stub.files(self._repo(match))
        self._send(
            [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in files.items()
            ]
        )

    def _preupload(self, _match, body):
        names = [file["path"] for file in json.loads(body)["files"]]
        large = self.stub.lfs
        modes = {name: "lfs" if large and name.endswith(".safetensors") else "regular" for name in names}
        self._send({"files": [{"path": name, "uploadMode": modes[name], "shouldIgnore": False} for name in names]})

    def _batch(self, _match, body):
        wanted = [(item["oid"], item["size"]) for item in json.loads(body)["objects"]]
        actions = {
            oid: {"upload": {"href": f"{self.stub.url}/objects/{oid}"}}
            for oid, _ in wanted
            if oid not in self.stub.objects
        }
        items = [
            {"oid": oid, "size": size, **({"actions": actions[oid]} if oid in actions else {})} for oid, size in wanted
        ]
        self._send({"transfer": "basic", "objects": items})

    def _store(self, match, body):
        good = hashlib.sha256(body).hexdigest() == match["oid"]
        if good:
            self.stub.objects[match["oid"]] = body
        self._send({}, status=200 if good else 400)

    def _commit(self, match, body):
        commit = self.stub.commit(self._repo(match), [json.loads(line) for line in body.splitlines() if line])
        self._send(
            {
                "commitUrl": f"{self.stub.url}/{match['repo']}/commit/{commit.oid}",
                "commitOid": commit.oid,
                "success": True,
            }
        )

    def _validate(self, _match, body):
        front = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
        errors = [] if front else [{"message": "no metadata"}]
        self._send({"errors": errors, "warnings": []}, status=400 if errors else 200)

    def _resolve(self, match, _body):
        repo = self.stub.repos[self._repo(match)]
        data = repo.files.get(match["file"])
        if data is None:
            self._send({"error": "Entry not found"}, status=404, headers={"X-Error-Code": "EntryNotFound"})
            return
        self._send(data, headers={"X-Repo-Commit": repo.head, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

    def _ok(self, _match, _body):
        self._send({})


_KIND = "(?P<kind>models|spaces)"
_REPO = "(?P<repo>[^/]+/[^/]+)"
_ROUTES = [
    ("GET", "/api/whoami-v2", "read", _Handler._whoami),
    ("POST", "/api/repos/create", "write", _Handler._create),
    ("POST", "/api/validate-yaml", "", _Handler._validate),
    ("GET", f"/api/{_KIND}/{_REPO}/auth-check", "read", _Handler._ok),
    ("GET", f"/api/{_KIND}/{_REPO}/auth-check/write", "write", _Handler._ok),
    ("POST", f"/api/{_KIND}/{_REPO}/preupload/main", "write", _Handler._preupload),
    ("POST", f"/{_REPO}\\.git/info/lfs/objects/batch", "write", _Handler._batch),
    ("PUT", "/objects/(?P<oid>[0-9a-f]{64})", "", _Handler._store),
    ("POST", f"/api/{_KIND}/{_REPO}/commit/main", "write", _Handler._commit),
    ("GET", f"/api/{_KIND}/{_REPO}(/revision/[^/]+)?", "", _Handler._info),
    ("GET", f"/api/{_KIND}/{_REPO}/tree/[^/]+", "", _Handler._tree),
    ("GET HEAD", f"/{_REPO}/resolve/[^/]+/(?P<file>.+)", "", _Handler._resolve),
]
