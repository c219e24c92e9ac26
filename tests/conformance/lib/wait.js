// Waiting for what must become true.
import { setTimeout as pause } from 'node:timers/promises';

/** Asks until the answer is truthy; an error counts as not yet. */
export async function until(what, ms, ask) {
  const deadline = performance.now() + ms;
  let last;
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`, { cause: last });
    await pause(25);
  }
}
