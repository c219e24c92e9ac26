//! Packets as they are on the wire: Engine.IO 4 around Socket.IO 5 (`EIO=4`), text only.
//!
//! Of Engine.IO: `0` open, `1` close, `2` ping, `3` pong, `4` message. Inside a message, of Socket.IO: `0` connect, `1` disconnect, `2` event,
//! `3` ack, `4` connect_error; then `/namespace,` unless it is `/`, the number of the ack that is asked for, and JSON.

use serde_json::Value;

/// What a client may say.
#[derive(Debug, PartialEq)]
pub enum Packet {
    /// It lives.
    Pong,
    /// It goes.
    Close,
    /// It wants into a namespace.
    Connect {
        /// Which.
        namespace: String,
        /// The `auth` object; null where it gave none.
        auth: Value,
    },
    /// It leaves a namespace.
    Disconnect,
    /// It asks for something.
    Event {
        /// Where.
        namespace: String,
        /// The number under which it waits for an answer.
        ack: Option<u64>,
        /// What.
        name: String,
        /// The first argument; null where there is none.
        data: Value,
    },
    /// It answers something. Nothing of ours asks for that.
    Ack,
}

impl Packet {
    /// Reads one. `None`: no packet that a client may send.
    pub fn read(text: &str) -> Option<Self> {
        match text.as_bytes().first()? {
            b'1' => Some(Self::Close),
            b'3' => Some(Self::Pong),
            b'4' => Self::read_message(text.get(1..)?),
            _ => None,
        }
    }

    fn read_message(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_at_checked(1)?;
        let (namespace, rest) = match rest.strip_prefix('/') {
            Some(_) => rest.split_once(',').unwrap_or((rest, "")),
            None => ("/", rest),
        };
        // Clients may put a query behind the name.
        let namespace = namespace.split('?').next().unwrap_or_default().to_owned();
        match kind {
            "0" if rest.is_empty() => Some(Self::Connect { namespace, auth: Value::Null }),
            "0" => Some(Self::Connect { namespace, auth: serde_json::from_str(rest).ok()? }),
            "1" => Some(Self::Disconnect),
            "2" => {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                let (ack, json) = rest.split_at_checked(digits)?;
                let ack = if ack.is_empty() { None } else { Some(ack.parse().ok()?) };
                let mut arguments = serde_json::from_str::<Vec<Value>>(json).ok()?.into_iter();
                let Value::String(name) = arguments.next()? else { return None };
                Some(Self::Event { namespace, ack, name, data: arguments.next().unwrap_or_default() })
            }
            "3" => Some(Self::Ack),
            _ => None,
        }
    }
}

/// The first packet of a connection.
pub fn open(sid: &str, every_ms: u128, within_ms: u128, most: usize) -> String {
    format!(r#"0{{"sid":"{sid}","upgrades":[],"pingInterval":{every_ms},"pingTimeout":{within_ms},"maxPayload":{most}}}"#)
}

/// Asks whether the client lives.
pub const PING: &str = "2";

/// Writes the packets of one namespace.
#[derive(Debug, Clone, Copy)]
pub struct Writer(pub &'static str);

impl Writer {
    fn message(self, kind: char, rest: &str) -> String {
        let Self(namespace) = self;
        if namespace == "/" { format!("4{kind}{rest}") } else { format!("4{kind}{namespace},{rest}") }
    }

    /// The client is in.
    pub fn connected(self, sid: &str) -> String {
        self.message('0', &format!(r#"{{"sid":"{sid}"}}"#))
    }

    /// The client is out.
    pub fn disconnected(self) -> String {
        self.message('1', "")
    }

    /// An event; each argument is JSON already.
    pub fn event(self, name: &str, arguments: &[&str]) -> String {
        let arguments: String = arguments.iter().flat_map(|json| [",", json]).collect();
        self.message('2', &format!(r#"["{name}"{arguments}]"#))
    }

    /// The answer to what was asked under a number.
    pub fn ack(self, number: u64, answer: &Value) -> String {
        self.message('3', &format!("{number}[{answer}]"))
    }
}

/// The client is not let into a namespace, whatever it calls it.
pub fn connect_error(namespace: &str, message: &str, data: &Value) -> String {
    let body = serde_json::json!({"message": message, "data": data});
    if namespace == "/" { format!("44{body}") } else { format!("44{namespace},{body}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(namespace: &str, ack: Option<u64>, name: &str, data: Value) -> Packet {
        Packet::Event { namespace: namespace.into(), ack, name: name.into(), data }
    }
    fn connect(namespace: &str, auth: Value) -> Packet {
        Packet::Connect { namespace: namespace.into(), auth }
    }

    #[test]
    fn what_clients_send_is_read_as_the_protocol_writes_it() {
        for (text, packet) in [
            ("3", Packet::Pong),
            ("1", Packet::Close),
            ("40", connect("/", Value::Null)),
            (r#"40{"token":"x"}"#, connect("/", json!({"token": "x"}))),
            ("40/a,", connect("/a", Value::Null)),
            (r#"40/whatsapp-web.js,{"token":"x,y"}"#, connect("/whatsapp-web.js", json!({"token": "x,y"}))),
            (r#"40/a?b=1,{}"#, connect("/a", json!({}))),
            ("41", Packet::Disconnect),
            ("41/a,", Packet::Disconnect),
            (r#"42["resume",{"after":1}]"#, event("/", None, "resume", json!({"after": 1}))),
            (r#"4212["resume"]"#, event("/", Some(12), "resume", Value::Null)),
            (r#"42/a,0["x",1,2]"#, event("/a", Some(0), "x", json!(1))),
            ("431[]", Packet::Ack),
        ] {
            assert_eq!(Packet::read(text), Some(packet), "{text}");
        }
    }

    #[test]
    fn what_no_client_may_send_is_no_packet() {
        let huge = format!("42{}[\"x\"]", "9".repeat(30));
        for text in
            ["", "0", "2", "4", "5", "6", "x", "4é", "4x", "40{", "42", "42{}", "42[]", "42[1]", r#"451-["x"]"#, "44{}", "45", &huge]
        {
            assert_eq!(Packet::read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_names_the_namespace_unless_it_is_the_root() {
        let (root, other) = (Writer("/"), Writer("/b"));
        assert_eq!(root.event("message", &["{}", "1"]), r#"42["message",{},1]"#);
        assert_eq!(other.event("ready", &[]), r#"42/b,["ready"]"#);
        assert_eq!(root.ack(7, &json!({"cursor": 1})), r#"437[{"cursor":1}]"#);
        assert_eq!((root.disconnected(), other.connected("s")), ("41".into(), r#"40/b,{"sid":"s"}"#.into()));
        assert_eq!(connect_error("/", "no", &json!({})), r#"44{"data":{},"message":"no"}"#);
    }
}
