// BullMQ with a handler that does nothing. `consume` starts jobs and says what that took, `produce` adds them: one after the other at a pace,
// or (0) all at once. Times are of the clock that all processes of a machine share.
import { Queue, Worker } from "bullmq";

const [port, what, ...numbers] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null };
const now = () => Number(process.hrtime.bigint());
const say = (line) => process.stdout.write(`${line}\n`);

async function consume(concurrency, warm, count) {
  const started = [];
  let ended = 0;
  let seen = 0;
  let cpu;
  const work = async (job) => {
    if (seen++ === warm) cpu = process.cpuUsage();
    if (seen > warm) started.push([job.data.id, now()]);
  };
  const worker = new Worker("bench", work, { connection, concurrency });
  worker.on("completed", async () => {
    if (++ended < warm + count) return;
    const took = (now() - started[0][1]) / 1e9;
    const { user, system } = process.cpuUsage(cpu);
    say(JSON.stringify({ seconds: took, cpuSeconds: (user + system) / 1e6, started }));
    await worker.close();
    process.exit();
  });
  await worker.waitUntilReady();
  say("ready");
}

async function produce(first, count, pauseMicroseconds) {
  const queue = new Queue("bench", { connection });
  await queue.waitUntilReady();
  const pushed = [];
  const job = (n) => {
    const data = { id: String(first + n), command: { type: "markRead", to: "5511999990000@c.us" } };
    pushed.push([data.id, now()]);
    return { name: "markRead", data, opts: { removeOnComplete: true } };
  };
  const adding = [];
  const add = ({ name, data, opts }) => adding.push(queue.add(name, data, opts));
  if (pauseMicroseconds === 0) {
    for (let n = 0; n < count; n += 500) await queue.addBulk(Array.from({ length: Math.min(500, count - n) }, (_, i) => job(n + i)));
  } else {
    const began = now();
    for (let n = 0; n < count; ) {
      while (n < count && (now() - began) / 1e3 >= n * pauseMicroseconds) add(job(n++));
      await new Promise((resume) => setTimeout(resume, 1));
    }
  }
  await Promise.all(adding);
  await queue.close();
  say(JSON.stringify(pushed));
}

await { consume, produce }[what](...numbers.map(Number));
