// Who this page is linked as. Facts: research/webpage.md 1.3 (registered = credentials present; authenticated = registered and connected
// in this page life) and 7 (localStorage carries the registration marker).
(function (sim) {
  const { createWid } = sim;
  /** A null `device` means: not linked. */
  const account = { device: null, me: null, lid: null, pushname: null, connectedOnce: false, lidMigrated: false, lidChats: new Set() };
  const REGISTRATION = 'WANoiseInfo';
  const LAST_WID = 'last-wid-md';

  const isRegistered = () => !!account.device;
  const mePn = () => (account.me ? createWid(account.me) : undefined);
  const meLid = () => (account.lid ? createWid(account.lid) : undefined);
  const isMe = (wid) => !!wid && [account.me, account.lid].includes(String(wid));

  /** Our id in the form that fits a chat: the hidden one in groups and in chats with hidden ids. */
  const meIn = (chat) => ((chat.isGroup() || chat.isLid()) && meLid()) || mePn();

  function orThrow(read, what) {
    return () => {
      const wid = read();
      if (!wid) throw new Error(`getMe: ${what} is not known`);
      return wid;
    };
  }

  const credentials = () => ({ device: account.device, me: account.me, lid: account.lid, pushname: account.pushname });

  function adopt(creds) {
    Object.assign(account, { device: creds.device, me: creds.me, lid: creds.lid || null, pushname: creds.pushname || null });
  }

  function remember() {
    localStorage.setItem(REGISTRATION, JSON.stringify(credentials()));
    localStorage.setItem(LAST_WID, JSON.stringify(account.me));
  }

  function recall() {
    try {
      const creds = JSON.parse(localStorage.getItem(REGISTRATION) || 'null');
      if (creds && creds.device) adopt(creds);
    } catch {
      localStorage.removeItem(REGISTRATION);
    }
  }

  function forget() {
    localStorage.clear();
    Object.assign(account, { device: null, me: null, lid: null, pushname: null, connectedOnce: false });
  }

  sim.account = Object.assign(account, { isRegistered, mePn, meLid, isMe, meIn, credentials, adopt, remember, recall, forget });
  recall();

  sim.define('WAWebUserPrefsMeUser', () => ({
    getMaybeMePnUser: mePn,
    getMaybeMeLidUser: meLid,
    getMaybeMeDevicePn: mePn,
    getMaybeMeDeviceLid: meLid,
    getMeUserOrThrow: orThrow(mePn, 'the phone number'),
    getMePnUserOrThrow_DO_NOT_USE: orThrow(mePn, 'the phone number'),
    getMeLidUserOrThrow: orThrow(meLid, 'the hidden id'),
    getMaybeMeDisplayName: () => account.pushname,
    isMeAccount: isMe,
    isMePrimary: isMe,
    isMePnUser: (wid) => String(wid) === account.me,
    isSerializedWidMe: (text) => isMe(text),
  }));
  sim.define('WAWebUserPrefsIsLoggedIn', () => ({ isLoggedIn: () => isRegistered() && account.connectedOnce }));
  sim.define('WAWebUserPrefsMultiDevice', () => ({ isRegistered, getADVSecretKey: () => sim.link.advSecret }));
})(window.__SIM);
