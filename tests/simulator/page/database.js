// What survives a restart, in the page's own databases. Facts: research/webpage.md 4.4 and 7: `model-storage` with store `message` (key
// `id`, index `rowId`), rows are inserted, never upserted, so a known id fails; ids, times and acks are readable, the body is not.
(function (sim) {
  const MODELS = 'model-storage';
  const KEYS = 'signal-storage';

  /** The page's own word for a message id that it already has. */
  class DuplicateMessageError extends Error {
    constructor(id) {
      super(`message ${id} is already stored`);
      this.name = 'DuplicateMessageError';
    }
  }

  const settled = (request) =>
    new Promise((done, fail) => {
      request.onsuccess = () => done(request.result);
      request.onerror = () => fail(request.error);
    });

  function open(name, create) {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => create(request.result);
    return settled(request).then((database) => {
      // Else an erasure, by us or by a test, would wait for ever.
      database.onversionchange = () => database.close();
      return database;
    });
  }

  let models;
  let keys;
  /** The highest row number ever given out in this database. */
  let lastRow = 0;

  async function start() {
    models = await open(MODELS, (d) => {
      const messages = d.createObjectStore('message', { keyPath: 'id' });
      messages.createIndex('rowId', 'rowId');
      messages.createIndex('chat', 'chat');
      d.createObjectStore('chat', { keyPath: 'id' });
      d.createObjectStore('contact', { keyPath: 'id' });
    });
    keys = await open(KEYS, (d) => void d.createObjectStore('signal-meta-store', { keyPath: 'key' }));
    const newest = await settled(models.transaction('message').objectStore('message').index('rowId').openCursor(null, 'prev'));
    lastRow = newest ? newest.value.rowId : 0;
  }

  /** Runs `work` on a store; answers its value once the transaction is written. */
  function write(database, name, work) {
    return new Promise((done, fail) => {
      const transaction = database.transaction(name, 'readwrite');
      let answer;
      transaction.oncomplete = () => done(answer);
      transaction.onabort = () => fail(transaction.error);
      work(transaction.objectStore(name), (value) => void (answer = value));
    });
  }

  /** Stores a new message; its row number grows, across restarts too. */
  async function insert(row) {
    const rowId = ++lastRow;
    try {
      await write(models, 'message', (store) => void store.add({ ...row, rowId }));
    } catch (e) {
      throw e && e.name === 'ConstraintError' ? new DuplicateMessageError(row.id) : e;
    }
  }

  /** Stores many at once and leaves those be that are known; answers the ids of the new ones. */
  async function insertNew(rows) {
    const fresh = [];
    await write(models, 'message', (store) => {
      for (const row of rows) {
        const request = store.add({ ...row, rowId: ++lastRow });
        request.onsuccess = () => fresh.push(row.id);
        request.onerror = (e) => {
          e.preventDefault(); // else one known row would undo the others
          e.stopPropagation();
        };
      }
    });
    return fresh;
  }

  /** Gives the stored rows of a chat other ids, in one transaction. Row numbers stay. */
  const rekey = (rows) =>
    write(models, 'message', (store) => {
      for (const { before, after } of rows) {
        store.delete(before.id);
        store.put(after);
      }
    });

  /** Changes a stored row in place; answers whether there was one. */
  const change = (id, edit) =>
    write(models, 'message', (store, answer) => {
      const request = store.get(id);
      request.onsuccess = () => {
        answer(!!request.result);
        if (request.result) store.put({ ...request.result, ...edit(request.result) });
      };
    });

  const all = (name) => settled(models.transaction(name).objectStore(name).getAll());

  sim.database = {
    DuplicateMessageError,
    start,
    insert,
    insertNew,
    rekey,
    change,
    row: (id) => settled(models.transaction('message').objectStore('message').get(id)),
    rowsOf: (chat) => settled(models.transaction('message').objectStore('message').index('chat').getAll(chat)),
    remove: (id) => write(models, 'message', (store) => void store.delete(id)),
    chats: () => all('chat'),
    contacts: () => all('contact'),
    removeFrom: (name, id) => write(models, name, (store) => void store.delete(id)),
    put: (name, value) => write(models, name, (store) => void store.put(value)),
    saveKeys: (creds) => write(keys, 'signal-meta-store', (store) => void store.put({ key: 'registration', value: creds })),
    async keys() {
      const found = await settled(keys.transaction('signal-meta-store').objectStore('signal-meta-store').get('registration'));
      return found ? found.value : null;
    },
    /** Everything goes, as at a logout. A reader that keeps a connection open delays it at most a second. */
    async erase() {
      if (models) models.close();
      if (keys) keys.close();
      const gone = [MODELS, KEYS].map((name) => settled(indexedDB.deleteDatabase(name)));
      await Promise.race([Promise.allSettled(gone), new Promise((done) => setTimeout(done, 1000))]);
    },
  };
})(window.__SIM);
