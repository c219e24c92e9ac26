//! The catalogue of events in three forms: schemas of the OpenAPI document, the AsyncAPI document, and a page for people. All of it is written
//! from `contract::event`.

pub mod asyncapi;
pub mod page;

use std::collections::BTreeMap;

use contract::{
    ChatId, EventId, EventType, SessionId, TenantId, Timestamp,
    event::{Entry, Erased},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, SchemaFormat,
        schema::{Discriminator, Type},
    },
};

/// The schema of all events, whatever their type.
const EVENT: &str = "Event";
/// The schema of those whose type is not known yet.
const OTHER: &str = "OtherEvent";

/// The name of a type's envelope.
fn envelope_name(kind: &EventType) -> String {
    format!("{kind:?}Event")
}

/// `Event`, an envelope for each type, and all that they refer to.
///
/// The type stays open: what is none of ours is an `OtherEvent`, so that a client made from this document goes on when types are added.
pub fn schemas() -> BTreeMap<String, RefOr<Schema>> {
    let mut all = BTreeMap::from([
        (Erased::name().into_owned(), Erased::schema()),
        (EventId::name().into_owned(), EventId::schema()),
        (TenantId::name().into_owned(), TenantId::schema()),
        (SessionId::name().into_owned(), SessionId::schema()),
        (ChatId::name().into_owned(), ChatId::schema()),
        (Timestamp::name().into_owned(), Timestamp::schema()),
        (OTHER.to_owned(), other()),
    ]);
    let mut kept = Vec::new();
    for entry in Entry::all() {
        let name = envelope_name(&entry.kind);
        all.insert(name.clone(), envelope(&entry).into());
        all.extend(entry.schemas);
        if entry.kept {
            kept.push((entry.kind.as_str().to_owned(), name));
        }
    }
    let mapping = kept.iter().map(|(kind, name)| (kind.clone(), Ref::from_schema_name(name).ref_location));
    let event = OneOfBuilder::new()
        .description(Some("One event: the same envelope on every transport. Types will be added: ignore those that you do not know."))
        .discriminator(Some(Discriminator::with_mapping("type", mapping)));
    let event = kept.iter().fold(event, |event, (_, name)| event.item(Ref::from_schema_name(name)));
    all.insert(EVENT.to_owned(), event.item(Ref::from_schema_name(OTHER)).into());
    all
}

fn envelope(entry: &Entry) -> ObjectBuilder {
    let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([entry.kind.as_str()]));
    let seq = if entry.kept { seq() } else { ObjectBuilder::new().schema_type(Type::Null).description(Some("In no log.")) };
    let body = Ref::from_schema_name(&entry.schema);
    let data: RefOr<Schema> =
        if entry.kept { OneOfBuilder::new().item(body).item(Ref::from_schema_name(Erased::name())).into() } else { body.into() };
    around(kind, seq, data).description(Some(format!("{} {}", entry.kind.when(), entry.kind.advice())))
}

fn other() -> RefOr<Schema> {
    let known: Vec<_> = EventType::ALL.iter().map(|kind| kind.as_str().replace('.', "\\.")).collect();
    let kind = ObjectBuilder::new().schema_type(Type::String).pattern(Some(format!("^(?!({})$)", known.join("|"))));
    let data = ObjectBuilder::new().schema_type(Type::Object);
    around(kind, seq(), data).description(Some("An event of a type that this document does not know: to be ignored.")).into()
}

fn seq() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some("The tenant's cursor: grows with each of its events."))
}

fn around(kind: ObjectBuilder, seq: ObjectBuilder, data: impl Into<RefOr<Schema>>) -> ObjectBuilder {
    let nullable = |name: String| OneOfBuilder::new().item(Ref::from_schema_name(name)).item(ObjectBuilder::new().schema_type(Type::Null));
    let named = |name: String| Ref::from_schema_name(name);
    let fields: [(&str, RefOr<Schema>); 8] = [
        ("id", named(EventId::name().into_owned()).into()),
        ("seq", seq.into()),
        ("type", kind.into()),
        ("timestamp", named(Timestamp::name().into_owned()).into()),
        ("tenant", named(TenantId::name().into_owned()).into()),
        ("session", nullable(SessionId::name().into_owned()).into()),
        ("chat", nullable(ChatId::name().into_owned()).into()),
        ("data", data.into()),
    ];
    let object = ObjectBuilder::new().schema_type(Type::Object);
    fields.into_iter().fold(object, |object, (name, schema)| object.property(name, schema).required(name))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_knows_every_type_and_no_schema_has_two_meanings() {
        let document = serde_json::to_value(crate::document()).unwrap();
        for (name, schema) in schemas() {
            assert_eq!(document["components"]["schemas"][&name], serde_json::to_value(schema).unwrap(), "{name}");
        }
        let event = &document["components"]["schemas"][EVENT];
        let mapping = event["discriminator"]["mapping"].as_object().unwrap();
        let kept: Vec<_> = Entry::all().filter(|e| e.kept).collect();
        assert_eq!((mapping.len(), event["oneOf"].as_array().unwrap().len()), (kept.len(), kept.len() + 1));
        for entry in kept {
            assert_eq!(mapping[entry.kind.as_str()], Value::from(format!("#/components/schemas/{}", envelope_name(&entry.kind))));
        }
    }
}
