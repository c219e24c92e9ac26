// Events out. Numbered from 1 in each document, in order, one report per turn of the event loop, cut at a size.
// The last ones are kept: the host asks for them again when its connection was lost or its queue was full.
import { plain } from './page';

const MAX_BATCH = 256 * 1024;
const MAX_KEPT = 5000;
const MAX_KEPT_SIZE = 4 * 1024 * 1024;

export interface Channel {
  emit(name: string, data: unknown): void;
  /** Reports at once what waits, for the last words of a document. */
  flush(): void;
  /** Reports again everything above `last` that is still kept; answers the lowest number that is. */
  resume(last: number): number;
}

export function channel(report: (payload: string) => void, document: string): Channel {
  const head = `{"what":"events","document":${JSON.stringify(document)},"events":[`;
  const turn = new MessageChannel();
  let kept: string[] = []; // kept[i] has number first + i
  let first = 1;
  let size = 0;
  let reported = 0;
  let due = false;

  const flush = (): void => {
    due = false;
    while (reported < first + kept.length - 1) {
      const from = Math.max(reported + 1, first) - first;
      let to = from;
      let length = 0;
      while (to < kept.length && (to === from || length + kept[to]!.length < MAX_BATCH)) length += kept[to++]!.length;
      reported = first + to - 1;
      report(`${head}${kept.slice(from, to).join(',')}]}`);
    }
  };

  const forget = (): void => {
    let drop = 0;
    while (kept.length - drop > MAX_KEPT || (size > MAX_KEPT_SIZE && first + drop <= reported)) size -= kept[drop++]!.length;
    if (drop > 0) { kept = kept.slice(drop); first += drop; }
  };

  const schedule = (): void => {
    if (due) return;
    due = true;
    turn.port2.postMessage(0);
  };

  turn.port1.onmessage = flush;
  return {
    emit(name, data) {
      const text = JSON.stringify({ n: first + kept.length, name, data }, plain);
      kept.push(text);
      size += text.length;
      forget();
      schedule();
    },
    flush,
    resume(last) {
      reported = Math.min(reported, Math.max(last, first - 1));
      schedule();
      return first;
    },
  };
}
