// A client whose types were generated from api/openapi.json by a well-known generator, used as its users would.
import assert from "node:assert/strict";
import { test } from "node:test";
import createClient from "openapi-fetch";
import type { paths } from "../build/schema.js";

const { API_URL = "", ADMIN_EMAIL = "", ADMIN_PASSWORD = "", PEER = "" } = process.env;

test("a generated client logs in, sends a message and sees that it arrived", async () => {
  const client = createClient<paths>({ baseUrl: API_URL });
  const login = await client.POST("/api/auth/login", { body: { email: ADMIN_EMAIL, password: ADMIN_PASSWORD } });
  assert.ok(login.data);
  client.use({
    onRequest({ request }) {
      request.headers.set("authorization", `Bearer ${login.data.accessToken}`);
      return request;
    },
  });
  const sent = await client.POST("/api/chats/{chat}/messages", {
    params: { path: { chat: PEER }, header: { Prefer: "wait=20", "Idempotency-Key": "generated-ts" } },
    body: { type: "text", text: "sent by a generated client" },
  });
  assert.equal(sent.response.status, 200, JSON.stringify(sent.error));
  assert.equal(sent.data?.state, "succeeded");
  const job = await client.GET("/api/jobs/{id}", { params: { path: { id: sent.data.id } } });
  assert.equal(job.data?.chat, sent.data.chat);
});

test("a refusal has the shape that the document says", async () => {
  const client = createClient<paths>({ baseUrl: API_URL });
  const refused = await client.GET("/api/chats");
  assert.equal(refused.response.status, 401);
  assert.equal(refused.error?.code, "unauthenticated");
  assert.equal(refused.error?.requestId, refused.response.headers.get("x-request-id"));
});
