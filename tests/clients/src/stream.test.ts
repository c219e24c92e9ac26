// The stream of events, heard by the npm package `eventsource` as by a browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { EventSource } from "eventsource";

const { API_URL = "", ACCESS_TOKEN = "", PEER = "" } = process.env;
const authorization = `Bearer ${ACCESS_TOKEN}`;

interface Envelope {
  seq: number;
  type: string;
  data: { job?: { id: string } };
}

async function post(path: string, body: unknown): Promise<any> {
  const headers = { authorization, "content-type": "application/json" };
  const answer = await fetch(`${API_URL}${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  assert.ok(answer.ok, `${path}: ${answer.status}`);
  return answer.json();
}

/** Sends a message; answers the id of its job. */
async function send(text: string): Promise<string> {
  return (await post(`/api/chats/${PEER}/messages`, { type: "text", text })).id;
}

/** The end of a job, as the stream tells it. */
function ended(source: EventSource, job: string): Promise<{ id: string; event: Envelope }> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no event for ${job}`)), 20_000);
    source.addEventListener("message", (message) => {
      const event: Envelope = JSON.parse(message.data);
      if (event.type === "job.updated" && event.data.job?.id === job) {
        clearTimeout(late);
        resolve({ id: message.lastEventId, event });
      }
    });
  });
}

function opened(source: EventSource): Promise<void> {
  return new Promise((resolve, reject) => {
    source.addEventListener("open", () => resolve());
    source.addEventListener("error", (why) => reject(new Error(`not opened: ${why.code} ${why.message}`)), { once: true });
  });
}

test("a page with a ticket hears its events, and goes on from its last id with a new ticket", async () => {
  const { ticket } = await post("/api/events/ticket", {});
  const first = new EventSource(`${API_URL}/api/events/stream?ticket=${ticket}`);
  await opened(first);
  const { id, event } = await ended(first, await send("heard on a stream"));
  first.close();
  assert.equal(id, String(event.seq));

  const missed = await send("sent while nobody listened");
  const again = (await post("/api/events/ticket", {})).ticket;
  const second = new EventSource(`${API_URL}/api/events/stream?ticket=${again}&after=${id}`);
  assert.ok((await ended(second, missed)).event.seq > event.seq);
  second.close();
});

test("a client that lost its connection comes again by itself and misses nothing", async () => {
  let connections = 0;
  const lastIds: (string | null)[] = [];
  let cut = () => {};
  const isCut = new Promise<"cut">((resolve) => (cut = () => resolve("cut")));
  const source = new EventSource(`${API_URL}/api/events/stream?types=job.updated`, {
    fetch: async (url, init) => {
      connections += 1;
      const headers = new Headers(init?.headers as HeadersInit);
      lastIds.push(headers.get("last-event-id"));
      headers.set("authorization", authorization);
      const answer = await fetch(url, { ...init, headers } as RequestInit);
      if (connections > 1 || !answer.body) return answer as any;
      // The first connection breaks under the client when the test says so.
      const reader = answer.body.getReader();
      const body = new ReadableStream({
        async pull(to) {
          const next = await Promise.race([reader.read(), isCut]);
          if (next === "cut") {
            await reader.cancel();
            to.error(new TypeError("the connection was cut"));
          } else if (next.done) {
            to.close();
          } else {
            to.enqueue(next.value);
          }
        },
      });
      return { body, url: answer.url, status: answer.status, redirected: answer.redirected, headers: answer.headers } as any;
    },
  });
  await opened(source);
  const before = await ended(source, await send("before the cut"));
  cut();
  const during = await ended(source, await send("during the cut"));
  const after = await ended(source, await send("after the cut"));
  source.close();
  assert.ok(before.event.seq < during.event.seq && during.event.seq < after.event.seq);
  assert.equal(connections, 2);
  assert.ok(Number(lastIds[1]) >= before.event.seq, `it came again with ${lastIds[1]}`);
});
