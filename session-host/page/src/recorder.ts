// Before wa-js: remembers the listeners that it puts on the page's message store, so that the self-test can call those alone
// and the page's own not at all. Kept until the self-test is over, because wa-js registers in several steps.
import { need } from './page';

export interface Recorder {
  /** Event name and listener, in order of registration. */
  heard: [string, (...args: any[]) => void][];
  /** Runs `work` without recording: listeners of our own must not see the probe. */
  pause<T>(work: () => T): T;
  stop(): void;
}

const store = need('WAWebCollections').Msg;
const original = store.on;
const heard: Recorder['heard'] = [];
let paused = false;
store.on = function on(names: string, listener: (...args: any[]) => void, context?: unknown) {
  if (!paused) for (const name of String(names).split(/\s+/)) heard.push([name, listener]);
  return original.call(this, names, listener, context);
};

(globalThis as any)[Symbol.for(`${__ZAGUAN_SETTINGS__.binding}.recorder`)] = {
  heard,
  pause(work) {
    paused = true;
    try { return work(); } finally { paused = false; }
  },
  stop() { delete store.on; }, // the method of its class shows again
} satisfies Recorder;
