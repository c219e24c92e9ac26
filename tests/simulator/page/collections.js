// Collections: `add` of a known id returns the stored model without merging; `get` indexes by the string form of an id; `find` is
// get or fetch. Facts: research/webpage.md 2.
(function (sim) {
  const { EventEmitter, BaseModel } = sim;

  class BaseCollection extends EventEmitter {
    constructor() {
      super();
      Object.defineProperty(this, '__byId', { value: new Map(), enumerable: false });
      this.models = [];
      this._models = this.models;
    }
    get modelClass() {
      return this.constructor.model;
    }
    get model() {
      return this.constructor.model;
    }
    get length() {
      return this.__byId.size;
    }

    get(id) {
      if (id === null || id === undefined) return undefined;
      return this.__byId.get(String(id instanceof BaseModel ? id.id : id));
    }
    assertGet(id) {
      const found = this.get(id);
      if (!found) throw new Error(`not found: ${id}`);
      return found;
    }

    add(items, options = {}) {
      return (Array.isArray(items) ? items : [items]).map((item) => {
        const known = this.get(item.id);
        if (known) {
          if (options.merge) known.set(item instanceof BaseModel ? item.serialize() : item);
          return known;
        }
        const added = item instanceof BaseModel ? item : new this.modelClass(item, { collection: this });
        if (!added.collection) added.collection = this;
        this.__byId.set(String(added.id), added);
        this.models.push(added);
        this.trigger('add', added, this, options);
        return added;
      });
    }
    gadd(item) {
      const id = item && item.id ? item.id : item;
      return this.get(id) || this.add(item && item.id ? item : { id })[0];
    }
    getOrAdd(item) {
      return this.gadd(item);
    }
    remove(items) {
      for (const item of Array.isArray(items) ? items : [items]) {
        const gone = this.get(item);
        if (!gone) continue;
        this.__byId.delete(String(gone.id));
        this.models.splice(this.models.indexOf(gone), 1);
        this.trigger('remove', gone, this);
      }
    }
    reset() {
      this.__byId.clear();
      this.models.length = 0;
      this.trigger('reset', this);
    }
    delete() {
      this.reset();
    }

    async find(id) {
      const known = this.get(id);
      if (known) return known;
      const fetched = this.fetch ? await this.fetch(id) : undefined;
      return fetched ? this.add(fetched)[0] : this.gadd(id);
    }
    async update(id) {
      return this.find(id);
    }
    async findQuery(id) {
      return this.find(id);
    }
    async sync() {}
    isStateStale() {
      return false;
    }

    getModelsArray() {
      return [...this.models];
    }
    toArray() {
      return [...this.models];
    }
    slice(...range) {
      return this.models.slice(...range);
    }
    map(f) {
      return this.models.map(f);
    }
    filter(f) {
      return this.models.filter(f);
    }
    forEach(f) {
      this.models.forEach(f);
    }
    some(f) {
      return this.models.some(f);
    }
    every(f) {
      return this.models.every(f);
    }
    findFirst(f) {
      return this.models.find(f);
    }
    where(wanted) {
      return this.models.filter((m) => Object.entries(wanted).every(([k, v]) => m[k] === v));
    }
    head() {
      return this.models[0];
    }
    last() {
      return this.models[this.models.length - 1];
    }
    at(i) {
      return this.models[i];
    }
    indexOf(m) {
      return this.models.indexOf(m);
    }
    includes(m) {
      return this.models.includes(m);
    }
    sort() {
      this.trigger('sort');
    }
  }

  class Collection extends BaseCollection {
    /** wa-js recognises the class by this sentence in its source. */
    static complain() {
      return 'Collection initialized without model';
    }
  }

  /** A collection of models that the page has and we keep simple: an id and what `names` says. Libraries listen on it. */
  sim.plainCollection = (name, names = '') => {
    class Model extends BaseModel {}
    sim.defineModel(Model, { id: undefined, ...(names ? sim.properties(names) : {}) }, name[0].toLowerCase() + name.slice(1));
    class Plain extends BaseCollection {}
    Plain.model = Model;
    return new Plain();
  };

  sim.BaseCollection = BaseCollection;
  sim.define('WAWebBaseCollection', () => ({ BaseCollection }));
  sim.define('WAWebCollection', () => ({ default: Collection }));
})(window.__SIM);
