// Is what the phone hands over from before the link all stored? The page's own progress says so. A page that says none (it was linked long
// ago, or it has no such model) has what it gets when its rows do not grow any more.
import type { Channel } from './channel';
import { maybe, need, type Emitter } from './page';
import { head } from './rows';

/** Progress is told before the last rows are stored. */
const SETTLE_MS = 500;

/** Tells `history` whenever all is stored; again when the phone handed over more. `main`: linked, and past the first sync. */
export function watchHistory(out: Channel, beatMs: number, main: () => boolean): void {
  const model = maybe(() => need('WAWebHistorySyncProgressModel').getHistorySyncProgressModel());
  const progress = (): number | null => (typeof model?.realProgress === 'number' ? model.realProgress : null);
  let last = -1;
  let told = false;

  const look = async (): Promise<void> => {
    const at = progress();
    if (!main() || (at !== null && at < 100)) {
      last = -1;
      told = false;
      return;
    }
    if (told) return;
    const now = await head();
    if (now === last && !told) {
      told = true;
      out.emit('history', null);
    }
    last = now;
  };
  const soon = (): void => {
    if (told || (progress() ?? 0) < 100) return;
    look().finally(() => setTimeout(soon, SETTLE_MS));
  };

  if (typeof model?.on === 'function') {
    (model as Emitter).on('change:realProgress', () => { void look().then(soon, () => undefined); });
  }
  soon();
  setInterval(() => { look().catch(() => undefined); }, beatMs);
}
