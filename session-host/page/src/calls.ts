// Calls in. In one document a call is made once per call id: a repeat, after the host's connection was lost, joins the first.
import { cut, forms } from './messages';
import { maybe, need, plain, refuse, str, type Wpp } from './page';
import { above, byKey, head, ownKey, type Found } from './rows';
import { qrText, streamState } from './stream';

/** Promises kept for joining; the oldest are forgotten. */
const MAX_MADE = 20_000;
const MAX_MESSAGE = 300;

type Call = (args: any) => unknown;
type Answer = { ok: unknown } | { err: { code: string; message: string } };

const myIds = (): string[] => {
  const me = need('WAWebUserPrefsMeUser');
  return [maybe(() => me.getMaybeMeLidUser()), maybe(() => me.getMaybeMePnUser())].map(str).filter((id) => id !== null);
};

async function resolveChat(wpp: Wpp, chat: string) {
  const id: any = (await wpp.chat.find(chat)).id;
  const group = id.isGroup();
  const participant = group ? str(maybe(() => need('WAWebUserPrefsMeUser').getMaybeMeLidUser())) : null;
  if (group && !participant) throw refuse('own_lid_unknown', 'a group key ends in our hidden id, which the page does not know yet');
  return { chat: str(id), group, ...forms(id), participant, mine: myIds() };
}

const shown = (m: any): Found => ({ id: String(m.id), ack: Number(m.ack ?? 0), type: str(m.type) ?? 'unknown' });

/** A message under one of these keys: in memory, then stored. An error is never taken for absence. */
async function known(wpp: Wpp, keys: string[]): Promise<Found | null> {
  for (const key of keys) {
    const found = wpp.whatsapp.MsgStore.get(key);
    if (found) return shown(found);
  }
  return byKey(keys);
}

/** A message of ours under any form of its key. */
async function findMessage(wpp: Wpp, keys: string[], idPart: string): Promise<Found | null> {
  const found = await known(wpp, keys);
  if (found) return found;
  const byPart = wpp.whatsapp.MsgStore.getModelsArray().find((m: any) => m.id?.fromMe && m.id.id === idPart);
  if (byPart) return shown(byPart);
  const key = await ownKey(idPart);
  return key ? known(wpp, [key]) : null;
}

interface Text { chat: string; text: string; key: string; quoted?: string | null; markRead: boolean }

async function sendText(wpp: Wpp, { chat, text, key, quoted, markRead }: Text) {
  if (await known(wpp, [key])) throw refuse('duplicate_id', 'the page has a message of this id');
  const sent = await wpp.chat.sendTextMessage(chat, text, {
    messageId: key, waitForAck: false, linkPreview: false, markIsRead: markRead, detectMentioned: false, ...(quoted ? { quotedMsg: quoted } : {}),
  });
  return { id: str(sent.id), ack: Number(sent.ack ?? 0) };
}

async function contactExists(wpp: Wpp, phone: string) {
  const found = await wpp.contact.queryExists(`${phone}@c.us`);
  if (!found) return null;
  const { lid, phone: known } = forms(found.wid);
  return { wid: str(found.wid), lid: str(found.lid) ?? lid, phone: known };
}

const MAX_NAME = 256;
const MAX_MEMBERS = 2048;
const short = (text: unknown): string | null => (typeof text === 'string' && text ? cut(text, MAX_NAME) : null);

/** A group's members, where the page has them. It is not asked to fetch them. */
function membersOf(chat: any) {
  const metadata = chat.groupMetadata;
  if (!metadata || metadata.stale) return null;
  const models: any[] = maybe(() => metadata.participants.getModelsArray()) ?? [];
  return models.length === 0 ? null : models.slice(0, MAX_MEMBERS).map((p) => ({ id: str(p.id), ...forms(p.id), admin: !!p.isAdmin }));
}

async function listChats(wpp: Wpp, offset: number, limit: number) {
  const chats = (await wpp.chat.list({ ignoreGroupMetadata: true })) as any[];
  return chats.slice(offset, offset + Math.min(Math.max(limit, 1), 200)).map((c) => ({
    id: str(c.id), name: short(c.name) ?? short(maybe(() => c.formattedTitle)), ...forms(c.id), unread: Number(c.unreadCount ?? 0),
    archived: !!c.archive, t: c.t ? Number(c.t) : null, members: c.id?.isGroup?.() ? membersOf(c) : null,
  }));
}

function listContacts(wpp: Wpp, offset: number, limit: number) {
  const people = (wpp.whatsapp.ContactStore.getModelsArray() as any[]).filter((c) => c.id?.isUser?.() && !c.id.isPSA?.());
  const page = people.slice(offset, offset + Math.min(Math.max(limit, 1), 200));
  return { people: page.map((c) => ({ id: str(c.id), ...forms(c.id), name: short(c.name), pushname: short(c.pushname) })), more: offset + page.length < people.length };
}

const table = (wpp: Wpp): Record<string, Call> => ({
  state: () => streamState(wpp),
  qr: () => qrText(wpp),
  'qr.refresh': () => { need('WAWebLaunchSocketUtils').refreshQR(); },
  pairingCode: ({ phone }) => wpp.conn.genLinkDeviceCodeForPhoneNumber(phone),
  'chat.resolve': ({ chat }) => resolveChat(wpp, chat),
  'message.find': ({ keys, id }) => findMessage(wpp, keys, id),
  'send.text': (args) => sendText(wpp, args),
  'chat.read': async ({ chat }) => { await wpp.chat.markIsRead(chat); },
  'rows.head': () => head(),
  'messages.above': ({ rowId, limit }) => above(wpp, rowId, limit),
  'contact.exists': ({ phone }) => contactExists(wpp, phone),
  takeover: () => { need('WAWebSocketModel').Socket.takeover(); },
  // wa-js waits for an event that newer pages do not send; the page loads anew when it is done.
  logout: () => { need('WAWebSocketModel').Socket.logout(); },
  'chats.list': ({ offset, limit }) => listChats(wpp, offset, limit),
  'contacts.list': ({ offset, limit }) => listContacts(wpp, offset, limit),
});

function described(e: any): { code: string; message: string } {
  // The page inserts a row and does not replace it: its own word for a known id.
  const name = String(e?.name ?? '');
  const code = name.includes('DuplicateMessage') ? 'duplicate_id' : String(e?.code ?? (name || 'error'));
  return { code, message: String(e?.message ?? e).slice(0, MAX_MESSAGE) };
}

export function caller(wpp: Wpp): (name: string, args: unknown, callId: string) => Promise<Answer> {
  const calls = table(wpp);
  const made = new Map<string, Promise<Answer>>();
  const make = async (name: string, args: unknown): Promise<Answer> => {
    try {
      if (!Object.hasOwn(calls, name)) throw refuse('unknown_call', name);
      return { ok: (await calls[name]!(args)) ?? null };
    } catch (e) { return { err: described(e) }; }
  };
  return (name, args, callId) => {
    const before = made.get(callId);
    if (before) return before;
    const answer = make(name, args).then((made): Answer => JSON.parse(JSON.stringify(made, plain)));
    made.set(callId, answer);
    if (made.size > MAX_MADE) made.delete(made.keys().next().value!);
    return answer;
  };
}
