"""A hub on loopback: the requests that huggingface_hub sends to download, create and commit.

Repositories have commits, private ones need a token, and large files go through Git LFS: the client
asks where to, puts them there, and commits their SHA-256.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

DATASET = "datasets/me/votes"


class Repo:
    """Commits of a repository: bytes by path, by the id of the commit, the newest last."""

    def __init__(self, files, *, is_private):
        self.commits, self.is_private = {}, is_private
        self.commit(files)

    def commit(self, files):
        """Add a commit that has these files; return its id."""
        known = sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files.items())
        oid = hashlib.sha1(json.dumps([len(self.commits), known]).encode()).hexdigest()
        self.commits[oid] = dict(files)
        return oid

    @property
    def head(self):
        """Id of the newest commit."""
        return list(self.commits)[-1]

    @property
    def files(self):
        """Files of the newest commit."""
        return self.commits[self.head]


def is_large(name, size):
    """Return whether Git LFS takes a file, as the hub's .gitattributes say."""
    return fnmatch.fnmatch(name, "*.safetensors") or size > 10_000_000


def blob_id(data):
    """Return the id that git gives the content of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def describe(name, data):
    """Return a file as the list of a tree has it."""
    entry = {"type": "file", "path": name, "size": len(data), "oid": blob_id(data)}
    if is_large(name, len(data)):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
    return entry


class Handler(BaseHTTPRequestHandler):
    """Answers requests about ``server.repos``, and remembers them in ``server.asked``."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_):
        """Log nothing."""

    def answer(self, value=None, status=200, **headers):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, message="Not found"):
        self.answer({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def handle_any(self):
        path = unquote(urlsplit(self.path).path).strip("/")
        body = self.read_body()
        self.server.asked.append((self.command, path, body))
        is_known = "Authorization" in self.headers
        if self.command in ("POST", "PUT") and not is_known and not path.startswith("lfs/"):
            self.refuse(401, "", "Invalid username or password.")
        elif path.startswith("lfs/"):
            self.keep_large(path.removeprefix("lfs/"), body)
        elif path == "api/repos/create":
            self.create(json.loads(body))
        elif path == "api/validate-yaml":
            self.validate(json.loads(body)["content"])
        else:
            self.answer_about_repo(path, body, is_known)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def keep_large(self, name, body):
        """Keep a large file under its SHA-256, or give it."""
        if self.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == name
            self.server.large[name] = body
            self.answer()
        elif name == "verify":
            is_there = json.loads(body)["oid"] in self.server.large
            self.answer({}, 200 if is_there else 404)
        else:
            self.answer(self.server.large[name])

    def create(self, wanted):
        name = f"{wanted['organization']}/{wanted['name']}"
        answer = {"url": f"{self.server.address}/{name}", "name": name, "id": name}
        if name in self.server.repos:
            self.answer(answer | {"error": "You already created this model repo"}, 409)
            return
        files = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
        is_private = wanted.get("visibility") == "private" or wanted.get("private", False)
        self.server.repos[name] = Repo(files, is_private=is_private)
        self.answer(answer)

    def validate(self, card):
        """Refuse a card without front matter."""
        is_valid = card.startswith("---\n")
        errors = [] if is_valid else [{"message": "no front matter"}]
        self.answer({"errors": errors, "warnings": []}, 200 if is_valid else 400)

    def answer_about_repo(self, path, body, is_known):
        about = (
            path.removeprefix("api/models/")
            .removeprefix("api/")
            .removesuffix(".git/info/lfs/objects/batch")
        )
        parts = about.split("/")
        size = 3 if parts[0] == "datasets" else 2
        name, (action, revision, *rest) = "/".join(parts[:size]), [*parts[size:], "", ""][:99]
        repo = self.server.repos.get(name)
        if repo is None or (repo.is_private and not is_known):
            self.refuse(401 if repo else 404, "RepoNotFound", "Repository not found")
            return
        if path.endswith("objects/batch"):
            self.offer_places(json.loads(body))
            return
        oid = repo.head if revision in ("", "main") else revision
        if oid not in repo.commits:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = repo.commits[oid]
        if action == "resolve":
            self.resolve(files, "/".join(rest).strip("/"), oid)
        elif action == "tree":
            self.answer([describe(*file) for file in files.items()])
        elif action == "preupload":
            self.choose_modes(json.loads(body)["files"], files)
        elif action == "commit":
            self.commit(name, repo, body.splitlines())
        else:
            siblings = [{"rfilename": file} for file in files]
            known = {"id": name, "sha": oid, "siblings": siblings, "private": repo.is_private}
            self.answer(known)

    def resolve(self, files, file, oid):
        if file not in files:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        data = files[file]
        if not is_large(file, len(data)):
            self.answer(data, ETag=f'"{blob_id(data)}"', X_Repo_Commit=oid)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        self.server.large[sha256] = data
        storage = self.server.address.replace("127.0.0.1", "localhost")  # another host
        self.answer(
            b"", 302, Location=f"{storage}/lfs/{sha256}", X_Repo_Commit=oid,
            X_Linked_Size=str(len(data)), X_Linked_ETag=f'"{sha256}"',
        )  # fmt: skip

    def choose_modes(self, wanted, files):
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if is_large(file["path"], file["size"]) else "regular",
                "shouldIgnore": False,
                "oid": blob_id(files[file["path"]]) if file["path"] in files else None,
            }
            for file in wanted
        ]
        self.answer({"files": modes})

    def offer_places(self, wanted):
        objects = []
        for file in wanted["objects"]:
            action = {"href": f"{self.server.address}/lfs/{file['oid']}"}
            verify = {"href": f"{self.server.address}/lfs/verify"}
            new = {"actions": {"upload": action, "verify": verify}}
            objects.append(file | ({} if file["oid"] in self.server.large else new))
        self.answer({"transfer": "basic", "objects": objects})

    def commit(self, name, repo, lines):
        files = dict(repo.files)
        for line in lines:
            match json.loads(line):
                case {"key": "file", "value": file}:
                    files[file["path"]] = base64.b64decode(file["content"])
                case {"key": "lfsFile", "value": file}:
                    files[file["path"]] = self.server.large[file["oid"]]
                case {"key": "deletedFile", "value": file}:
                    del files[file["path"]]
        oid = repo.commit(files)
        url = f"{self.server.address}/{name}/commit/{oid}"
        self.answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


@contextmanager
def serve_hub(files=None):
    """Yield a hub; with `files`, bytes by path, it holds a data set ``me/votes`` of these files."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.repos = {} if files is None else {DATASET: Repo(files, is_private=False)}
    server.asked, server.large = [], {}
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run_with_hub(hub, folder, *words, online=True, token="hf_x"):
    """Run Python in a fresh process in `folder`, with a cache there and this hub."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0" if online else "1",
        "HF_TOKEN": token,
    }
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
