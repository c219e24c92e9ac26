// Backbone-like models: a changed property triggers `change:<property>` (model, value, previous) on the model and on its
// collection, then `change`. Facts: research/webpage.md 2.
(function (sim) {
  const { EventEmitter } = sim;

  class BaseModel extends EventEmitter {
    constructor(attributes = {}, options = {}) {
      super();
      Object.defineProperty(this, '__values', { value: {}, enumerable: false });
      const defaults = this.constructor.properties || {};
      for (const [name, d] of Object.entries(defaults)) this.__values[name] = typeof d === 'function' ? d() : d;
      Object.defineProperty(this, 'collection', { value: options.collection, writable: true, enumerable: false });
      for (const name in attributes) this.__put(name, attributes[name], true);
      if (this.initialize) this.initialize();
    }

    __put(name, value, silent) {
      if (!(name in (this.constructor.properties || {}))) {
        this[name] = value;
        return;
      }
      const previous = this.__values[name];
      if (previous === value) return;
      this.__values[name] = value;
      if (silent) return;
      for (const who of [this, this.collection]) {
        if (!who) continue;
        who.trigger(`change:${name}`, this, value, previous);
        who.trigger('change', this);
      }
    }

    set(name, value, options) {
      if (typeof name === 'string') this.__put(name, value, options && options.silent);
      else for (const key in name) this.__put(key, name[key], value && value.silent);
      return this;
    }
    get(name) {
      return this[name];
    }
    unset(name) {
      this.__put(name, undefined);
      return this;
    }
    get attributes() {
      return this.serialize();
    }
    serialize() {
      const plain = {};
      for (const name in this.constructor.properties || {}) {
        const value = this.__values[name];
        if (value === undefined || typeof value === 'function') continue;
        plain[name] = value && value.serialize ? value.serialize() : value;
      }
      return plain;
    }
    toJSON() {
      return this.serialize();
    }
    safe() {
      return this;
    }
    unsafe() {
      return this;
    }
    isIdType() {
      return true;
    }
    getCollection() {
      return this.collection;
    }
    delete() {
      if (this.collection) this.collection.remove(this);
    }
    isListening() {
      return true;
    }
  }

  /** `proxyName` is how wa-js recognises a model class. */
  function defineModel(Model, properties, proxyName) {
    Model.properties = { ...properties };
    for (const name of Object.keys(properties)) {
      Object.defineProperty(Model.prototype, name, {
        configurable: true,
        enumerable: true,
        get() {
          return this.__values && this.__values[name]; // asked of the prototype there are none
        },
        set(value) {
          this.__put(name, value);
        },
      });
    }
    if (proxyName) Model.prototype.proxyName = proxyName;
    return Model;
  }

  /** Properties without a default, from their names. */
  sim.properties = (names) => Object.fromEntries(names.split(/\s+/).map((name) => [name, undefined]));
  sim.BaseModel = BaseModel;
  sim.defineModel = defineModel;
  sim.define('WAWebBaseModel', () => ({ BaseModel, defineModel }));
})(window.__SIM);
