// The page's module loader, as far as the libraries see it, and the simulator's own way to define a module on it.
// Facts: research/webpage.md 1.1. `__SIM` and `__NAMES` come from the server, before this file.
(function (global) {
  const sim = (global.__SIM ||= {});
  // Modules of the page that the libraries use and the table of names lacks.
  const names = {
    WATimeUtils: ['unixTime', 'unixTimeMs'],
    WAWebAddonReactionTableMode: ['reactionTableMode'],
    WAWebAddonPollVoteTableMode: ['pollVoteTableMode'],
    ...global.__NAMES,
  };
  const modules = Object.create(null);

  global.__d = function (id, deps, factory, flags) {
    modules[id] ||= { id, deps, factory, flags, exports: undefined, started: false, factoryFinished: false };
  };

  function load(id) {
    const m = modules[id];
    if (!m) throw new Error(`Requiring unknown module "${id}"`);
    if (m.started) return m;
    m.started = true;
    const module = { exports: {} };
    m.exports = module.exports;
    // Seven arguments, in the order that modules of flag 98 take.
    m.factory.call(undefined, global, require, importDefault, importNamespace, requireLazy, module, module.exports);
    m.exports = module.exports;
    m.factoryFinished = true;
    return m;
  }

  const hasDefault = (e) => !!e && typeof e === 'object' && 'default' in e;

  /** Unwraps a module whose only export is `default`; `importNamespace` never does. */
  function require(id) {
    const e = load(id).exports;
    return hasDefault(e) && Object.keys(e).length === 1 ? e.default : e;
  }
  function importDefault(id) {
    const e = load(id).exports;
    return hasDefault(e) ? e.default : e;
  }
  const importNamespace = (id) => load(id).exports;
  const requireLazy = (ids, done) => void setTimeout(() => done(...ids.map(require)), 0);

  Object.assign(global, { require, importDefault, importNamespace, requireLazy });
  // wa-js calls it inside the same `try` as its import: without it every module would be missing.
  global.ErrorGuard = { skipGuardGlobal() {} };
  global.__d('__debug', [], (t, n, r, o, a, m, exports) => void (exports.modulesMap = modules), 34);

  // ---- what the simulator's files use

  /** Calls of exports that do nothing here: `Module.name` -> count. */
  sim.stubCalls = {};
  /** Live exports that the real page does not have: never visible, a mistake of ours. */
  sim.dropped = [];

  /** An export that the real page has and we do not act out. */
  sim.stub = (id, name) =>
    function () {
      sim.stubCalls[`${id}.${name}`] = (sim.stubCalls[`${id}.${name}`] || 0) + 1;
      if (sim.strict) throw new Error(`the simulator does not act out ${id}.${name}`);
    };

  function fillWithStubs(id, exports, list) {
    for (const name of list) {
      if (name in exports) continue;
      exports[name] = name === 'default' ? class {} : sim.stub(id, name);
    }
  }

  /**
   * Defines module `id`: what `build` returns, cut down to the names that the real module exports, the others as stubs.
   * An export too many would do harm: wa-js finds modules by what they export.
   */
  sim.define = (id, build = () => ({})) => {
    if (sim.isDefined(id)) throw new Error(`module ${id} is defined twice`);
    global.__d(
      id,
      [],
      (t, n, r, o, a, module, exports) => {
        const real = names[id];
        for (const [name, value] of Object.entries(build())) {
          if (real && real.includes(name)) exports[name] = value;
          else sim.dropped.push(`${id}.${name}`);
        }
        if (!hasDefault(exports)) fillWithStubs(id, exports, real || []);
      },
      98,
    );
  };
  sim.isDefined = (id) => id in modules;

  /** Calls an export the way the page's other modules do: through the namespace, so that a wrapper put there is seen. */
  sim.call = (id, name, ...args) => importNamespace(id)[name](...args);
})(window);
