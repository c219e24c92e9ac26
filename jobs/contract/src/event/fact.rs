//! Which body belongs to which type.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, schema::Schema};

use super::{
    ChatIdentityChangedBody, ChatMergedBody, ContactErasedBody, EventType, GrantBody, HistorySyncedBody, JobBody, JobLostBody,
    LogRestoredBody, MessageAckBody, MessageBody, SessionGapBody, SessionQrBody, SessionStatusBody, StreamGapBody, WebhookStatusBody,
};

/// A body that has a value to show.
pub(super) trait Example {
    /// A value as a reader may meet it.
    fn example() -> Self;
}

macro_rules! facts {
    ($($kind:ident($body:ty),)*) => {
        /// What an event says: its type and the body that belongs to it.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Fact {$(
            #[doc = concat!("[`EventType::", stringify!($kind), "`].")]
            $kind($body),
        )*}
        impl Fact {
            /// Its type.
            pub const fn kind(&self) -> EventType {
                match self { $(Self::$kind(_) => EventType::$kind,)* }
            }
            /// Its body, as it stands in the envelope.
            pub fn data(&self) -> Value {
                match self { $(Self::$kind(body) => json!(body),)* }
            }
            /// Reads a body of this type. `None`: no type of this build.
            ///
            /// # Errors
            /// Where it is not what its type says.
            pub fn read(kind: &EventType, data: &Value) -> Result<Option<Self>, serde_json::Error> {
                match kind {
                    $(EventType::$kind => <$body>::deserialize(data).map(Self::$kind).map(Some),)*
                    EventType::Other(_) => Ok(None),
                }
            }
            /// A value as a reader may meet it. `None`: no type of this build.
            pub fn example(kind: &EventType) -> Option<Self> {
                match kind {
                    $(EventType::$kind => Some(Self::$kind(Example::example())),)*
                    EventType::Other(_) => None,
                }
            }
            /// The name of the body's schema, with that schema and all that it refers to. `None`: no type of this build.
            pub fn schemas(kind: &EventType) -> Option<(String, Vec<(String, RefOr<Schema>)>)> {
                match kind {
                    $(EventType::$kind => Some(schemas::<$body>()),)*
                    EventType::Other(_) => None,
                }
            }
        }
    };
}

// A new type does not compile without its line here.
facts! {
    SessionStatus(SessionStatusBody),
    Message(MessageBody),
    MessageAck(MessageAckBody),
    JobUpdated(JobBody),
    JobLost(JobLostBody),
    HistorySynced(HistorySyncedBody),
    ChatMerged(ChatMergedBody),
    ChatIdentityChanged(ChatIdentityChangedBody),
    ContactErased(ContactErasedBody),
    GrantCreated(GrantBody),
    GrantDeleted(GrantBody),
    SessionGap(SessionGapBody),
    LogRestored(LogRestoredBody),
    WebhookStatus(WebhookStatusBody),
    SessionQr(SessionQrBody),
    StreamGap(StreamGapBody),
}

fn schemas<T: utoipa::ToSchema>() -> (String, Vec<(String, RefOr<Schema>)>) {
    let mut all = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut all);
    (T::name().into_owned(), all)
}

/// What erasure leaves of a body, whatever the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Erased {
    /// Always true.
    erased: bool,
}

impl Erased {
    /// The tombstone.
    pub const BODY: Self = Self { erased: true };

    /// Whether a body is one.
    pub fn is(data: &Value) -> bool {
        *data == json!(Self::BODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_reads_back_as_the_same_and_nothing_of_it_is_lost() {
        for kind in EventType::ALL {
            let fact = Fact::example(kind).unwrap();
            assert_eq!(fact.kind(), *kind);
            let again = Fact::read(kind, &fact.data()).unwrap().unwrap();
            assert_eq!((&again, again.data()), (&fact, fact.data()));
        }
        assert!(Fact::read(&EventType::Other("moon.landed".into()), &json!({})).unwrap().is_none());
    }

    #[test]
    fn a_body_that_lacks_something_is_not_the_fact_and_a_tombstone_is_none() {
        assert!(Fact::read(&EventType::Message, &json!({"message": {"id": 1}})).is_err());
        assert!(Erased::is(&json!({"erased": true})) && !Erased::is(&json!({"erased": true, "message": {}})));
    }
}
