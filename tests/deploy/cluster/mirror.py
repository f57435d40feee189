"""What pods would find on the internet or at a company, served by this machine: git, Helm repositories, a listener.

`python -m tests.deploy.cluster.mirror` serves until it is stopped. Repositories are bare, below `git/<host>`; Helm
repositories are folders with an index, below `helm/<host>`; what is posted to the listener becomes a line of its file.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.deploy.cluster.machine import NODE_ADDRESS, state

GIT_PORT, LISTENER_PORT, TLS_PORT = 8470, 8471, 443
HEARD = "notifications.jsonl"


def main() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(state() / "pki" / "mirror.crt", state() / "pki" / "mirror.key")
    secure = ThreadingHTTPServer((NODE_ADDRESS, TLS_PORT), Mirror)
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    servers = [
        secure,
        ThreadingHTTPServer((NODE_ADDRESS, GIT_PORT), Mirror),
        ThreadingHTTPServer((NODE_ADDRESS, LISTENER_PORT), Listener),
    ]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


class Mirror(BaseHTTPRequestHandler):
    """Git by its own program, files as they are."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host = (self.headers.get("host") or "").partition(":")[0]
        path = unquote(urlsplit(self.path).path)
        repository = path.strip("/").removesuffix("/info/refs").removesuffix("/git-upload-pack")
        if (state() / "git" / host / repository / "HEAD").exists():
            self.git(host, path)
            return
        file = (state() / "helm" / host / path.lstrip("/")).resolve()
        if file.is_file() and file.is_relative_to(state() / "helm"):
            self.answer(200, file.read_bytes(), "application/octet-stream")
        else:
            self.answer(404, b"not here", "text/plain")

    def do_POST(self) -> None:
        self.do_GET()

    def git(self, host: str, path: str) -> None:
        body = self.body()
        done = subprocess.run(
            ["git", "http-backend"], input=body, capture_output=True, check=False,
            env={
                **os.environ, "GIT_PROJECT_ROOT": str(state() / "git" / host), "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path, "QUERY_STRING": urlsplit(self.path).query, "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("content-type", ""), "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
                "GIT_PROTOCOL": self.headers.get("git-protocol", ""), "REMOTE_ADDR": self.client_address[0],
            },
        )  # fmt: skip
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        self.answer(status, content, headers.get("Content-Type", "text/plain"))

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Listener(BaseHTTPRequestHandler):
    """Writes down what is posted, as the place where notifications arrive."""

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers.get("content-length") or 0)).decode(errors="replace")
        with (state() / HEARD).open("a") as file:
            file.write(json.dumps({"at": time.time(), "said": said}) + "\n")
        self.send_response(204)
        self.end_headers()


def heard() -> list[dict[str, object]]:
    """Everything that was posted to the listener."""
    path: Path = state() / HEARD
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
