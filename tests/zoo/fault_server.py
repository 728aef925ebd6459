"""A real HTTP server for the store's tests that can do wrong on purpose."""

import base64
import dataclasses
import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c

# Google Cloud Storage's answer for an object that does not exist.
ACCESS_DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"
_PIECE = 4096


def goog_hash(body, md5=True):
    crc = base64.b64encode(google_crc32c.value(body).to_bytes(4, "big")).decode()
    return f"crc32c={crc}" + (f",md5={base64.b64encode(hashlib.md5(body).digest()).decode()}" if md5 else "")


@dataclasses.dataclass
class Reply:
    """What to send, and what to do wrong.

    Attributes:
      headers: replace the usual ones; None leaves one out.
      drop_after, stall_after: body bytes of this reply after which the connection is cut, or nothing more comes.
      bytes_per_second: slows the body down.
      ranges: "" = served as they should be, "ignored", "shifted" (another part than was asked for).
    """

    body: bytes = b""
    status: int = 200
    headers: dict = dataclasses.field(default_factory=dict)
    drop_after: int | None = None
    stall_after: int | None = None
    bytes_per_second: float | None = None
    ranges: str = ""


class FaultServer(ThreadingHTTPServer):
    """The server; it runs until `close()`.

    Attributes:
      plan: path -> its replies in turn, the last one for ever.
      asked: (path, Range) of each request.
      sent: body bytes sent so far, of all replies.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan, self.asked, self.sent = {}, [], 0
        self.ending = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self):
        self.ending.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request, client_address):
        pass  # clients of these tests are killed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        server, span = self.server, self.headers.get("Range")
        server.asked.append((self.path, span))
        replies = server.plan.get(self.path, [Reply(ACCESS_DENIED, 403, {"Content-Type": "application/xml"})])
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        body, status = reply.body, reply.status
        headers = {"Content-Type": "application/x-tar", "Connection": "close"}
        if status == 200:
            headers |= {"ETag": f'"{hashlib.md5(body).hexdigest()}"', "x-goog-hash": goog_hash(body)}
            if span and reply.ranges != "ignored":
                start, whole = int(span.removeprefix("bytes=").rstrip("-")), len(body)
                start -= min(start, 7) if reply.ranges == "shifted" else 0
                status, body = (206, body[start:]) if start < whole else (416, b"")
                headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}" if body else f"bytes */{whole}"
        headers["Content-Length"] = str(len(body))
        headers |= reply.headers
        self.send_response(status)
        for key, value in headers.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
        self._send(body, reply)

    def _send(self, body, reply):
        for at in range(0, len(body), _PIECE):
            piece = body[at : at + _PIECE]
            for limit, end in ((reply.drop_after, self._cut), (reply.stall_after, self._stall)):
                if limit is not None and at + len(piece) > limit:
                    self.wfile.write(piece[: limit - at])
                    self.server.sent += limit - at
                    return end()
            self.wfile.write(piece)
            self.server.sent += len(piece)
            if reply.bytes_per_second:
                time.sleep(len(piece) / reply.bytes_per_second)

    def _cut(self):
        self.wfile.flush()
        self.connection.shutdown(2)

    def _stall(self):
        self.wfile.flush()
        self.server.ending.wait(20)

    def log_message(self, *args):
        pass
