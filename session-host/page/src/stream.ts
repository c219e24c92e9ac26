// The page's connection to its server, and the code that links it to a phone.
import { cut } from './messages';
import { maybe, need, str, type Wpp } from './page';

/** As the host reads it (`StreamState`). */
export function streamState(wpp: Wpp) {
  const { Stream } = need('WAWebStreamModel');
  const { Socket } = need('WAWebSocketModel');
  const me = need('WAWebUserPrefsMeUser');
  return {
    registered: !!maybe(() => need('WAWebUserPrefsMultiDevice').isRegistered()),
    mode: str(Stream.mode) ?? '',
    info: str(Stream.info),
    socket: str(Socket.state),
    me: str(maybe(() => me.getMaybeMePnUser())),
    meLid: str(maybe(() => me.getMaybeMeLidUser())),
    pushname: maybe(() => cut(String(wpp.whatsapp.Conn.pushname ?? ''), 256)) || null,
    needsUpdate: !!Stream.needsUpdate,
  };
}

/** The QR code's text: wa-js builds four parts, the page draws five, the last one being its platform. Null when there is none. */
export async function qrText(wpp: Wpp): Promise<string | null> {
  const code = await wpp.conn.getAuthCode();
  return code ? `${code.fullCode},${need('WAWebCompanionRegClientUtils').DEVICE_PLATFORM}` : null;
}

/** How long the page shows the present code, ms. */
export const qrTtl = (): number | null => {
  const ttl = maybe(() => need('WAWebConnModel').Conn.refTTL);
  return typeof ttl === 'number' && ttl > 0 ? Math.round(ttl) : null;
};
