// From a file to a sent media message. Facts: research/webpage.md 2 (f): `prepRawMedia().waitForPrep()`, then `sendToChat({chat, options})`
// with one argument; the model is shown before the upload ends.
(function (sim) {
  const { Msg, send, media } = sim;

  function kind(mimetype, options) {
    if (options.asDocument) return 'document';
    if (options.asSticker) return 'sticker';
    const [family] = mimetype.split('/');
    if (family === 'audio') return options.isPtt ? 'ptt' : 'audio';
    return family === 'image' || family === 'video' ? family : 'document';
  }

  async function prepare(opaque, options) {
    const blob = opaque.forceToBlob();
    return new media.MediaData({
      type: kind(blob.type, options),
      mimetype: blob.type,
      size: blob.size,
      filehash: await media.sha256(await blob.arrayBuffer()),
      mediaBlob: opaque,
      mediaStage: 'RESOLVED',
      isGif: !!options.asGif,
      duration: options.precomputedFields && options.precomputedFields.duration,
      preview: '',
    });
  }

  class MediaPrep {
    constructor(opaque, options) {
      this._prepared = prepare(opaque, options).then((data) => (this._mediaData = data));
    }
    waitForPrep() {
      return this._prepared;
    }

    async sendToChat({ chat, options }) {
      const data = await this._prepared;
      const message = new Msg({
        ...(options.productMsgOptions || {}),
        type: data.type,
        mimetype: data.mimetype,
        size: data.size,
        filehash: data.filehash,
        caption: options.caption,
        isViewOnce: options.isViewOnce,
        body: '',
      });
      message.mediaData = data;
      await send.keep(chat, message);
      try {
        const { directPath, mediaKey, encFilehash, mediaKeyTimestamp } = await media.upload(data.mediaBlob.forceToBlob());
        message.set({ directPath, mediaKey, encFilehash, mediaKeyTimestamp });
      } catch (e) {
        message.updateAck(-1);
        return { messageSendResult: send.SendMsgResult.ERROR_UPLOAD, t: message.t, count: null };
      }
      await sim.rows.save(message);
      return send.transmit(message);
    }
  }

  const prepRawMedia = (opaque, options) => new MediaPrep(opaque, options || {});
  sim.define('WAWebPrepRawMedia', () => ({ prepRawMedia }));
  sim.define('WAWebMedia', () => ({ MediaPrep, prepRawMedia }));
})(window.__SIM);
