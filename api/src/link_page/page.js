// Shows where the linking is. The token is what the URL carries after `#`: it is sent in a header, never in a path or query.
(() => {
  'use strict';
  const token = location.hash.slice(1);
  const $ = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const QUIET = 4; // modules around the code, as the standard asks

  const ask = (method, path, body) => fetch(`/api/link${path}`, {
    method, cache: 'no-store', credentials: 'omit',
    headers: { 'Zaguan-Link': token, ...(body ? { 'Content-Type': 'application/json' } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });

  /** Which of the three marks above is the current one. */
  const PLACE = { syncing: 'sync', working: 'done' };

  function show(step) {
    for (const section of all('[data-step]')) section.hidden = section.dataset.step !== step;
    const marks = all('#progress li');
    const at = marks.findIndex((li) => li.dataset.at === (PLACE[step] ?? 'link'));
    marks.forEach((li, n) => { li.className = n < at || step === 'working' ? 'past' : n === at ? 'now' : ''; });
    document.body.dataset.shown = step;
  }

  function draw(modules) {
    const side = modules.length + 2 * QUIET;
    const path = modules.flatMap((row, y) => [...row].map((m, x) => (m === '1' ? `M${x + QUIET} ${y + QUIET}h1v1h-1z` : ''))).join('');
    $('#code').setAttribute('viewBox', `0 0 ${side} ${side}`);
    $('#code path').setAttribute('d', path);
  }

  function render(view) {
    $('#company').textContent = view.company;
    if (view.modules) draw(view.modules);
    show(view.step);
    $('#again').hidden = !view.mayTryAgain;
    $('#by-code').hidden = !view.withCode;
  }

  function end(step) {
    show(step);
    $('#again').hidden = true;
    $('#by-code').hidden = true;
  }

  async function follow() {
    let version = '';
    for (;;) {
      try {
        const answer = await ask('GET', `?wait=20${version && `&version=${version}`}`);
        if (answer.status === 410 || answer.status === 401) return end('expired');
        if (!answer.ok) throw new Error(String(answer.status));
        const view = await answer.json();
        version = view.version;
        render(view);
        if (view.step === 'working') return undefined;
      } catch {
        version = '';
        show('offline');
        await pause(2000);
      }
    }
  }

  function complain(about) {
    for (const text of all('[data-problem]')) text.hidden = text.dataset.problem !== about;
  }

  const PROBLEMS = { 422: 'phone', 429: 'often' };

  async function pair(event) {
    event.preventDefault();
    const phone = $('#phone').value.replace(/[\s().-]/g, '');
    const button = $('#ask button');
    complain('');
    $('#pairing').hidden = true;
    $('#asking').hidden = false;
    button.disabled = true;
    try {
      const answer = await ask('POST', '/pairing-code', { phone });
      if (!answer.ok) return complain(PROBLEMS[answer.status] ?? 'other');
      const { code } = await answer.json();
      $('#pairing-code').textContent = `${code.slice(0, 4)}-${code.slice(4)}`;
      $('#pairing').hidden = false;
    } catch {
      complain('other');
    } finally {
      $('#asking').hidden = true;
      button.disabled = false;
    }
    return undefined;
  }

  $('#ask').addEventListener('submit', (event) => void pair(event));
  $('#again').addEventListener('click', () => {
    $('#again').hidden = true;
    void ask('POST', '/start').catch(() => {});
  });
  void follow();
})();
