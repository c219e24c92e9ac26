// The page's stored messages: ids, times and acks are readable there, bodies only through the page's models.
import { isCiphertext, isWritten, message } from './messages';
import { refuse, str, type Msg, type Wpp } from './page';

const DATABASE = 'model-storage';
const STORE = 'message';
const INDEX = 'rowId';
/** How far back a look-up by id part goes. */
const LOOK_BACK = 2000;
/** One answer stays well below what the host takes. */
const MAX_ANSWER = 8 * 1024 * 1024;

export interface StoredRow { id: unknown; rowId: number; ack?: number; type?: string }

/** A key as text, however the row spells it. */
const keyOf = (row: StoredRow): string => {
  const id: any = row.id;
  return typeof id === 'string' ? id : String(id?._serialized ?? id?.$1 ?? id);
};

/** `true_<chat>_<id part>[_<participant>]` */
export const idPartOf = (key: string): string => key.split('_')[2] ?? '';

const settled = <T>(request: IDBRequest<T>): Promise<T> =>
  new Promise((done, fail) => { request.onsuccess = () => done(request.result); request.onerror = () => fail(request.error); });

/**
 * Runs `work` on the store, or answers `none` where there is no such store. Never creates the database, which the page would take for its
 * own: it may erase it between any two lines of ours, so an open that finds nothing is called off, not one that is thought to find nothing.
 */
async function withStore<T>(none: T, work: (store: IDBObjectStore) => Promise<T>): Promise<T> {
  const request = indexedDB.open(DATABASE);
  let absent = false;
  request.onupgradeneeded = () => { absent = true; request.transaction?.abort(); };
  const database = await settled(request).catch((e: unknown) => { if (absent) return null; throw e; });
  if (!database) return none;
  try {
    if (!database.objectStoreNames.contains(STORE)) return none;
    return await work(database.transaction(STORE, 'readonly').objectStore(STORE));
  } finally { database.close(); }
}

async function highest(store: IDBObjectStore): Promise<number> {
  const cursor = await settled(store.index(INDEX).openKeyCursor(null, 'prev'));
  return cursor ? Number(cursor.key) : 0;
}

/** The highest row number, 0 in an empty store. */
export const head = (): Promise<number> => withStore(0, highest);

export interface Found { id: string; ack: number; type: string }

/** A stored row by its whole key, in any of the given forms. */
export function byKey(keys: string[]): Promise<Found | null> {
  return withStore<Found | null>(null, async (store) => {
    for (const key of keys) {
      const row: StoredRow | undefined = await settled(store.get(key));
      if (row) return { id: keyOf(row), ack: Number(row.ack ?? 0), type: str(row.type) ?? 'unknown' };
    }
    return null;
  });
}

/** The whole key of one of our own messages, by its id part, among the newest rows. Keys alone are read: rows are many and large. */
export function ownKey(idPart: string): Promise<string | null> {
  return withStore<string | null>(null, async (store) => {
    const newest = IDBKeyRange.lowerBound((await highest(store)) - LOOK_BACK, true);
    const keys = (await settled(store.index(INDEX).getAllKeys(newest))).map(String);
    return keys.reverse().find((key) => key.startsWith('true_') && idPartOf(key) === idPart) ?? null;
  });
}

async function model(wpp: Wpp, key: string): Promise<Msg | null> {
  const known = wpp.whatsapp.MsgStore.get(key);
  if (known) return known;
  try { return await wpp.chat.getMessageById(key); } catch { return null; }
}

/** Messages above a row number, ascending, as the host reads them (`Rows`). */
export async function above(wpp: Wpp, rowId: number, limit: number) {
  if (!(limit >= 1 && limit <= 500)) throw refuse('bad_limit', 'limit is 1..500');
  // Not by wa-js's own reader, which would create the database.
  const stored = await withStore<StoredRow[]>([], (store) => settled(store.index(INDEX).getAll(IDBKeyRange.lowerBound(rowId, true), limit + 1)));
  const rows: unknown[] = [];
  let upTo = rowId;
  let size = 0;
  let taken = 0;
  for (const row of stored.slice(0, limit)) {
    const id = keyOf(row);
    const found = isWritten(row.type ?? 'unknown') ? await model(wpp, id) : undefined;
    if (found !== undefined) {
      const readable = found !== null && !isCiphertext(found.type);
      const shown = readable ? message(found, row.rowId) : null;
      if (!readable || isWritten(found.type)) rows.push({ rowId: row.rowId, id, message: shown });
      size += JSON.stringify(shown).length;
    }
    upTo = row.rowId;
    taken++;
    if (size > MAX_ANSWER) break;
  }
  return { rows, upTo, more: taken < stored.length };
}
