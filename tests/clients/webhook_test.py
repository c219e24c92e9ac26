"""Webhooks, received and verified with the PyPI package `standardwebhooks` as its users would."""

import base64
import http.server
import json
import os
import queue
import threading
import unittest
import urllib.request

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

ENV = os.environ


def call(method, path, body=None):
    headers = {"authorization": f"Bearer {ENV['ACCESS_TOKEN']}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(ENV["API_URL"] + path, data, headers, method=method), timeout=30) as answer:
        return json.loads(answer.read() or b"null")


class Received(unittest.TestCase):
    def test_what_a_webhook_brings_verifies_with_its_secret_and_with_no_other(self):
        got = queue.Queue()

        class Receiver(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                got.put((self.rfile.read(int(self.headers["content-length"])), dict(self.headers)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/hook"
        hook = call("POST", "/api/webhooks", {"name": "python", "url": url, "types": ["job.updated"]})
        try:
            call("POST", f"/api/chats/{ENV['PEER']}/messages", {"type": "text", "text": "told by a webhook: añá 🎉"})
            raw, headers = got.get(timeout=30)
            event = Webhook(hook["secret"]).verify(raw, headers)
            self.assertEqual((event["type"], event["id"]), ("job.updated", {k.lower(): v for k, v in headers.items()}["webhook-id"]))
            for secret, body in [(hook["secret"], raw + b" "), (base64.b64encode(bytes(32)).decode(), raw)]:
                with self.assertRaises(WebhookVerificationError):
                    Webhook(secret).verify(body, headers)
        finally:
            call("DELETE", f"/api/webhooks/{hook['id']}")
            server.shutdown()


if __name__ == "__main__":
    unittest.main()
