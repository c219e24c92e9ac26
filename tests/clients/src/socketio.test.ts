// Socket.IO, heard by the official client.
import assert from "node:assert/strict";
import { test } from "node:test";
import { io, type Socket } from "socket.io-client";

const { API_URL = "", ACCESS_TOKEN = "", PEER = "" } = process.env;

interface Envelope {
  seq: number;
  type: string;
  data: any;
}

async function ask(method: string, path: string, body?: unknown, token = ACCESS_TOKEN): Promise<any> {
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(`${API_URL}${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${answer.ok ? "" : await answer.text()}`);
  return answer.status === 204 ? undefined : answer.json();
}

/** Sends a message; answers the job. */
function send(text: string): Promise<{ id: string; chat: string }> {
  return ask("POST", `/api/chats/${PEER}/messages`, { type: "text", text });
}

/** Every event of the log behind a cursor, by the other transport. */
async function log(after: number): Promise<Envelope[]> {
  return (await ask("GET", `/api/events?after=${after}&limit=200`)).items;
}

/** A socket that keeps what it hears, and its cursor for the next connection. */
class Listener {
  readonly heard: Envelope[] = [];
  readonly names: string[] = [];
  after: number | undefined;
  readonly socket: Socket;
  private readonly waiting = new Set<() => void>();

  constructor(auth: object, namespace = "/", after?: number) {
    this.after = after;
    this.socket = io(`${API_URL}${namespace}`, {
      transports: ["websocket"],
      forceNew: true,
      reconnectionDelay: 50,
      auth: (answer) => answer(this.after === undefined ? auth : { ...auth, after: this.after }),
    });
    this.socket.onAny((name: string, ...args: any[]) => {
      const event = args.at(-1);
      this.names.push(name);
      if (typeof event?.seq === "number") this.after = event.seq;
      if (event?.type) this.heard.push(event);
      for (const look of this.waiting) look();
    });
  }

  /** Until it heard something that fits. */
  until<T>(what: string, find: () => T | undefined | false): Promise<T> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no ${what}; heard ${this.names}`)), 20_000);
      const look = () => {
        const found = find();
        if (!found) return;
        clearTimeout(late);
        this.waiting.delete(look);
        resolve(found);
      };
      this.waiting.add(look);
      look();
    });
  }

  ended(job: string): Promise<Envelope> {
    return this.until(`end of ${job}`, () => this.heard.find((e) => e.type === "job.updated" && e.data.job.id === job));
  }

  connected(): Promise<number> {
    return this.until("cursor", () => this.names.includes("cursor") && this.after);
  }

  close(): void {
    this.socket.disconnect();
  }
}

function refused(auth: object, namespace = "/"): Promise<any> {
  const socket = io(`${API_URL}${namespace}`, { transports: ["websocket"], forceNew: true, reconnection: false, auth });
  return new Promise((resolve, reject) => {
    socket.on("connect", () => reject(new Error("let in")));
    socket.on("connect_error", (error) => {
      socket.disconnect();
      resolve(error);
    });
  });
}

test("a client hears live, disconnects, comes back by itself or by hand, and neither misses nor repeats anything", async () => {
  const listener = new Listener({ token: ACCESS_TOKEN });
  const start = await listener.connected();
  await listener.ended((await send("heard on a socket")).id);

  // Cut off from below: it comes again by itself, with its cursor.
  const cut = new Promise((resolve) => listener.socket.once("disconnect", resolve));
  listener.socket.io.engine.close();
  assert.equal(await cut, "forced close");
  await listener.ended((await send("sent behind its back")).id);

  listener.close();
  const missed = await send("sent while nobody listened");
  const again = new Listener({ token: ACCESS_TOKEN }, "/", listener.after);
  await again.ended(missed.id);
  again.close();
  const all = [...listener.heard, ...again.heard].filter((e) => e.seq !== null);
  const last = all.at(-1)!.seq;
  assert.deepEqual(all, (await log(start)).filter((e) => e.seq <= last));
});

test("a key listens, and who shows nothing, nonsense or a key without the scope hears why not", async () => {
  const key = await ask("POST", "/api/keys", { name: "socket", scopes: ["events:read"] });
  const listener = new Listener({ apiKey: key.secret });
  await listener.connected();
  listener.close();
  const other = await ask("POST", "/api/keys", { name: "no socket", scopes: ["chats:read"] });
  for (const [auth, code] of [
    [{}, "unauthenticated"],
    [{ token: "nonsense" }, "unauthenticated"],
    [{ apiKey: other.secret }, "scope_missing"],
    [{ token: ACCESS_TOKEN, after: 1e9 }, "cursor_ahead"],
  ] as const) {
    const error = await refused(auth);
    assert.equal(error.message, code);
    assert.equal(error.data.code, code);
    assert.equal(typeof error.data.detail, "string");
  }
  assert.equal((await refused({ token: ACCESS_TOKEN }, "/elsewhere")).data.code, "not_found");
  const closed = new Promise((resolve) => {
    const revoked = new Listener({ apiKey: key.secret });
    revoked.connected().then(() => ask("DELETE", `/api/keys/${key.id}`));
    revoked.socket.on("stream.end", ({ reason }) => revoked.socket.on("disconnect", (why) => resolve([reason, why])));
  });
  assert.deepEqual(await closed, ["unauthenticated", "io server disconnect"]);
});

test("a subscription narrows what is heard, resume goes back, and a new token is taken", async () => {
  const listener = new Listener({ token: ACCESS_TOKEN });
  const start = await listener.connected();
  assert.deepEqual(await listener.socket.emitWithAck("subscribe", { types: ["message"] }), { cursor: listener.after });
  const job = await send("only the message");
  const message = await listener.until("message", () => listener.heard.find((e) => e.type === "message" && e.data.message.job === job.id));
  assert.deepEqual([...new Set(listener.heard.map((e) => e.type))], ["message"]);
  await listener.socket.emitWithAck("subscribe", {});
  assert.deepEqual(await listener.socket.emitWithAck("resume", { after: start }), { cursor: start });
  await listener.ended(job.id);
  assert.equal(listener.heard.filter((e) => e.seq === message.seq).length, 2, "asked for twice");
  const { expiresAt } = await listener.socket.emitWithAck("auth", { token: ACCESS_TOKEN });
  assert.ok(Date.parse(expiresAt) > Date.now());
  const { problem } = await listener.socket.emitWithAck("sendMessage", PEER, "hi");
  assert.equal(problem.code, "invalid_parameter");
  listener.close();
});

test("an EMPLEADO hears of a granted chat, and of nothing once the grant is gone", async () => {
  const { chat } = await send("a chat to grant");
  const invited = await ask("POST", "/api/users", { email: `clerk-${Date.now()}@clients.example`, name: "Clerk", rol: "EMPLEADO" });
  const token = invited.invitation.url.split("#").at(-1);
  const clerk = await ask("POST", "/api/auth/invitations/accept", { token, password: "correct horse battery" }, "");
  const grant = await ask("POST", `/api/users/${invited.id}/grants`, { session: "default", chat, access: "read" });
  const listener = new Listener({ token: clerk.accessToken });
  await listener.connected();
  await listener.ended((await send("granted")).id);
  await ask("DELETE", `/api/users/${invited.id}/grants/${grant.id}`);
  const { id } = await send("not granted any more");
  const admin = new Listener({ token: ACCESS_TOKEN }, "/", listener.after);
  const { seq } = await admin.ended(id);
  admin.close();
  await listener.until("cursor past it", () => (listener.after ?? 0) >= seq);
  assert.ok(listener.heard.every((e) => e.data.job?.id !== id));
  listener.close();
});

test("the names of whatsapp-web.js are told in their namespace", async () => {
  const listener = new Listener({ token: ACCESS_TOKEN }, "/whatsapp-web.js");
  await listener.connected();
  const created = new Promise<[any, Envelope]>((resolve) => listener.socket.once("message_create", (message, event) => resolve([message, event])));
  const { chat } = await send("by its old name");
  const [message, event] = await created;
  assert.deepEqual([message.body, message.fromMe, message.type, message.to], ["by its old name", true, "chat", chat]);
  assert.equal(event.type, "message");
  listener.close();
});
