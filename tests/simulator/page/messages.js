// The message model and its collections. Facts: research/webpage.md 2 (d, e) and 4.4.
(function (sim) {
  const { BaseModel, BaseCollection, defineModel, properties, database } = sim;

  class Msg extends BaseModel {
    get senderObj() {
      return sim.contacts.contacts.gadd(this.author || this.from);
    }
    /** An ack never falls: receipts may come out of order. A refusal (-1) only befalls what has not been acknowledged. */
    updateAck(ack) {
      const known = this.ack || 0;
      if (ack === -1 ? known !== 0 : ack <= Math.max(known, 0)) return;
      this.ack = ack;
      database.change(this.id.toString(), (row) => ({ ack: Math.max(row.ack, ack) })).catch(sim.report);
    }
    async waitForPrep() {}
    msgContextInfo() {
      return {
        quotedMsg: this.serialize(),
        quotedStanzaID: this.id.id,
        quotedParticipant: this.author || this.from,
        quotedRemoteJid: undefined,
      };
    }
    avParams() {
      return {};
    }
    canReply() {
      return true;
    }
  }
  defineModel(
    Msg,
    {
      ...properties('id body type subtype t from to author ack star notifyName self local title links isForwarded isViewOnce'),
      ...properties('quotedStanzaID quotedParticipant quotedRemoteJid quotedMsg caption latestEditMsgKey protocolMessageKey parentMsgKey'),
      ...properties('mimetype directPath mediaKey mediaKeyTimestamp filehash encFilehash size mediaData duration filename'),
      ...properties('pollName pollOptions pollSelectableOptionsCount pollVotesSnapshot messageSecret reactionText hasReaction'),
      isNewMsg: false,
      mentionedJidList: () => [],
    },
    'msg',
  );

  class MsgCollection extends BaseCollection {
    /** Where everything that arrives passes, revocations too: wa-js wraps it on the instance. */
    async processMultipleMessages(chatId, messages) {
      return this.add(messages.filter((m) => m.type !== 'protocol'));
    }
    /** From memory, else from the stored rows. */
    async getMessagesById(ids) {
      const found = await Promise.all(ids.map((id) => sim.rows.load(String(id))));
      return { messages: found.filter(Boolean) };
    }
  }
  MsgCollection.model = Msg;
  const messages = new MsgCollection();

  const byIdPart = new Map();
  messages.on('add', (m) => byIdPart.set(`${m.id.fromMe} ${m.id.id}`, m));
  messages.on('remove', (m) => byIdPart.delete(`${m.id.fromMe} ${m.id.id}`));
  /** A loaded message by the id part of its key, whatever form of the chat the key has. */
  sim.loaded = (fromMe, idPart) => byIdPart.get(`${fromMe} ${idPart}`);

  /** The messages of one chat: the same models, in a collection of their own. */
  class ChatMessages extends BaseCollection {}
  ChatMessages.model = Msg;

  sim.report = (e) => console.error('simulator page:', (e && e.stack) || e);
  sim.messages = messages;
  sim.Msg = Msg;
  sim.ChatMessages = ChatMessages;
  sim.define('WAWebMsgModel', () => ({ Msg }));
  sim.define('WAWebMsgCollection', () => ({ MsgCollection: messages }));
  sim.define('WAWebAck', () => ({
    ACK: { FAILED: -1, CLOCK: 0, SENT: 1, RECEIVED: 2, READ: 3, PLAYED: 4 },
    ACK_STRING: { SENDER: 'sender', INACTIVE: 'inactive', READ: 'read', DELIVERY: 'delivery' },
    EDIT_ATTR: {},
  }));
})(window.__SIM);
