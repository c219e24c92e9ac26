"""Socket.IO, heard by the official Python client."""

import json
import os
import queue
import unittest
import urllib.request

import socketio

ENV = os.environ


def ask(method, path, body=None):
    headers = {"authorization": f"Bearer {ENV['ACCESS_TOKEN']}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(ENV["API_URL"] + path, data, headers, method=method)) as answer:
        return json.load(answer)


def send(text):
    return ask("POST", f"/api/chats/{ENV['PEER']}/messages", {"type": "text", "text": text})["id"]


class Listener:
    """A client that keeps what it hears."""

    def __init__(self, **auth):
        self.heard = queue.Queue()
        self.events = []
        self.client = socketio.Client(reconnection=False)
        self.client.on("*", lambda name, *arguments: self.heard.put((name, arguments)))
        self.client.connect(ENV["API_URL"], transports=["websocket"], auth=auth)

    def until(self, fits):
        while True:
            name, arguments = self.heard.get(timeout=20)
            if name not in ("cursor", "auth.expiring"):
                self.events.append(arguments[-1])
            if fits(name, *arguments):
                return arguments[-1]

    def ended(self, job):
        return self.until(lambda name, said: name == "job.updated" and said["data"]["job"]["id"] == job)


class Official(unittest.TestCase):
    def test_a_client_hears_live_and_goes_on_after_a_disconnect_without_loss_or_repetition(self):
        first = Listener(token=ENV["ACCESS_TOKEN"])
        start = first.until(lambda name, *_: name == "cursor")["seq"]
        last = first.ended(send("heard in Python"))["seq"]
        first.client.disconnect()
        missed = send("sent while no Python listened")
        second = Listener(token=ENV["ACCESS_TOKEN"], after=last)
        end = second.ended(missed)["seq"]
        second.client.disconnect()
        log = [event for event in ask("GET", f"/api/events?after={start}&limit=200")["items"] if event["seq"] <= end]
        self.assertEqual(first.events + second.events, log)

    def test_a_key_listens_subscribes_and_hears_why_it_is_refused(self):
        key = ask("POST", "/api/keys", {"name": "py", "scopes": ["events:read"]})["secret"]
        listener = Listener(apiKey=key)
        listener.until(lambda name, *_: name == "cursor")
        self.assertIn("cursor", listener.client.call("subscribe", {"types": ["message"]}))
        self.assertEqual(listener.client.call("subscribe", {"session": "nope"})["problem"]["code"], "not_found")
        job = send("filtered in Python")
        said = listener.until(lambda name, said: name == "message" and said["data"]["message"]["job"] == job)
        self.assertEqual(said["data"]["message"]["text"], "filtered in Python")
        listener.client.disconnect()
        for auth in ({}, {"token": "nonsense"}):
            refusal = queue.Queue()
            client = socketio.Client(reconnection=False)
            client.on("connect_error", refusal.put)
            with self.assertRaises(socketio.exceptions.ConnectionError):
                client.connect(ENV["API_URL"], transports=["websocket"], auth=auth)
            self.assertEqual(refusal.get(timeout=5)["data"]["code"], "unauthenticated")


if __name__ == "__main__":
    unittest.main()
