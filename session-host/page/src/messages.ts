// Messages of the page as plain values of bounded size.
import { maybe, need, str, type Msg } from './page';

/** WhatsApp's own limit for a text is 65,536 characters. */
const MAX_BODY = 65_536;
const MAX_NAME = 256;

/** Entries of a chat that nobody wrote. */
const NOT_WRITTEN = new Set([
  'notification', 'notification_template', 'e2e_notification', 'broadcast_notification', 'newsletter_notification', 'gp2', 'protocol', 'debug',
]);

/** Whether an entry is a message to tell of: written by somebody, and readable. */
export const isWritten = (type: unknown): boolean => typeof type === 'string' && !NOT_WRITTEN.has(type);
export const isCiphertext = (type: unknown): boolean => type === 'ciphertext';

interface Forms { lid: string | null; phone: string | null }

/**
 * Both forms of a person's id, as far as the page knows them. Groups and the like have neither. A number that moved on is not told of the
 * one who had it: the page still leads from there to the number, but not back.
 */
export function forms(wid: any): Forms {
  if (!wid) return { lid: null, phone: null };
  const { getCurrentLid, getPhoneNumber } = need('WAWebApiContact');
  if (wid.server === 'lid') {
    const phone = maybe(() => getPhoneNumber(wid));
    const holder = phone && maybe(() => getCurrentLid(phone));
    return { lid: str(wid), phone: holder && String(holder) !== String(wid) ? null : str(phone) };
  }
  if (wid.server === 'c.us') return { lid: str(maybe(() => getCurrentLid(wid))), phone: str(wid) };
  return { lid: null, phone: null };
}

/** At most so long, and valid: half a character cannot be written as UTF-8, and a database takes no NUL. */
export const cut = (text: string, max: number): string => {
  const short = text.length > max ? text.slice(0, max) : text;
  return (short as any).toWellFormed().replaceAll('\0', '\uFFFD');
};

/** As the host reads it (`PageMessage`). `rowId` where the caller knows it. */
export function message(m: Msg, rowId?: number) {
  const key: any = m.id;
  const chat = forms(key.remote);
  const me = (): any => need('WAWebUserPrefsMeUser').getMaybeMePnUser();
  const sender: any = key.fromMe ? maybe(me) : (key.participant ?? m.author ?? key.remote);
  const senderForms = forms(sender);
  const text = typeof m.body === 'string' && m.type === 'chat' ? m.body : typeof m.caption === 'string' ? m.caption : null;
  return {
    id: str(key), idPart: str(key.id), fromMe: !!key.fromMe, chat: str(key.remote), chatLid: chat.lid, chatPhone: chat.phone,
    sender: str(sender), senderLid: senderForms.lid, senderPhone: senderForms.phone,
    type: str(m.type) ?? 'unknown', subtype: str(m.subtype),
    body: text === null ? null : cut(text, MAX_BODY), truncated: (text?.length ?? 0) > MAX_BODY,
    t: Number(m.t ?? 0), ack: Number(m.ack ?? 0), isNew: !!m.isNewMsg,
    notifyName: typeof m.notifyName === 'string' ? cut(m.notifyName, MAX_NAME) : null,
    quoted: quotedKey(m), rowId: rowId ?? null,
  };
}

/** The key of the quoted message, or at least its id part. */
function quotedKey(m: Msg): string | null {
  return maybe(() => str(m.quotedMsgId)) ?? str(m.quotedStanzaID);
}
