//! What is told of messages.

use serde::{Deserialize, Serialize};

use super::{
    catalogue::{JOB, MESSAGE, at},
    fact::Example,
};
use crate::{JobId, MessageId, MessageStatus, Principal, Timestamp, job::names};

/// The body of `message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MessageBody {
    /// The message as it was when it was announced.
    pub message: MessageFact,
}

/// A message. Its chat is the envelope's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageFact {
    /// Ours; lasting.
    pub id: MessageId,
    /// Whether the linked account sent it.
    pub from_me: bool,
    /// `text`, or WhatsApp's name of another type. More will come.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text, where it has one.
    #[schema(required)]
    pub text: Option<String>,
    /// Where it is.
    pub status: MessageStatus,
    /// WhatsApp's ack, -1 to 4.
    pub ack: i16,
    /// Where it was written.
    pub source: MessageSource,
    /// The user or key whose job sent it.
    #[schema(required)]
    pub sent_by: Option<Principal>,
    /// The id part of WhatsApp's key.
    pub wa_id: String,
    /// Who wrote it; null for the linked account's own.
    #[schema(required)]
    pub sender: Option<SenderFact>,
    /// The WhatsApp id of the message it replies to.
    #[schema(required)]
    pub reply_to: Option<String>,
    /// When it was written, by WhatsApp's clock; of one that a job sent, when it was accepted.
    pub timestamp: Timestamp,
    /// Whether it came while the session was away, and was found later.
    pub recovered: bool,
    /// The job that sent it.
    #[schema(required)]
    pub job: Option<JobId>,
    /// The caller's own word for it.
    #[schema(required)]
    pub reference: Option<String>,
}

names! {
    /// Where a message was written.
    MessageSource {
        /// Through this API.
        Api = "api",
        /// On a phone.
        Phone = "phone",
        /// On another device.
        Device = "device",
    }
}

/// Who wrote a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SenderFact {
    /// The LID where one is known, else the phone address.
    #[schema(required)]
    pub wa_id: Option<String>,
    /// The LID.
    #[schema(required)]
    pub lid: Option<String>,
    /// Digits.
    #[schema(required)]
    pub phone: Option<String>,
    /// The name that its owner uses.
    #[schema(required)]
    pub name: Option<String>,
}

impl Example for MessageBody {
    fn example() -> Self {
        let lid = "120984357612345@lid".to_owned();
        let sender = SenderFact { wa_id: Some(lid.clone()), lid: Some(lid), phone: Some("5511888880000".into()), name: Some("Bea".into()) };
        Self {
            message: MessageFact {
                id: MessageId::from_uuid(MESSAGE),
                from_me: false,
                kind: "text".into(),
                text: Some("Tem pão de queijo hoje?".into()),
                status: MessageStatus::Received,
                ack: 1,
                source: MessageSource::Phone,
                sent_by: None,
                wa_id: "3A7F0C9D12B4E85611".into(),
                sender: Some(sender),
                reply_to: None,
                timestamp: at(-1_000),
                recovered: false,
                job: None,
                reference: None,
            },
        }
    }
}

/// The body of `message.ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MessageAckBody {
    /// Which message, and how far it has come.
    pub message: MessageAck,
}

/// How far a message has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageAck {
    /// Ours.
    pub id: MessageId,
    /// The id part of WhatsApp's key.
    pub wa_id: String,
    /// 2 delivered, 3 read, 4 played.
    pub ack: i16,
    /// The same by name.
    pub status: MessageStatus,
    /// The job that sent it, where one did.
    #[schema(required)]
    pub job: Option<JobId>,
    /// The caller's own word for it.
    #[schema(required)]
    pub reference: Option<String>,
}

impl Example for MessageAckBody {
    fn example() -> Self {
        Self {
            message: MessageAck {
                id: MessageId::from_uuid(MESSAGE),
                wa_id: crate::wa_id_of(MessageId::from_uuid(MESSAGE)),
                ack: 3,
                status: MessageStatus::Read,
                job: Some(JobId::from_uuid(JOB)),
                reference: Some("order-1043".into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{UserId, event::catalogue::USER};

    #[test]
    fn a_message_that_a_job_sent_has_the_same_fields_as_one_that_came() {
        let came = MessageBody::example().message;
        let user = Principal::User(UserId::from_uuid(USER));
        let sent =
            MessageFact { sender: None, sent_by: Some(user), job: Some(JobId::from_uuid(JOB)), source: MessageSource::Api, ..came.clone() };
        let fields = |m: &MessageFact| serde_json::to_value(m).unwrap().as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(fields(&came), fields(&sent));
    }
}
