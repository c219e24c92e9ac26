// Media: prepared in the page, uploaded over HTTP, referred to by path. Facts: research/webpage.md 2 (f): the message model keeps the very
// same key object; a download ends in a cache and in `mediaData.mediaBlob`. Nothing is encrypted here.
(function (sim) {
  const { BaseModel, defineModel, properties, Msg } = sim;
  const UPLOAD_LIMIT = 16 * 1024 * 1024;

  const base64 = (bytes) => btoa(Array.from(new Uint8Array(bytes), (b) => String.fromCharCode(b)).join(''));
  const sha256 = async (bytes) => base64(await crypto.subtle.digest('SHA-256', bytes));

  class OpaqueData {
    constructor(blob) {
      this._blob = blob;
    }
    static async createFromData(data, type) {
      return new OpaqueData(data instanceof Blob && (!type || data.type === type) ? data : new Blob([data], { type }));
    }
    url() {
      return (this._url ||= URL.createObjectURL(this._blob));
    }
    size() {
      return this._blob.size;
    }
    type() {
      return this._blob.type;
    }
    formData() {
      return this._blob;
    }
    forceToBlob() {
      return this._blob;
    }
    async validate() {
      return true;
    }
    throwIfReleased() {}
    retain() {}
    release() {}
    autorelease() {}
    autoreleaseWhenPromiseCompletes() {}
  }

  class MediaData extends BaseModel {
    serialize() {
      const { mediaBlob, ...plain } = super.serialize();
      return plain;
    }
  }
  defineModel(
    MediaData,
    {
      ...properties('type mimetype size filehash mediaBlob mediaStage renderableUrl clientUrl directPath mediaKey mediaKeyTimestamp'),
      ...properties('encFilehash uploadhash deprecatedMms3Url streamingSidecar firstFrameSidecar mediaHandle waveform duration'),
      ...properties('width height fullWidth fullHeight isGif filename preview'),
    },
    'mediaData',
  );

  /** What a message knows of its media before or after the bytes are here. */
  const describe = (m, mediaStage) =>
    new MediaData({ type: m.type, mimetype: m.mimetype, size: m.size, filehash: m.filehash, duration: m.duration, mediaStage });

  const objects = new Map();
  function getOrCreateMediaObject(filehash) {
    const consolidate = function (from) {
      Object.assign(this, from, { consolidate });
    };
    if (!objects.has(filehash)) objects.set(filehash, { filehash, contentInfo: {}, entries: {}, consolidate });
    return objects.get(filehash);
  }
  const blobs = new Map();

  async function upload(blob) {
    const response = await fetch('/mms/upload', { method: 'POST', body: blob });
    if (!response.ok) throw Object.assign(new Error(`upload: HTTP ${response.status}`), { status: response.status });
    const { path, hash } = await response.json();
    return {
      mmsUrl: location.origin + path,
      deprecatedMms3Url: location.origin + path,
      directPath: path,
      mediaKey: base64(crypto.getRandomValues(new Uint8Array(32))),
      mediaKeyTimestamp: sim.now(),
      encFilehash: hash,
      uploadHash: hash,
      sidecar: undefined,
    };
  }

  async function fetchBytes(path) {
    const response = await fetch(path);
    if (!response.ok) throw Object.assign(new Error(`download: HTTP ${response.status}`), { status: response.status });
    return response.arrayBuffer();
  }

  Msg.prototype.downloadMedia = async function () {
    try {
      const blob = new Blob([await fetchBytes(this.directPath)], { type: this.mimetype });
      blobs.set(this.filehash, blob);
      this.mediaData.set({ mediaBlob: new OpaqueData(blob), mediaStage: 'RESOLVED' });
    } catch (e) {
      this.mediaData.mediaStage = 'ERROR_MISSING';
      throw e;
    }
  };

  sim.media = { OpaqueData, MediaData, describe, upload, sha256 };
  sim.define('WAWebMediaOpaqueData', () => ({ default: OpaqueData }));
  sim.define('WAWebMediaStorage', () => ({ getOrCreateMediaObject }));
  sim.define('WAWebMediaDataUtils', () => ({ shouldUseMediaCache: () => true, processRawSticker: async () => ({}) }));
  sim.define('WAWebMmsMediaTypes', () => ({ msgToMediaType: (m) => m.type, castToV4: (type) => type }));
  sim.define('WAWebMediaInMemoryBlobCache', () => ({
    InMemoryMediaBlobCacheImpl: class {},
    InMemoryMediaBlobCache: { put: (h, b) => blobs.set(h, b), get: (h) => blobs.get(h), has: (h) => blobs.has(h) },
  }));
  const nothing = {
    get: async () => null,
    put: async () => {},
    del: async () => {},
    clear: async () => {},
    count: async () => 0,
    has: async () => false,
  };
  sim.define('WAWebMediaStore', () => ({ LruMediaStore: nothing, MediaStore: {} }));
  sim.define('WAWebMediaMmsV4Upload', () => ({
    uploadMedia: async ({ mediaObject }) => ({ kind: 'success', mediaEntry: await upload(blobs.get(mediaObject.filehash)) }),
    uploadUnencryptedMedia: async () => ({}),
  }));
  sim.define('WAWebMediaGatingUtils', () => ({ getUploadLimit: () => UPLOAD_LIMIT }));
  sim.define('WAWebDownloadManager', () => ({
    downloadManager: { downloadAndMaybeDecrypt: ({ directPath }) => fetchBytes(directPath) },
  }));
})(window.__SIM);
