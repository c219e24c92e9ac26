// Event emitter of the page's models, collections and buses. Names may be space separated; `all` hears every event.
// Facts: research/webpage.md 2.
(function (sim) {
  class EventEmitter {
    constructor() {
      // Not enumerable: what crosses to a host by value must carry no listeners.
      Object.defineProperty(this, '__listeners', { value: new Map(), enumerable: false });
    }

    on(names, fn, context) {
      if (typeof fn !== 'function') throw new TypeError('Callback parameter passed is not a function');
      for (const name of names.split(/\s+/)) {
        if (!this.__listeners.has(name)) this.__listeners.set(name, []);
        this.__listeners.get(name).push({ fn, context });
      }
      return this;
    }

    once(names, fn, context) {
      const wrapper = (...args) => {
        this.off(names, wrapper);
        fn.apply(context || this, args);
      };
      wrapper.original = fn;
      return this.on(names, wrapper, context);
    }

    off(names, fn) {
      if (!names) {
        this.__listeners.clear();
        return this;
      }
      for (const name of names.split(/\s+/)) {
        const kept = fn ? (this.__listeners.get(name) || []).filter((l) => l.fn !== fn && l.fn.original !== fn) : [];
        this.__listeners.set(name, kept);
      }
      return this;
    }

    trigger(name, ...args) {
      for (const l of [...(this.__listeners.get(name) || [])]) {
        // One bad listener must not keep the page from its work.
        try {
          l.fn.apply(l.context || this, args);
        } catch (e) {
          console.error('listener of', name, e && e.stack);
        }
      }
      if (name !== 'all') for (const l of [...(this.__listeners.get('all') || [])]) l.fn.call(l.context || this, name, ...args);
      return this;
    }

    listenTo(other, names, fn) {
      other.on(names, fn, this);
      return this;
    }
    listenToOnce(other, names, fn) {
      other.once(names, fn, this);
      return this;
    }
    stopListening() {
      return this;
    }
    isListening(name) {
      return !!(this.__listeners.get(name) || []).length;
    }
  }

  sim.EventEmitter = EventEmitter;
  sim.define('WAWebEventEmitter', () => ({ default: EventEmitter }));
})(window.__SIM);
