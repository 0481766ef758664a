"""A hub of models on loopback, in the standard library alone.

It stands in for what the real client, `huggingface_hub`, asks a hub for while it uploads and loads a model: who
am I, create a repository or a branch, which files are large, the upload of large files (git LFS, one PUT each),
a commit, what a repository holds, its branches and commits, and the files themselves. It keeps files by commit and
branch, checks the hash of every large file, refuses a commit upon an outdated parent, knows two users and their
tokens, and hides private repositories from others. `HubServer.log` tells what was asked, in order.

It can be told to fail as hubs and networks do, see `HubServer`.

It does not stand in for: accounts, rights within organisations, tokens for single repositories, gated repositories;
xet, the storage that the real hub prefers for large files (HF_HUB_DISABLE_XET=1 makes the client use LFS); uploads
in several parts; redirects to other hosts; limits of rate and size; its checks of a card's metadata (every card that is
YAML passes here). The words of its refusals are those of the real hub as far as they are known.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import pytest
import yaml

USER, TOKEN = "ada", "hf_loopbackTokenOfAda"
OTHER_USER, OTHER_TOKEN = "bob", "hf_loopbackTokenOfBob"
LARGE = (".safetensors", ".png")
NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
ROUTES = [
    ("POST", r"/recover", "recover"),
    ("GET", r"/api/whoami-v2", "who"),
    ("POST", r"/api/validate-yaml", "check_card"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", rf"/api/models/{NAME}/branch/(?P<rev>[^/]+)", "branch"),
    ("POST", rf"/api/models/{NAME}/preupload/(?P<rev>[^/]+)", "preupload"),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", rf"/lfs/{NAME}/(?P<oid>[0-9a-f]{{64}})", "lfs_put"),
    ("POST", rf"/api/models/{NAME}/commit/(?P<rev>[^/]+)", "commit"),
    ("POST", rf"/api/models/{NAME}/paths-info/(?P<rev>[^/]+)", "paths_info"),
    ("GET", rf"/api/models/{NAME}/revision/(?P<rev>[^/]+)", "info"),
    ("GET", rf"/api/models/{NAME}/tree/(?P<rev>[^/]+)(/(?P<path>.*))?", "tree"),
    ("GET", rf"/api/models/{NAME}/refs", "refs"),
    ("GET", rf"/api/models/{NAME}/commits/(?P<rev>[^/]+)", "commits"),
    ("GET", rf"/api/models/{NAME}", "info"),
    ("GET", rf"/{NAME}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
]


def client_settings(url: str, cache: Path) -> list[tuple[ModuleType, str, Any]]:
    """Return what the modules of the client must hold to talk to this hub, without long pauses.

    Variables of the environment do the same for a new process; here the client is imported already.

    Returns:
        Module, name and value, of each setting.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import _http
    from transformers.utils import hub as transformers_hub

    values = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_CACHE": str(cache / "hub"),
        "HF_TOKEN_PATH": str(cache / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }
    return [
        *((constants, name, value) for name, value in values.items()),
        (_http, "time", hurried()),
        # transformers makes one client when it first needs it, and keeps it with its endpoint.
        (transformers_hub, "_hf_api", None),
    ]


def use_hub(url: str, cache: str, token: str = TOKEN) -> None:
    """Let this process, which a test has started, talk to this hub; the client does not pause."""
    for module, name, value in client_settings(url, Path(cache)):
        setattr(module, name, value)
    os.environ["HF_TOKEN"] = token


def lend_hub(patch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Let the test's own process talk to this hub until the test ends."""
    for module, name, value in client_settings(url, cache):
        patch.setattr(module, name, value)


def use_failing_hub(url: str, cache: str) -> None:
    """The same, and let the hub recover when the run has ended."""
    from hf_genmodels.engine.uploading import Uploads

    use_hub(url, cache)
    end = Uploads._end

    def ending(self: Uploads, seconds: float | None) -> bool:
        is_done = end(self, seconds)
        urlopen(Request(f"{url}/recover", method="POST"))
        return is_done

    Uploads._end = ending  # type: ignore[method-assign]


def hurried() -> SimpleNamespace:
    """Return a `time` whose pauses are short."""
    return SimpleNamespace(sleep=lambda _: time.sleep(0.01), time=time.time)


@dataclass
class Commit:
    """One state of a repository."""

    oid: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """A model on the hub: its branches, each a list of commits, the newest last."""

    private: bool
    branches: dict[str, list[Commit]]

    def find(self, revision: str) -> Commit | None:
        """Return the newest commit of a branch, or the commit of that name."""
        if revision in self.branches:
            return self.branches[revision][-1]
        commits = [commit for branch in self.branches.values() for commit in branch]
        return next((commit for commit in commits if commit.oid == revision), None)


@dataclass
class Faults:
    """How often the hub still fails, and how."""

    server_errors: int = 0  # status 500 to whatever would write
    cut_uploads: int = 0  # the connection ends in the middle of a large file
    no_space: int = 0  # large files are refused, there is no storage left
    echoes_token: int = 0  # status 500 whose message repeats what the client sent


class Refusal(Exception):  # noqa: N818
    """An answer that is not 200."""

    def __init__(self, status: int, message: str, code: str = ""):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass
class HubServer:
    """The hub; use it in a `with` block.

    Attributes:
        faults: Set these to let it fail.
        repositories: What it holds.
        log: Method and path of every request, and for commits the files that came.
        gate: Large files wait before it; clear it to hold them.
    """

    faults: Faults = field(default_factory=Faults)
    repositories: dict[str, Repository] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    large_files: dict[str, bytes] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=lambda: {TOKEN: USER, OTHER_TOKEN: OTHER_USER})
    gate: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> HubServer:
        self.gate.set()
        hub = self
        self.lock = threading.RLock()
        self.http = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}), bind_and_activate=True
        )
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.http.shutdown()
        self.http.server_close()

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return what a repository holds, without the file that the hub puts there itself."""
        commit = self.repositories[name].find(revision)
        assert commit is not None
        return {path: data for path, data in commit.files.items() if path != ".gitattributes"}

    def commits(self, name: str, revision: str = "main") -> list[str]:
        """Return the messages of the commits that clients made."""
        return [commit.message for commit in self.repositories[name].branches[revision][1:]]

    def uploads(self) -> list[str]:
        """Return the requests that sent content: large files, and small ones within a commit."""
        return [path for method, path in self.log if method in ("PUT", "FILE")]


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def _answer(self, method: str) -> None:
        path = urlsplit(self.path).path
        self.hub.log.append((self.command, path))
        try:
            if method == "PUT" and self._takes("cut_uploads"):
                self.rfile.read(int(self.headers["Content-Length"]) // 2)
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self.body = self._read_body()
            if method == "PUT":
                self.hub.gate.wait(60)
            if path != "/recover" and method != "GET" and self._takes("server_errors"):
                raise Refusal(500, "Internal Error - We're working hard to fix this")
            if method != "GET" and self._takes("echoes_token"):
                raise Refusal(500, f"failed for {self.headers.get('Authorization')}")
            for wanted, pattern, name in ROUTES:
                match = re.fullmatch(pattern, path)
                if wanted == method and match:
                    fields = {k: unquote(v) for k, v in match.groupdict().items() if v is not None}
                    with self.hub.lock:
                        getattr(self, f"_{name}")(**fields)
                    return
            raise Refusal(404, f"the hub for tests knows nothing of {method} {path}")
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self._send({"error": refusal.message}, refusal.status, headers)

    def _takes(self, fault: str) -> bool:
        with self.hub.lock:
            left = getattr(self.hub.faults, fault)
            setattr(self.hub.faults, fault, max(left - 1, 0))
            return bool(left)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _user(self) -> str | None:
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        if not token:
            return None
        if scheme != "Bearer" or token not in self.hub.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.users[token]

    def _writer(self, name: str) -> str:
        """Return the user, who may write to a repository."""
        user, owner = self._user(), name.split("/")[0]
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if owner not in self.hub.users.values():
            raise Refusal(404, f"There is no namespace {owner}")
        if user != owner:
            raise Refusal(
                403,
                f'You don\'t have the rights to create a model under the namespace "{owner}"',
            )
        return user

    def _repository(self, name: str) -> Repository:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self._user() != name.split("/")[0]):
            raise Refusal(404 if self._user() else 401, "Repository not found", code="RepoNotFound")
        return found

    def _commit_of(self, name: str, rev: str) -> Commit:
        commit = self._repository(name).find(rev)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {rev}", code="RevisionNotFound")
        return commit

    def _recover(self) -> None:
        """Be told, by a process of a test, to fail no more; no real hub has this."""
        self.hub.faults = Faults()
        self._send({})

    def _who(self) -> None:
        user = self._user()
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        self._send({"type": "user", "name": user, "orgs": []})

    def _check_card(self) -> None:
        text = json.loads(self.body)["content"]
        parts = text.split("---", 2)
        try:
            yaml.safe_load(parts[1] if text.startswith("---") and len(parts) == 3 else "")
        except yaml.YAMLError as error:
            message = str(error).splitlines()[0]
            self._send({"errors": [{"message": message}], "warnings": []}, 400)
            return
        self._send({"errors": [], "warnings": []})

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization'] or self._user()}/{asked['name']}"
        self._writer(name)
        url = {"url": f"{self.hub.url}/{name}", "name": name}
        if name in self.hub.repositories:
            self._send({"error": "You already created this model repo", **url}, 409)
            return
        first = Commit(_oid(name, "initial commit"), "initial commit", {".gitattributes": b"\n"})
        private = asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private, {"main": [first]})
        self._send(url)

    def _branch(self, name: str, rev: str) -> None:
        self._writer(name)
        branches = self._repository(name).branches
        if rev in branches:
            raise Refusal(409, "Reference already exists")
        branches[rev] = [branches["main"][-1]]
        self._send({})

    def _preupload(self, name: str, rev: str) -> None:
        self._writer(name)
        there = self._commit_of(name, rev).files
        files = [
            {
                "path": file["path"],
                "uploadMode": _mode(file["path"]),
                "shouldIgnore": False,
                "oid": _content_oid(file["path"], there) if file["path"] in there else None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._send({"files": files, "commitOid": self._commit_of(name, rev).oid})

    def _lfs_batch(self, name: str) -> None:
        self._writer(name)
        if self._takes("no_space"):
            raise Refusal(403, "Private repository storage limit reached, please upgrade your plan")
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.large_files:
                href = f"{self.hub.url}/lfs/{name}/{wanted['oid']}"
                entry["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(entry)
        self._send({"transfer": "basic", "objects": objects})

    def _lfs_put(self, name: str, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "the content has another hash")
        self.hub.large_files[oid] = self.body
        self._send({})

    def _commit(self, name: str, rev: str) -> None:
        self._writer(name)
        parent = self._commit_of(name, rev)
        files, lines = dict(parent.files), [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, parent.oid):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                self.hub.log.append(("FILE", value["path"]))
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        history = self._repository(name).branches[rev]
        history.append(Commit(_oid(parent.oid, self.body), header["summary"], files))
        url = f"{self.hub.url}/{name}/commit/{history[-1].oid}"
        self._send({"success": True, "commitOid": history[-1].oid, "commitUrl": url})

    def _info(self, name: str, rev: str = "main") -> None:
        commit = self._commit_of(name, rev)
        self._send(
            {
                "id": name,
                "modelId": name,
                "sha": commit.oid,
                "private": self._repository(name).private,
                "tags": [],
                "siblings": [{"rfilename": path} for path in commit.files],
            }
        )

    def _tree(self, name: str, rev: str, path: str = "") -> None:
        files = self._commit_of(name, rev).files
        self._send([_entry(p, files) for p in files if p.startswith(path)])

    def _paths_info(self, name: str, rev: str) -> None:
        files = self._commit_of(name, rev).files
        self._send([_entry(p, files) for p in json.loads(self.body)["paths"] if p in files])

    def _refs(self, name: str) -> None:
        branches = self._repository(name).branches
        heads = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": history[-1].oid}
            for branch, history in branches.items()
        ]
        self._send({"branches": heads, "tags": [], "converts": []})

    def _commits(self, name: str, rev: str) -> None:
        history = self._repository(name).branches[rev]
        self._send(
            [
                {
                    "id": commit.oid,
                    "title": commit.message,
                    "message": "",
                    "authors": [],
                    "date": "2020-01-01T00:00:00.000Z",
                }
                for commit in reversed(history)
            ]
        )

    def _resolve(self, name: str, rev: str, path: str) -> None:
        commit = self._commit_of(name, rev)
        if path not in commit.files:
            raise Refusal(404, "Entry not found", code="EntryNotFound")
        data, oid = commit.files[path], _content_oid(path, commit.files)
        headers = {"ETag": f'"{oid}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "none"}
        if _mode(path) == "lfs":
            headers |= {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(data))}
        self._send(data, headers=headers)


def _mode(path: str) -> str:
    return "lfs" if path.endswith(LARGE) else "regular"


def _content_oid(path: str, files: dict[str, bytes]) -> str:
    """Return the hash that a hub calls a file by: SHA-256 of a large one, git's SHA-1 of others."""
    data = files[path]
    if _mode(path) == "lfs":
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, files: dict[str, bytes]) -> dict[str, Any]:
    oid = _content_oid(path, files)
    entry = {"type": "file", "path": path, "size": len(files[path]), "oid": oid}
    if _mode(path) == "lfs":
        entry["lfs"] = {"oid": oid, "size": len(files[path]), "pointerSize": 134}
    return entry


def _oid(parent: str, content: bytes | str) -> str:
    data = content if isinstance(content, bytes) else content.encode()
    return hashlib.sha1(parent.encode() + data).hexdigest()
