"""A web application that counts its own requests.

``/`` answers the host's name and the time it took; ``/metrics`` is for Prometheus. It runs by itself too:
``python main.py``, then http://127.0.0.1:8000/.
"""

import os
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

HOSTNAME = socket.gethostname()
LABELS = {
    "namespace": os.environ.get("POD_NAMESPACE", "default"),
    "pod": os.environ.get("POD_NAME", HOSTNAME),
}
OPERATIONS = Counter("webapp_request_operations", "Requests answered.", LABELS.keys()).labels(**LABELS)
DURATION = Histogram(
    "webapp_request_duration_seconds",
    "Time to answer a request.",
    LABELS.keys(),
    buckets=(1, 2, 5, 6, 10),
).labels(**LABELS)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.answer(generate_latest(), CONTENT_TYPE_LATEST)
        elif self.path == "/":
            start = time.perf_counter()
            body = f"Hello from {LABELS['pod']}, "
            elapsed = time.perf_counter() - start
            OPERATIONS.inc()
            DURATION.observe(elapsed)
            self.answer(f"{body}answered in {elapsed * 1000:.3f} ms\n".encode(), "text/plain; charset=utf-8")
        else:
            self.send_error(404)

    def answer(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, template: str, *args: object) -> None:
        """One line a request would drown the log at load; failures still show."""
        if args and str(args[1] if len(args) > 1 else "").startswith(("4", "5")):
            super().log_message(template, *args)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    print(f"serving on port {port}", flush=True)
    Server(("0.0.0.0", port), Handler).serve_forever()
