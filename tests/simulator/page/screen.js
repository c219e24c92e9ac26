// What a person sees: a line, or a question with a button. For screenshots; libraries need none of it (research/webpage.md 1.2).
(function (sim) {
  const app = () => document.querySelector('#app');

  function put(id, make) {
    const known = document.getElementById(id);
    if (known) known.remove();
    if (make) app().prepend(Object.assign(make, { id }));
  }

  /** In place of the line before. */
  function say(text) {
    document.title = 'WhatsApp';
    put('sim-question');
    put('sim-line', Object.assign(document.createElement('p'), { textContent: text }));
  }

  function ask(text, label, answer) {
    const question = document.createElement('div');
    question.setAttribute('role', 'dialog');
    const button = Object.assign(document.createElement('button'), { textContent: label });
    button.addEventListener('click', answer);
    question.append(text, button);
    put('sim-question', question);
  }

  sim.screen = { say, ask };
})(window.__SIM);
