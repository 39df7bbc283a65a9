"""A server on this machine that serves made-up files and fails as told."""

from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Server(ThreadingHTTPServer):
    """Serves `files` (path below the root -> bytes).

    faults: how the next answers fail, one each: a number of bytes after which the connection is closed, or a
        status in a tuple.
    requested: the path of each request.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.faults, self.requested = files, [], []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.lstrip("/")
        self.server.requested.append(path)
        fault = self.server.faults.pop(0) if self.server.faults else None
        if path not in self.server.files or isinstance(fault, tuple):
            self.send_error(fault[0] if fault else 404)
            return
        content = self.server.files[path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:fault])

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
