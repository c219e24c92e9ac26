"""A client generated from api/openapi.json by openapi-python-client, used as its users would."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "build"))

from zaguan_client import AuthenticatedClient, Client  # noqa: E402
from zaguan_client.api.auth import login  # noqa: E402
from zaguan_client.api.chats import list_chats  # noqa: E402
from zaguan_client.api.messages import send_to_chat  # noqa: E402
from zaguan_client.models import Job, JobState, Login, NewText, Problem, TokenPair  # noqa: E402
from zaguan_client.models.kind import Kind  # noqa: E402

ENV = os.environ


class Generated(unittest.TestCase):
    def test_a_generated_client_logs_in_sends_a_message_and_sees_that_it_arrived(self):
        stranger = Client(base_url=ENV["API_URL"])
        pair = login.sync(client=stranger, body=Login(email=ENV["ADMIN_EMAIL"], password=ENV["ADMIN_PASSWORD"]))
        self.assertIsInstance(pair, TokenPair)
        client = AuthenticatedClient(base_url=ENV["API_URL"], token=pair.access_token, timeout=30)
        body = NewText(type_=Kind.TEXT, text="sent by a generated client")
        job = send_to_chat.sync(ENV["PEER"], client=client, body=body, prefer="wait=20", idempotency_key="generated-py")
        self.assertIsInstance(job, Job)
        self.assertEqual(job.state, JobState.SUCCEEDED)
        chats = list_chats.sync(client=client)
        self.assertIn(job.chat, [chat.id for chat in chats.items])

    def test_a_refusal_has_the_shape_that_the_document_says(self):
        refused = list_chats.sync_detailed(client=AuthenticatedClient(base_url=ENV["API_URL"], token="nobody"))
        self.assertEqual(refused.status_code, 401)
        self.assertIsInstance(refused.parsed, Problem)
        self.assertEqual(refused.parsed.request_id, refused.headers["x-request-id"])


if __name__ == "__main__":
    unittest.main()
