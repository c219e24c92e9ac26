//! The AsyncAPI document: where events are heard, and what each transport adds to them.

use contract::event::Entry;
use serde_json::{Map, Value, json};

use super::{EVENT, envelope_name};

/// `/asyncapi.json`.
pub fn document() -> Value {
    let mut document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Zaguan events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "One log a tenant, one cursor (`seq`), five ways to read it. The envelope of an event is the same on every one of them. \
                Types and fields will be added: ignore those that you do not know. What the HTTP API answers beside events: /openapi.json.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": servers(),
        "channels": channels(),
        "operations": operations(),
        "components": {"schemas": schemas(), "messages": messages(), "securitySchemes": security_schemes()},
    });
    strip_discriminators(&mut document);
    document
}

/// AsyncAPI takes a name where OpenAPI takes an object; the `oneOf` says the same.
fn strip_discriminators(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, value| key != "discriminator" || !value.is_object());
            object.values_mut().for_each(strip_discriminators);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_discriminators),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn reference(path: &str) -> Value {
    json!({"$ref": format!("#/{path}")})
}

fn servers() -> Value {
    let host = json!({"host": {"default": "localhost:8080", "description": "Where the API is served."}});
    let tokens = ["accessToken", "apiKey"].map(|name| reference(&format!("components/securitySchemes/{name}")));
    json!({
        "api": {
            "host": "{host}", "protocol": "https", "variables": host,
            "description": "Long poll and server-sent events.",
            "security": [tokens[0], tokens[1], reference("components/securitySchemes/ticket")],
        },
        "socket": {
            "host": "{host}", "protocol": "wss", "variables": host,
            "description": "Socket.IO, by WebSocket only. The credential goes into the handshake's `auth` object: see the message `connect`.",
        },
        "receiver": {
            "host": "{host}", "protocol": "https", "variables": {"host": {"default": "example.com", "description": "A receiver of yours."}},
            "description": "Where webhooks are sent to. The signature in the headers is the only credential: verify it.",
        },
        "redis": {
            "host": "{host}", "protocol": "redis", "variables": {"host": {"default": "localhost:6379", "description": "The operator's Redis."}},
            "description": "For consumers of the operator; user `firehose`. See docs/redis-streams.md.",
            "security": [reference("components/securitySchemes/redis")],
        },
    })
}

fn security_schemes() -> Value {
    json!({
        "accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "apiKey": {"type": "httpApiKey", "in": "header", "name": "X-Api-Key", "description": "`zgk_…` with the scope `events:read`; `Authorization: Bearer` takes it too."},
        "ticket": {"type": "httpApiKey", "in": "query", "name": "ticket", "description": "From `POST /api/events/ticket`, once, for clients that cannot send headers."},
        "redis": {"type": "userPassword", "description": "The ACL user `firehose`."},
    })
}

fn channels() -> Value {
    let filters = "Takes `types`, `session`, `chat` and `after`.";
    let socket = events_and(&["connect", "auth", "subscribe", "resume", "cursor", "stream.end", "auth.expiring", "problem"]);
    json!({
        "longPoll": {
            "address": "/api/events", "servers": [reference("servers/api")], "title": "Long poll",
            "description": format!("Pages of the log; `wait` (0 to 25 s) holds an empty answer. {filters}"),
            "messages": {"page": reference("components/messages/page")},
        },
        "serverSentEvents": {
            "address": "/api/events/stream", "servers": [reference("servers/api")], "title": "Server-sent events",
            "description": format!("`id` is the `seq`, `data` the envelope, no `event` field. `Last-Event-ID` wins over `after`. {filters}"),
            "messages": events_and(&[]),
        },
        "socketIo": {
            "address": "/socket.io", "servers": [reference("servers/socket")], "title": "Socket.IO",
            "description": "Namespace `/`, transport `websocket`. An event's name is its type, its only argument the envelope. The namespace \
                `/whatsapp-web.js` has that library's names instead, each with the envelope as its last argument.",
            "messages": socket, "bindings": {"ws": {"method": "GET"}},
        },
        "webhook": {
            "address": null, "servers": [reference("servers/receiver")], "title": "Webhook",
            "description": "A POST to the URL of the webhook. 2xx settles it, 410 disables the webhook, anything else is sent again.",
            "messages": {"delivery": reference("components/messages/delivery")},
        },
        "tenantStream": {
            "address": "zg:{shard}:ev:{tenant}", "servers": [reference("servers/redis")], "title": "Redis: a tenant's stream",
            "description": "The latest 2,000 events of a tenant. The id of an entry is `<seq>-0`.",
            "parameters": redis_parameters(&["shard", "tenant"]),
            "messages": {"entry": reference("components/messages/tenantEntry")},
        },
        "firehose": {
            "address": "zg:{shard}:firehose", "servers": [reference("servers/redis")], "title": "Redis: the firehose",
            "description": "All tenants of a shard, for consumer groups. The id of an entry is a time.",
            "parameters": redis_parameters(&["shard"]),
            "messages": {"entry": reference("components/messages/firehoseEntry")},
        },
    })
}

/// Every event's message, and these.
fn events_and(more: &[&str]) -> Value {
    let events = Entry::all().map(|entry| entry.kind.as_str().to_owned());
    let all = events.chain(more.iter().map(|name| (*name).to_owned()));
    all.map(|name| (name.clone(), reference(&format!("components/messages/{name}")))).collect::<Map<_, _>>().into()
}

fn redis_parameters(names: &[&str]) -> Value {
    let all = json!({
        "shard": {"description": "`{N}`, braces included: crc16(tenant) mod 512, from 0 to 511.", "examples": ["{146}"]},
        "tenant": {"description": "The tenant's id.", "examples": ["ten_00000000000000000000000000"]},
    });
    names.iter().map(|name| ((*name).to_owned(), all[*name].clone())).collect::<Map<_, _>>().into()
}

fn operations() -> Value {
    let all = |channel: &str, names: Vec<String>| -> Value {
        names.iter().map(|name| reference(&format!("channels/{channel}/messages/{name}"))).collect()
    };
    let events = || Entry::all().map(|entry| entry.kind.as_str().to_owned());
    let some = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let told = events().chain(some(&["cursor", "stream.end", "auth.expiring", "problem"])).collect();
    let query = json!({"type": "object", "properties": {
        "after": {"type": "integer", "minimum": 0}, "types": {"type": "string"}, "session": {"type": "string"}, "chat": {"type": "string"},
    }});
    json!({
        "answerPoll": {
            "action": "send", "channel": reference("channels/longPoll"), "messages": all("longPoll", some(&["page"])),
            "bindings": {"http": {"method": "GET", "query": query}},
        },
        "streamEvents": {
            "action": "send", "channel": reference("channels/serverSentEvents"), "messages": all("serverSentEvents", events().collect()),
            "bindings": {"http": {"method": "GET", "query": query}},
        },
        "emitOnSocket": {"action": "send", "channel": reference("channels/socketIo"), "messages": all("socketIo", told)},
        "obeySocket": {
            "action": "receive", "channel": reference("channels/socketIo"),
            "messages": all("socketIo", some(&["connect", "auth", "subscribe", "resume"])),
        },
        "deliverWebhook": {
            "action": "send", "channel": reference("channels/webhook"), "messages": all("webhook", some(&["delivery"])),
            "bindings": {"http": {"method": "POST"}},
        },
        "appendToTenantStream": {"action": "send", "channel": reference("channels/tenantStream"), "messages": all("tenantStream", some(&["entry"]))},
        "appendToFirehose": {"action": "send", "channel": reference("channels/firehose"), "messages": all("firehose", some(&["entry"]))},
    })
}

fn messages() -> Value {
    let mut all = Map::new();
    for entry in Entry::all() {
        let name = entry.kind.as_str();
        let example = json!({"name": name.replace('.', "-"), "payload": entry.envelope()});
        all.insert(
            name.to_owned(),
            json!({
                "name": name, "title": name, "summary": entry.kind.when(), "description": entry.kind.advice(),
                "payload": reference(&format!("components/schemas/{}", envelope_name(&entry.kind))), "examples": [example],
                "x-seen-by": entry.audience.about(), "x-in-the-log": entry.kept,
            }),
        );
    }
    let mut add = |name: &str, message: Value| all.insert(name.to_owned(), message);
    let event = reference(&format!("components/schemas/{EVENT}"));
    let page = json!({"type": "object", "required": ["items", "next"], "properties": {
        "items": {"type": "array", "items": event}, "next": {"type": "integer", "description": "The next `after`, whether or not anything was shown."},
    }});
    add(
        "page",
        json!({"name": "page", "summary": "Events after a cursor, in order.", "payload": page, "headers": {"type": "object", "properties": {
            "Zaguan-Seq": {"type": "string", "description": "The log's last `seq`."},
        }}}),
    );
    add(
        "delivery",
        json!({
            "name": "delivery", "summary": "One event on its way to one receiver (Standard Webhooks).", "payload": event, "headers": delivery_headers(),
        }),
    );
    add("tenantEntry", redis_entry(&[("id", "The event's id."), ("e", "The envelope, as JSON.")], &[]));
    add(
        "firehoseEntry",
        redis_entry(
            &[("tenant", "Whose."), ("seq", "The event's `seq`, as digits."), ("id", "The event's id."), ("type", "What it says.")],
            &[("e", "The envelope, as JSON: only with `FIREHOSE_BODIES=true`.")],
        ),
    );
    for (name, message) in socket_messages() {
        add(name, message);
    }
    all.into()
}

fn delivery_headers() -> Value {
    json!({
        "type": "object", "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
        "properties": {
            "webhook-id": {"type": "string", "description": "The event's id: the same for every attempt, replay and redelivery. Drop what you have."},
            "webhook-timestamp": {"type": "string", "pattern": "^[0-9]+$", "description": "When this attempt was made, in seconds since 1970."},
            "webhook-signature": {
                "type": "string",
                "description": "`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`; two of them, space-separated, while a secret is being rotated.",
            },
            "zaguan-replay": {"type": "string", "enum": ["true"], "description": "It has been sent before, and was asked for again."},
        },
    })
}

fn redis_entry(always: &[(&str, &str)], sometimes: &[(&str, &str)]) -> Value {
    let properties: Map<_, _> = [always, sometimes]
        .concat()
        .into_iter()
        .map(|(name, about)| (name.to_owned(), json!({"type": "string", "description": about})))
        .collect();
    let required: Vec<_> = always.iter().map(|(name, _)| *name).collect();
    json!({"summary": "An entry, at least once.", "payload": {"type": "object", "properties": properties, "required": required}})
}

fn socket_messages() -> [(&'static str, Value); 8] {
    let text = json!({"type": "string"});
    let types = json!({"oneOf": [{"type": "array", "items": text}, text]});
    let seq = json!({"type": "integer", "minimum": 0});
    let message = |name: &str, summary: &str, required: &[&str], properties: Value| json!({"name": name, "summary": summary, "payload": {"type": "object", "required": required, "properties": properties}});
    let connect = json!({"token": text, "apiKey": text, "ticket": text, "after": seq, "types": types, "session": text, "chat": text});
    let end = json!({"reason": text, "cursor": seq, "problem": {"type": "object"}});
    [
        ("connect", message("connect", "The handshake's `auth` object: one of token, apiKey and ticket, and what to hear.", &[], connect)),
        (
            "auth",
            message("auth", "A fresh credential of the same caller, before the old one ends.", &[], json!({"token": text, "apiKey": text})),
        ),
        (
            "subscribe",
            message(
                "subscribe",
                "What to hear from now on; answered with `cursor`.",
                &[],
                json!({"types": types, "session": text, "chat": text}),
            ),
        ),
        ("resume", message("resume", "Go on behind this `seq`; answered with `cursor`.", &["after"], json!({"after": seq}))),
        ("cursor", message("cursor", "All up to here has been judged, shown or not.", &["seq"], json!({"seq": seq}))),
        ("stream.end", message("stream.end", "The server ends the connection, and why.", &["reason", "cursor"], end)),
        (
            "auth.expiring",
            message(
                "auth.expiring",
                "The credential is about to end.",
                &["expiresAt"],
                json!({"expiresAt": {"type": "string", "format": "date-time"}}),
            ),
        ),
        ("problem", message("problem", "Why a message that asked for no answer was refused.", &["code"], json!({"code": text}))),
    ]
}

fn schemas() -> Value {
    super::schemas().into_iter().map(|(name, schema)| (name, json!(schema))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere_and_every_type_is_heard_on_every_stream() {
        let document = document();
        let text = document.to_string();
        for target in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(target).is_some(), "{target}");
        }
        for entry in Entry::all() {
            for channel in ["serverSentEvents", "socketIo"] {
                assert!(document["channels"][channel]["messages"][entry.kind.as_str()].is_object(), "{channel} {:?}", entry.kind);
            }
        }
    }

    #[test]
    fn the_committed_document_is_the_one_that_is_served() {
        let committed: Value = serde_json::from_str(include_str!("../../asyncapi.json")).unwrap();
        assert!(committed == document(), "api/asyncapi.json is out of date: write it with `make openapi`");
    }
}
