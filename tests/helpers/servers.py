"""A server on this machine that serves made-up files and breaks off as told."""

import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Server(ThreadingHTTPServer):
    """Serves `files` (path below the root -> bytes), each by ranges.

    faults: what the next answers to GET do, one each: a number of bytes after which the connection is cut,
        or a status. sent: (path, first byte, bytes) of each answer to GET.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.faults, self.sent = files, [], []
        self.ranges, self.sizes = True, True
        self.url = f"http://127.0.0.1:{self.server_port}"

    def bytes_of(self, path):
        return sum(count for one, _, count in self.sent if one == path)


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer(head=False)

    def answer(self, head):
        path, server = self.path.lstrip("/"), self.server
        fault = server.faults.pop(0) if server.faults and not head else None
        if path not in server.files or (isinstance(fault, tuple)):
            self.send_error(404 if fault is None else fault[0])
            return
        content = server.files[path]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.sizes:
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hash(content)}"')
        self.end_headers()
        if not head:
            part = content[start:] if fault is None else content[start : start + fault]
            server.sent.append((path, start, len(part)))
            self.wfile.write(part)

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(files):
    """Serve `files` while the block runs."""
    server = Server(files)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
