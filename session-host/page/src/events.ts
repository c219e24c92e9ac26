// Two sources made one: wa-js, and the page's own models and buses. Either may be silent on some page; what both say is told once.
import type { Channel } from './channel';
import { isCiphertext, isWritten, message } from './messages';
import { maybe, need, str, type Emitter, type Msg, type Wpp } from './page';
import { PROBE } from './selftest';
import { qrText, qrTtl, streamState } from './stream';

/** How many messages and receipts are remembered as told. */
const MAX_TOLD = 20_000;

/** What the page announces and wa-js has no event for. */
const COMMANDS = [
  'logout_from_bridge', 'starting_logout_from_bridge', 'account_temporarily_banned_from_bridge', 'service_unavailable_503_from_bridge',
];

/** Says whether it sees a text for the first time. Forgets the oldest. */
function once(): (text: string) => boolean {
  const seen = new Set<string>();
  return (text) => {
    if (seen.has(text)) return false;
    seen.add(text);
    if (seen.size > MAX_TOLD) seen.delete(seen.values().next().value!);
    return true;
  };
}

function messages(wpp: Wpp, out: Channel, store: Emitter): void {
  const first = once();
  const tell = (m: Msg): void => {
    if (!isWritten(m.type) || isCiphertext(m.type) || m.type === PROBE) return;
    if (first(String(m.id))) out.emit('message', message(m));
  };
  const meet = (m: Msg): void => {
    if (isCiphertext(m.type)) (m as unknown as Emitter).once('change:type', () => tell(m)); // readable from here on
    else tell(m);
  };
  wpp.on('chat.new_message', (m: any) => tell(m));
  store.on('add', (m: Msg) => { if (m.isNewMsg) meet(m); });
}

function acks(wpp: Wpp, out: Channel, store: Emitter): void {
  const first = once();
  const tell = (keys: any[], ack: number, chat: unknown, sender: unknown): void => {
    // The sources may spell one key with different forms of the chat: the id part is what they share.
    const fresh = keys.filter((k) => first(`${str(k.id ?? k)} ${ack} ${str(sender) ?? ''}`));
    if (fresh.length === 0) return;
    out.emit('ack', { ids: fresh.map(str), idParts: fresh.map((k) => str(k.id ?? k)), ack, chat: str(chat), sender: str(sender) });
  };
  wpp.on('chat.msg_ack_change', (a: any) => { if (a.chat?.probe !== PROBE) tell(a.ids, a.ack, a.chat, a.sender); });
  store.on('change:ack', (m: any, ack: number) => tell([m.id], ack, m.id?.remote, null));
}

function qr(wpp: Wpp, out: Channel): () => void {
  let shown: string | null | undefined;
  const tell = async (): Promise<void> => {
    const code = await qrText(wpp).catch(() => null);
    if (code === shown) return;
    shown = code;
    out.emit('qr', { code, ttlMs: code ? qrTtl() : null });
  };
  wpp.on('conn.auth_code_change', () => void tell());
  (need('WAWebConnModel').Conn as Emitter).on('change:ref', () => void tell());
  return () => void tell();
}

/** `changed` runs after each change: a code that was scanned is none any more. */
function connection(wpp: Wpp, out: Channel, changed: () => void): () => void {
  const socket: Emitter & { state: unknown } = need('WAWebSocketModel').Socket;
  let told = '';
  const tell = (): void => {
    const state = streamState(wpp);
    const text = JSON.stringify(state);
    if (text === told) return;
    told = text;
    out.emit('stream', state);
    changed();
  };
  (need('WAWebStreamModel').Stream as Emitter).on('change:mode change:info change:needsUpdate', tell);
  socket.on('change:state', () => { out.emit('socket', str(socket.state) ?? ''); tell(); });
  maybe(() => need('WAWebConnModel').Conn.on('change:pushname change:wid', tell));
  wpp.on('conn.needs_update', () => out.emit('cmd', 'needs_update'));
  return tell;
}

function endings(wpp: Wpp, out: Channel): void {
  let told: string | null | undefined;
  const loggedOut = (reason: string | null): void => {
    if (told === undefined || (told === null && reason !== null)) {
      told = reason;
      out.emit('logout', reason);
    }
    out.flush(); // the page is about to go
  };
  wpp.on('conn.logout_reason', (reason: any) => loggedOut(str(reason)));
  wpp.on('conn.logout', () => loggedOut(null));
  const cmd: Emitter = need('WAWebCmd').Cmd;
  for (const name of COMMANDS) {
    cmd.on(name, () => {
      out.emit('cmd', name);
      if (name === 'logout_from_bridge') loggedOut(null);
    });
  }
}

/** Starts listening; answers what tells the present state, for when the driver is ready. */
export function listen(wpp: Wpp, out: Channel): () => void {
  const store: Emitter = need('WAWebCollections').Msg;
  messages(wpp, out, store);
  acks(wpp, out, store);
  endings(wpp, out);
  const tellQr = qr(wpp, out);
  const tellStream = connection(wpp, out, tellQr);
  return () => { tellStream(); tellQr(); };
}
