"""A hub of one's own on loopback: what of the hub's interface a download and a push need."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "c" * 40


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files`` by path in the data set, and remembers what is posted."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def answer(self, value, status=200, **headers):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urlsplit(self.path).path
        files = self.server.files
        self.server.asked.append(path)
        if "/resolve/" in path:
            name = path.split("/resolve/")[1].split("/", 1)[1]
            if name not in files:
                self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
                return
            digest = hashlib.sha1(files[name]).hexdigest()
            self.answer(files[name], ETag=f'"{digest}"', X_Repo_Commit=COMMIT)
        elif "/tree/" in path:
            found = [
                {"type": "file", "path": n, "size": len(b), "oid": "0" * 40}
                for n, b in files.items()
            ]
            self.answer(found)
        else:
            siblings = [{"rfilename": name} for name in files]
            self.answer({"id": "me/votes", "sha": COMMIT, "siblings": siblings, "private": False})

    def do_POST(self):
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((path, body))
        if path.endswith("/create"):
            self.answer(
                {"url": f"{self.server.address}/me/model", "name": "me/model", "id": "me/model"}
            )
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self.answer({"files": modes})
        else:
            url = f"{self.server.address}/me/model/commit/{COMMIT}"
            self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})


@contextmanager
def serve_hub(files):
    """Yield a hub that holds a data set of these files, bytes by path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.posted = files, [], []
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
