// Is wa-js complete, and do its listeners on the message store lead to its events? "A send works" proves neither.
import type { Recorder } from './recorder';
import type { Wpp } from './page';

/** Marks the message that only wa-js's own listeners are shown. */
export const PROBE = 'zaguan.probe';

const POLL_MS = 25;
/** wa-js puts its ack listeners on in a timer after it says that it is complete. */
const SETTLE_MS = 50;
const ANSWER_MS = 500;

const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

/** Shows `probe` to the listeners recorded for `name`, and waits for wa-js's event. */
function hears(wpp: Wpp, recorder: Recorder, name: string, probe: unknown, event: string, hit: (x: any) => boolean): Promise<boolean> {
  const emitter = wpp as unknown as { on(e: string, l: (x: any) => void): void; off(e: string, l: (x: any) => void): void };
  return new Promise((done) => {
    const end = (heard: boolean): void => { emitter.off(event, listener); clearTimeout(timer); done(heard); };
    const listener = (x: any): void => { if (hit(x)) end(true); };
    const timer = setTimeout(() => end(false), ANSWER_MS);
    emitter.on(event, listener);
    for (const [heard, call] of recorder.heard) {
      if (heard !== name) continue;
      try { call(probe); } catch { /* a listener for another purpose, which the probe does not suit */ }
    }
  });
}

/** Null when all is well, else what is not. */
export async function verdict(wpp: Wpp, recorder: Recorder, readyMs: number): Promise<string | null> {
  const began = performance.now();
  while (!wpp.isFullReady) {
    if (performance.now() - began > readyMs) return 'wa-js is not complete';
    await pause(POLL_MS);
  }
  await pause(SETTLE_MS);
  const id = { probe: PROBE, id: PROBE, fromMe: true, toString: () => PROBE };
  const probe = { id, to: id, from: id, ack: 1, isNewMsg: true, type: PROBE, on() {}, once() {}, off() {} };
  const acks = await hears(wpp, recorder, 'change:ack', probe, 'chat.msg_ack_change', (x) => x?.ids?.[0] === id);
  if (!acks) return 'wa-js does not hear acks';
  const messages = await hears(wpp, recorder, 'add', probe, 'chat.new_message', (x) => x === probe);
  return messages ? null : 'wa-js does not hear messages';
}
