// Starts the simulator under test and speaks to its phones through the control API.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const BINARY = process.env.SIMULATOR_BIN || fileURLToPath(new URL('../../../target/debug/zaguan-simulator', import.meta.url));

/** A request that the control API refused. */
export class Refused extends Error {
  constructor(status, body) {
    super(`${status}: ${body}`);
    this.status = status;
  }
}

/** A simulator of this test's own, on free ports. */
export async function startSimulator() {
  const child = spawn('/usr/bin/setpriv', ['--pdeathsig', 'TERM', '--', BINARY], { stdio: ['ignore', 'pipe', 'inherit'] });
  const addresses = await new Promise((done, fail) => {
    createInterface({ input: child.stdout }).once('line', (line) => done(JSON.parse(line)));
    child.once('error', fail);
    child.once('exit', (code) => fail(new Error(`${BINARY} ended with ${code}`)));
  });
  return new Simulator(child, addresses);
}

class Simulator {
  constructor(child, addresses) {
    this.child = child;
    Object.assign(this, addresses);
  }

  async ask(method, path, body) {
    const answer = await fetch(`${this.control}/control${path}`, {
      method,
      headers: { 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Refused(answer.status, text);
    return text ? JSON.parse(text) : null;
  }

  /** Any request under an account. */
  of = (phone, path, body) => this.ask('POST', `/accounts/${phone}/${path}`, body);
  history = async (phone, past) => (await this.of(phone, 'history', past)).chats;
  contacts = (phone, book) => this.of(phone, 'contacts', book);
  flip = (phone, peer, to, more = {}) => this.of(phone, `chats/${peer}/flip`, { to, ...more });
  migrate = (phone, migrated, more = {}) => this.of(phone, 'lid-migration', { migrated, ...more });
  moveLid = (phone, lid) => this.of(phone, 'move-lid', { lid });
  account = (phone, name) => this.ask('POST', '/accounts', { phone, name });
  scan = (phone, qr) => this.ask('POST', `/accounts/${phone}/scan`, { qr });
  enterCode = (phone, code) => this.ask('POST', `/accounts/${phone}/enter-code`, { code });
  devices = (phone) => this.ask('GET', `/accounts/${phone}/devices`);
  removeDevice = (phone, id) => this.ask('DELETE', `/accounts/${phone}/devices/${id}`);
  offline = (phone) => this.ask('POST', `/accounts/${phone}/offline`);
  online = (phone) => this.ask('POST', `/accounts/${phone}/online`);
  fault = (kind, more = {}) => this.ask('POST', '/faults', { kind, ...more });
  mend = ({ id }) => this.ask('DELETE', `/faults/${id}`);
  read = (phone, chat) => this.ask('POST', `/accounts/${phone}/read`, { chat });
  messages = (phone, chat) => this.ask('GET', `/accounts/${phone}/chats/${chat}/messages`);
  stats = () => this.ask('GET', '/stats');
  send = async (phone, to, text) => (await this.ask('POST', `/accounts/${phone}/send`, { to, type: 'text', text })).id;

  async stop() {
    if (this.child.exitCode !== null) return;
    const ended = new Promise((done) => this.child.once('exit', done));
    this.child.kill('SIGTERM');
    await ended;
  }
}
