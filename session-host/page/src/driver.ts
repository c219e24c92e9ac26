// After wa-js, in the same script. Puts the pieces together and leaves one object, under a symbol that nobody can guess: the host
// calls it, and finds it again after a lost connection.
import { caller } from './calls';
import { channel } from './channel';
import { listen } from './events';
import { watchHistory } from './history';
import { maybe } from './page';
import type { Recorder } from './recorder';
import { verdict } from './selftest';
import { streamState } from './stream';

const { binding, beatMs, readyMs, document } = __ZAGUAN_SETTINGS__;
const at = (name: string): symbol => Symbol.for(name);
const global = globalThis as any;
const recorder: Recorder = global[at(`${binding}.recorder`)];
delete global[at(`${binding}.recorder`)];

const wpp = window.WPP;
const out = channel(global[binding], document);

// wa-js gives keys their readable field back when this binding is first touched.
const touch = (): unknown => maybe(() => wpp.whatsapp.MsgKey);

const tellState = recorder.pause(() => listen(wpp, out));
const began = performance.now();
verdict(wpp, recorder, readyMs).then((why) => {
  recorder.stop();
  touch();
  if (why) return out.emit('bad', why);
  tellState();
  watchHistory(out, beatMs, () => { const now = streamState(wpp); return now.registered && now.mode === 'MAIN'; });
  out.emit('ready', { ms: Math.round(performance.now() - began), listeners: recorder.heard.length });
}, (e) => out.emit('bad', `the self-test failed: ${e}`));
setInterval(() => out.emit('beat', null), beatMs);

Object.defineProperty(global, at(binding), { value: { document, call: caller(wpp), resume: out.resume }, configurable: true });
