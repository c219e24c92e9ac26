// Derived values of models. Facts: newer pages keep them in modules of functions, not on the models; wa-js puts them back on the
// prototypes from here (its own sources).
(function (sim) {
  const { account, contacts, createWid } = sim;
  const read = (name) => (model) => model[name];

  sim.define('WAWebChatGetters', () => ({
    getId: read('id'),
    getT: read('t'),
    getName: read('name'),
    getUnreadCount: read('unreadCount'),
    getArchive: read('archive'),
    getPin: read('pin'),
    getIsReadOnly: read('isReadOnly'),
    getMuteExpiration: read('muteExpiration'),
    getLabels: read('labels'),
    getHasUnread: (c) => c.unreadCount > 0,
    getIsUser: (c) => c.id.isUser(),
    getIsPSA: (c) => c.id.isPSA(),
    getIsGroup: (c) => c.id.isGroup(),
    getIsBroadcast: (c) => c.id.isBroadcast(),
    getIsNewsletter: (c) => c.id.isNewsletter(),
    getIsBot: (c) => c.id.isBot(),
  }));
  sim.define('WAWebFrontendChatGetters', () => ({
    getContact: read('contact'),
    getMsgs: read('msgs'),
    getGroupMetadata: read('groupMetadata'),
    getFormattedTitle: read('formattedTitle'),
    getPresence: read('presence'),
    getActive: read('active'),
    getMute: read('mute'),
    getIsParentGroup: () => false,
    getShouldAppearInList: () => true,
    getPreviewMessage: (c) => c.msgs.last(),
    getShowChangeNumberNotification: () => false,
  }));

  const displayName = (c) => c.name || c.pushname || c.id.user;
  sim.define('WAWebContactGetters', () => ({
    getId: read('id'),
    getName: read('name'),
    getPushname: read('pushname'),
    getShortName: read('shortName'),
    getIsBusiness: (c) => !!c.isBusiness,
    getVerifiedName: read('verifiedName'),
    getNotifyName: read('pushname'),
    getUserid: (c) => c.id.user,
    getIsMe: (c) => account.isMe(c.id),
    getIsUser: (c) => c.id.isUser(),
    getIsGroup: (c) => c.id.isGroup(),
    getIsBroadcast: (c) => c.id.isBroadcast(),
    getIsNewsletter: (c) => c.id.isNewsletter(),
    getIsBot: (c) => c.id.isBot(),
    getIsPSA: (c) => c.id.isPSA(),
    getIsIAS: () => false,
    getIsSupportAccount: () => false,
    getIsWAContact: (c) => c.id.isUser(),
  }));
  sim.define('WAWebFrontendContactGetters', () => ({
    getFormattedName: displayName,
    getFormattedShortName: (c) => c.shortName || displayName(c),
    getFormattedShortNameWithNonBreakingSpaces: (c) => (c.shortName || displayName(c)).replace(/ /g, '\u00a0'),
    getFormattedUser: (c) => c.id.user,
    getDisplayName: displayName,
    getSearchName: (c) => displayName(c).toLowerCase(),
    getHeader: (c) => displayName(c)[0],
    getIsMyContact: (c) => !!c.name,
    getIsContactBlocked: (c) => !!contacts.Blocklist.get(c.id),
    getPhoneNumber: read('phoneNumber'),
    getPnForLid: (c) => contacts.getPhoneNumber(c.id),
    getCommonGroups: () => [],
  }));

  /** The quoted message: as the page has it, else made from what the reply carries. */
  function getQuotedMsgObj(m) {
    if (!m.quotedStanzaID) return null;
    const known = sim.loaded(true, m.quotedStanzaID) || sim.loaded(false, m.quotedStanzaID);
    if (known || !m.quotedMsg) return known || null;
    const from = m.quotedParticipant || m.id.remote;
    const participant = m.id.remote.isGroup() ? createWid(String(from)) : undefined;
    const id = new sim.MsgKey({ fromMe: account.isMe(from), remote: m.id.remote, id: m.quotedStanzaID, participant });
    return new sim.Msg({ ...m.quotedMsg, id, from });
  }
  sim.define('WAWebQuotedMsgModelUtils', () => ({ getQuotedMsgObj }));
})(window.__SIM);
