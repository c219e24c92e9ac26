// Others' validators on the two documents: AsyncAPI's own parser, and JSON Schema on the examples and on what really happened.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Parser } from "@asyncapi/parser";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import type { components } from "./schema.js";

type Event = components["schemas"]["Event"];

const { API_URL = "", ACCESS_TOKEN = "", PEER = "" } = process.env;
const headers = { authorization: `Bearer ${ACCESS_TOKEN}`, "content-type": "application/json" };
const file = (name: string) => JSON.parse(readFileSync(new URL(`../../../api/${name}`, import.meta.url), "utf8"));
const [openapi, asyncapi] = [file("openapi.json"), file("asyncapi.json")];

/** Validates by a schema of a document's components. */
function validator(document: any, name: string) {
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  (addFormats as any)(ajv);
  ajv.addSchema({ $id: "document", components: document.components });
  const validate = ajv.compile({ $ref: `document#/components/schemas/${name}` });
  return (value: unknown) => assert.ok(validate(value), `${name}: ${ajv.errorsText(validate.errors)}\n${JSON.stringify(value)}`);
}

const envelopeOf = (type: string): string => asyncapi.components.messages[type].payload.$ref.split("/").at(-1);

test("the AsyncAPI document is one, and the one that is served", async () => {
  const diagnostics = await new Parser().validate(JSON.stringify(asyncapi));
  const errors = diagnostics.filter((d) => d.severity === 0).map((d) => `${d.path.join(".")}: ${d.message}`);
  assert.deepEqual(errors, []);
  const served = await fetch(`${API_URL}/asyncapi.json`);
  assert.deepEqual(await served.json(), asyncapi);
});

test("the example of every type is what its schema says, and nothing else is", () => {
  const types = Object.entries<any>(asyncapi.components.messages).filter(([, message]) => "x-in-the-log" in message);
  assert.ok(types.length >= 13);
  for (const [type, message] of types) {
    const validate = validator(asyncapi, envelopeOf(type));
    const { payload } = message.examples[0];
    validate(payload);
    assert.throws(() => validate({ ...payload, type: "another" }));
    assert.throws(() => validate({ ...payload, data: {} }));
    if (message["x-in-the-log"]) {
      validator(openapi, "Event")(payload);
      validate({ ...payload, data: { erased: true } });
    }
  }
});

test("an event of a type that the document does not know is still an event", () => {
  const known = asyncapi.components.messages.message.examples[0].payload;
  validator(openapi, "Event")({ ...known, type: "moon.landed", data: { moon: 1 } });
});

test("every event of a linked session's log is what the schema of its type says", async () => {
  const sent = await fetch(`${API_URL}/api/chats/${PEER}/messages`, {
    method: "POST",
    headers: { ...headers, prefer: "wait=20" },
    body: JSON.stringify({ type: "text", text: "for the catalogue", reference: "catalogue-1" }),
  });
  assert.equal(sent.status, 200);
  const log: Event[] = [];
  for (let after = 0; ; ) {
    const page: any = await (await fetch(`${API_URL}/api/events?after=${after}&limit=200`, { headers })).json();
    log.push(...page.items);
    if (page.next === after) break;
    after = page.next;
  }
  for (const event of log) {
    validator(openapi, "Event")(event);
    validator(asyncapi, envelopeOf(event.type))(event);
  }
  const types = new Set<string>(log.map((event) => event.type));
  for (const type of ["session.status", "message", "job.updated"]) assert.ok(types.has(type), type);
  // The type narrows the body, as users of the generated types write it; a body may have been erased.
  const ours = log.flatMap((event) => (event.type === "message" && "message" in event.data ? [event.data.message] : []));
  assert.equal(ours.filter((message) => message.fromMe && message.reference === "catalogue-1").length, 1);
});
