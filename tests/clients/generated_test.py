"""A client generated from api/openapi.json by openapi-python-client, used as its users would."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "build"))

from zaguan_client import AuthenticatedClient, Client  # noqa: E402
from zaguan_client.api.auth import login  # noqa: E402
from zaguan_client.api.chats import list_chats  # noqa: E402
from zaguan_client.api.events import list_events  # noqa: E402
from zaguan_client.api.messages import send_to_chat  # noqa: E402
from zaguan_client.models import (  # noqa: E402
    Events,
    Job,
    JobState,
    JobUpdatedEvent,
    Login,
    MessageEvent,
    NewText,
    OtherEvent,
    Problem,
    SessionStatusEvent,
    TokenPair,
)
from zaguan_client.models.kind import Kind  # noqa: E402

ENV = os.environ


class Generated(unittest.TestCase):
    def test_a_generated_client_logs_in_sends_a_message_and_sees_that_it_arrived(self):
        client = self.logged_in()
        body = NewText(type_=Kind.TEXT, text="sent by a generated client")
        job = send_to_chat.sync(ENV["PEER"], client=client, body=body, prefer="wait=20", idempotency_key="generated-py")
        self.assertIsInstance(job, Job)
        self.assertEqual(job.state, JobState.SUCCEEDED)
        chats = list_chats.sync(client=client)
        self.assertIn(job.chat, [chat.id for chat in chats.items])

    def test_events_are_read_as_what_their_types_say(self):
        page = list_events.sync(client=self.logged_in(), limit=200)
        kinds = {type(event) for event in page.items}
        self.assertTrue({SessionStatusEvent, MessageEvent, JobUpdatedEvent} <= kinds, kinds)
        self.assertNotIn(OtherEvent, kinds)

    def test_a_type_that_the_document_does_not_know_is_an_event_all_the_same(self):
        known = list_events.sync(client=self.logged_in(), limit=1).items[0].to_dict()
        page = Events.from_dict({"items": [known | {"type": "moon.landed", "data": {"moon": 1}}], "next": 1})
        self.assertIsInstance(page.items[0], OtherEvent)

    def logged_in(self):
        stranger = Client(base_url=ENV["API_URL"])
        pair = login.sync(client=stranger, body=Login(email=ENV["ADMIN_EMAIL"], password=ENV["ADMIN_PASSWORD"]))
        self.assertIsInstance(pair, TokenPair)
        return AuthenticatedClient(base_url=ENV["API_URL"], token=pair.access_token, timeout=30)

    def test_a_refusal_has_the_shape_that_the_document_says(self):
        refused = list_chats.sync_detailed(client=AuthenticatedClient(base_url=ENV["API_URL"], token="nobody"))
        self.assertEqual(refused.status_code, 401)
        self.assertIsInstance(refused.parsed, Problem)
        self.assertEqual(refused.parsed.request_id, refused.headers["x-request-id"])


if __name__ == "__main__":
    unittest.main()
