// Chromium with a profile of the test's own, its sandbox on, and nobody to talk to but the simulator.
import { execFileSync, spawn } from 'node:child_process';
import { chownSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import puppeteer from 'puppeteer-core';
import { until } from './wait.js';

const CHROMIUM = process.env.CHROMIUM_BIN || '/usr/lib/chromium/chromium-headless-shell';
const USER = 'zaguan';

/** Under root Chromium's sandbox needs an ordinary user; `null`: the caller is one. */
function findUser() {
  if (process.getuid() !== 0) return null;
  const find = () => readFileSync('/etc/passwd', 'utf8').split('\n').map((line) => line.split(':')).find(([name]) => name === USER);
  if (!find()) {
    const options = ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin'];
    try {
      execFileSync('/usr/sbin/useradd', [...options, USER], { stdio: 'ignore' });
    } catch (error) {
      if (!find()) throw error; // else another test was first
    }
  }
  const [, , uid, gid] = find();
  return { uid: Number(uid), gid: Number(gid) };
}
const user = findUser();

/** A folder for a profile, gone with `remove`. */
export class Profile {
  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), 'conf-'));
    if (user) chownSync(this.folder, user.uid, user.gid);
  }
  remove() {
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

function flags(simulator, page, profile) {
  return [
    `--user-data-dir=${join(profile.folder, 'profile')}`,
    '--remote-debugging-port=0',
    `--host-resolver-rules=MAP web.whatsapp.com ${page},MAP * ~NOTFOUND`,
    `--ignore-certificate-errors-spki-list=${simulator.spki}`,
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-default-apps',
    '--disable-gpu',
    '--no-first-run',
    '--password-store=basic',
    'about:blank',
  ];
}

/** A running Chromium: `endpoint` for any client, `client` for ours. */
export class Browser {
  /** `page`: the address of the page profile, `host:port`. */
  static async start(simulator, page, profile) {
    const browser = new Browser();
    rmSync(join(profile.folder, 'profile', 'DevToolsActivePort'), { force: true });
    const confine = user ? ['--reuid', String(user.uid), '--regid', String(user.gid), '--clear-groups'] : [];
    browser.child = spawn('/usr/bin/setpriv', [...confine, '--pdeathsig', 'TERM', '--', CHROMIUM, ...flags(simulator, page, profile)], {
      stdio: 'ignore',
      env: { PATH: process.env.PATH, HOME: profile.folder, LANG: 'C.UTF-8' },
    });
    const [port, path] = await until('Chromium listens', 15_000, () => {
      if (browser.child.exitCode !== null) throw new Error(`Chromium ended with ${browser.child.exitCode}`);
      const lines = readFileSync(join(profile.folder, 'profile', 'DevToolsActivePort'), 'utf8').split('\n');
      return lines.length > 1 && lines;
    });
    browser.endpoint = `ws://127.0.0.1:${port}${path}`;
    browser.client = await puppeteer.connect({ browserWSEndpoint: browser.endpoint, defaultViewport: null });
    return browser;
  }

  /** As a person closes it, so that the profile is whole. */
  async close() {
    const ended = new Promise((done) => (this.child.exitCode === null ? this.child.once('exit', done) : done()));
    const late = setTimeout(() => this.child.kill('SIGKILL'), 10_000);
    await this.client.close().catch(() => this.child.kill('SIGTERM'));
    await ended;
    clearTimeout(late);
  }
}
