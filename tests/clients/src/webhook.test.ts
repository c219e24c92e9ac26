// Webhooks, received and verified with the npm package `standardwebhooks` as its users would.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const { API_URL = "", ACCESS_TOKEN = "", PEER = "" } = process.env;

interface Got {
  headers: Record<string, string>;
  raw: string;
}

async function call(method: string, path: string, body?: unknown): Promise<any> {
  const headers = { authorization: `Bearer ${ACCESS_TOKEN}`, "content-type": "application/json" };
  const answer = await fetch(`${API_URL}${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  assert.ok(answer.ok, `${path}: ${answer.status} ${answer.ok ? "" : await answer.text()}`);
  return answer.status === 204 ? undefined : answer.json();
}

const strings = (headers: IncomingHttpHeaders) => Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]));

async function received(got: Got[], type: string): Promise<Got> {
  for (const end = Date.now() + 30_000; Date.now() < end; ) {
    const found = got.find((g) => JSON.parse(g.raw).type === type);
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`no ${type} came`);
}

test("what a webhook brings verifies with its secret, with the one of before while both live, and with no other", async () => {
  const got: Got[] = [];
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      got.push({ headers: strings(request.headers), raw: Buffer.concat(parts).toString("utf8") });
      response.writeHead(204).end();
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;
  const hook = await call("POST", "/api/webhooks", { name: "node", url, types: ["job.updated"] });
  try {
    await call("POST", `/api/chats/${PEER}/messages`, { type: "text", text: "told by a webhook: añá 🎉" });
    const { headers, raw } = await received(got, "job.updated");
    const event = new Webhook(hook.secret).verify(raw, headers) as { id: string; type: string };
    assert.deepEqual([event.id, event.type], [headers["webhook-id"], "job.updated"]);
    const [first, ...rest] = raw;
    assert.throws(() => new Webhook(hook.secret).verify(` ${first}${rest.join("")}`, headers), WebhookVerificationError);
    assert.throws(() => new Webhook(Buffer.alloc(32).toString("base64")).verify(raw, headers), WebhookVerificationError);

    const rotated = await call("POST", `/api/webhooks/${hook.id}/secret`, {});
    got.length = 0;
    await call("POST", `/api/webhooks/${hook.id}/test`);
    const test = await received(got, "webhook.test");
    for (const secret of [hook.secret, rotated.secret]) {
      new Webhook(secret).verify(test.raw, test.headers);
    }
  } finally {
    await call("DELETE", `/api/webhooks/${hook.id}`);
    server.close();
    server.closeAllConnections();
  }
});
