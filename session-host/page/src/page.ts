// What we use of the page itself. Shapes as read from the page, not promised by anyone: every use is guarded by the gate or a test.
import type * as WaJs from '@wppconnect/wa-js';

/** Filled in by the host (`Settings` in `page.rs`). */
export interface Settings {
  /** The random name of the binding through which the page reports. */
  binding: string;
  /** Time between two beats, ms. */
  beatMs: number;
  /** Time from our arrival to the passed self-test, ms. */
  readyMs: number;
  /** The name that the gate gave this document; empty for the gate itself. */
  document: string;
}

declare global {
  const __ZAGUAN_SETTINGS__: Settings;
  interface Window {
    WPP: typeof WaJs;
    require?: (id: string) => any;
  }
}

export type Wpp = typeof WaJs;
export type Msg = WaJs.whatsapp.MsgModel;

/** The page's event emitters and models, as far as we listen. */
export interface Emitter {
  on(names: string, listener: (...args: any[]) => void, context?: unknown): unknown;
  once(names: string, listener: (...args: any[]) => void): unknown;
}

/** The page's module `id`; throws for one that the page does not have. */
export const need = (id: string): any => {
  if (!window.require) throw new Error('the page has no module loader');
  return window.require(id);
};

/** Any id of the page as text. Message keys have lost their readable field on newer pages; `toString` is what stays. */
export const str = (x: unknown): string | null => (x === null || x === undefined ? null : String(x));

/** For `JSON.stringify`: all text that leaves the page can be written as UTF-8 (half a character cannot) and stored (a NUL cannot). */
export const plain = (_: string, value: unknown): unknown =>
  typeof value === 'string' ? (value as any).toWellFormed().replaceAll('\0', '\uFFFD') : value;

/** What `read` answers, or null if the page does not know or refuses. */
export const maybe = <T>(read: () => T): T | null => {
  try { return read() ?? null; } catch { return null; }
};

/** An error with a code that the host can tell apart. */
export const refuse = (code: string, message: string): Error => Object.assign(new Error(message), { code });
