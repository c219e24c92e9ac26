// At document start. Sets wa-js up before it is there, waits for the page's core modules, then reports once per document.
// wa-js registers its listeners once, when the module count has been quiet for 750 ms: with bundles that arrive later than
// that it would send, and never hear.
import { need } from './page';

const CORE = ['WAWebSocketModel', 'WAWebStreamModel', 'WAWebCollections', 'WAWebCmd'];
const POLL_MS = 50;

/** The page sets it late in its start, and not at all on a page that failed. */
const version = (): string => (window.Debug as { VERSION: string } | undefined)?.VERSION ?? '';

function open(): boolean {
  if (!version() || !window.require) return false;
  try { return CORE.every((id) => need(id)); } catch { return false; }
}

function wait(report: (payload: string) => void): void {
  const document = crypto.randomUUID();
  const began = performance.now();
  const poll = (): void => {
    if (!open()) return void setTimeout(poll, POLL_MS);
    report(JSON.stringify({ what: 'gate', document, version: version(), ms: Math.round(performance.now() - began) }));
  };
  poll();
}

const report = (globalThis as any)[__ZAGUAN_SETTINGS__.binding];
// Without the binding this document cannot report; the host's deadline notices.
if (window.top === window && location.origin === 'https://web.whatsapp.com' && typeof report === 'function') {
  // No beacon to the author's analytics, and no third party that would see the addresses in our customers' messages.
  Object.assign(window, { WPPConfig: { disableGoogleAnalytics: true, linkPreviewApiServers: [] } });
  wait(report);
}
