//! What an operation may answer, for the document. Most problems follow from what it takes; the rest is said here, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use contract::FailureCode;
use utoipa::openapi::{
    ContentBuilder, Ref, RefOr, Response, ResponseBuilder, Schema,
    path::{Operation, Parameter, ParameterIn},
};

use crate::problem::Code;

/// Problems that do not follow from what the operation takes, by its id (of both mounts alike).
const OWN: &[(&str, &[Code])] = &[
    ("login", &[Code::InvalidCredentials, Code::TenantSuspended, Code::RateLimited]),
    ("refresh", &[Code::InvalidRefreshToken, Code::TenantSuspended]),
    ("logout", &[Code::Unauthenticated, Code::TokenExpired, Code::TenantSuspended]),
    ("acceptInvitation", &[Code::InvalidLink, Code::EmailTaken, Code::TenantSuspended, Code::RateLimited]),
    ("changePassword", &[Code::InvalidCredentials, Code::RateLimited]),
    ("forgotPassword", &[Code::RateLimited]),
    ("resetPassword", &[Code::InvalidLink, Code::RateLimited]),
    ("inviteUser", &[Code::EmailTaken, Code::QuotaExceeded]),
    ("changeUser", &[Code::LastAdmin]),
    ("reinviteUser", &[Code::SecretShownOnce, Code::UserState]),
    ("resetUserPassword", &[Code::SecretShownOnce, Code::UserState]),
    ("createKey", &[Code::NotFound, Code::InvalidId, Code::QuotaExceeded]),
    ("grantToUser", &[Code::Unsupported]),
    ("grantToKey", &[Code::Unsupported, Code::KeyUnlimited]),
    ("createWebhook", &[Code::NotFound, Code::InvalidId, Code::QuotaExceeded]),
    ("eraseContact", &[Code::NotFound, Code::InvalidId]),
    ("redeliverWebhook", &[Code::DeliveryNotRepeatable, Code::EventExpired, Code::QuotaExceeded]),
    ("replayWebhook", &[Code::CursorAhead, Code::CursorExpired]),
    ("testWebhook", &[Code::WebhookNotActive, Code::QuotaExceeded]),
    ("createSession", &[Code::SessionNameTaken, Code::QuotaExceeded]),
    ("deleteSession", &[Code::SessionIsDefault, Code::AcceptanceUnknown]),
    ("changeSession", &[Code::SessionNameTaken]),
    ("pairingCode", &[Code::AlreadyLinked, Code::SessionStopped]),
    ("restart", &[Code::SessionStopped]),
    ("screenshot", &[Code::SessionStopped]),
    ("createLinkPage", &[Code::SecretShownOnce, Code::AlreadyLinked]),
    ("startByLink", &[Code::AlreadyLinked]),
    ("pairByLink", &[Code::AlreadyLinked, Code::SessionStopped, Code::RoleForbidden, Code::RateLimited, Code::QrNotReady]),
    ("qr", &[Code::AlreadyLinked, Code::SessionStopped, Code::QrNotReady, Code::NotAcceptable]),
    ("cancelJob", &[Code::JobRunning, Code::JobFinished]),
    ("resendJob", &[Code::JobNotResendable]),
    ("createStreamTicket", &[Code::SecretShownOnce]),
    ("exportChat", &[Code::QuotaExceeded]),
    ("listEvents", &[Code::CursorAhead, Code::CursorExpired]),
    ("streamEvents", &[Code::CursorAhead, Code::RateLimited]),
];

/// Completes an operation's answers: what may go wrong, by status, and words for what has none.
pub fn complete(operation: &mut Operation) {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in problems(operation) {
        by_status.entry(code.status().as_u16()).or_default().push(code);
    }
    for (status, codes) in by_status {
        let names: Vec<_> = codes.iter().map(|c| format!("`{}`", c.as_str())).collect();
        add(operation, status, &names.join(", "));
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            words(status).clone_into(&mut response.description);
        }
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            bounds(parameter);
        }
    }
}

fn problems(operation: &Operation) -> BTreeSet<Code> {
    let given = operation.parameters.iter().flatten();
    let parameters: Vec<&Parameter> = given.filter_map(|p| if let RefOr::T(p) = p { Some(p) } else { None }).collect();
    let named = |name: &str| parameters.iter().any(|p| p.name == name);
    let any = |place: &ParameterIn| parameters.iter().any(|p| p.parameter_in == *place);
    let mut codes = BTreeSet::from([Code::Internal, Code::Unavailable]);
    if operation.security.is_some() {
        codes.extend([Code::Unauthenticated, Code::TokenExpired, Code::TenantSuspended, Code::RoleForbidden]);
        codes.extend([Code::ScopeMissing, Code::AddressForbidden]);
    }
    if any(&ParameterIn::Path) || named("chat") || operation_id(operation) == "send" {
        codes.extend([Code::InvalidId, Code::NotFound]);
    }
    if named("session") {
        codes.extend([Code::InvalidId, Code::NotFound]);
    }
    if any(&ParameterIn::Query) || any(&ParameterIn::Header) {
        codes.insert(Code::InvalidParameter);
    }
    if operation.request_body.is_some() {
        codes.extend([Code::MalformedRequest, Code::InvalidBody, Code::BodyTooLarge, Code::UnsupportedMediaType]);
    }
    if named("Zaguan-Link") {
        codes.extend([Code::Unauthenticated, Code::LinkExpired]);
    }
    if named("wait") || named("Prefer") {
        codes.insert(Code::RateLimited);
    }
    // What makes a job can be refused as a job is, and where it is waited for it can end as one does.
    if named("Idempotency-Key") {
        codes.insert(Code::IdempotencyKeyReused);
    }
    if named("Idempotency-Key") && named("Prefer") && operation_id(operation) != "testWebhook" {
        codes.insert(Code::AcceptanceUnknown);
        codes.extend(FailureCode::ALL.iter().copied().map(Code::Job));
        if named("chat") && operation_id(operation) != "exportChat" || ["send", "resendJob"].contains(&&*operation_id(operation)) {
            codes.extend([Code::LaneFull, Code::QuotaExceeded, Code::NewChatCap, Code::SessionNotWorking, Code::Unsupported]);
        }
    }
    // Another job that is waited for.
    if operation_id(operation) == "pairByLink" {
        codes.insert(Code::AcceptanceUnknown);
        codes.extend(FailureCode::ALL.iter().copied().map(Code::Job));
    }
    codes.extend(OWN.iter().filter(|(id, _)| *id == operation_id(operation)).flat_map(|(_, codes)| codes.iter().copied()));
    codes
}

/// The id that both mounts of a session's route have in common.
fn operation_id(operation: &Operation) -> String {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    let rest = id.strip_prefix("session").filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()));
    rest.map_or_else(|| id.to_owned(), |rest| rest[..1].to_lowercase() + &rest[1..])
}

fn add(operation: &mut Operation, status: u16, codes: &str) {
    let content = ContentBuilder::new().schema(Some(RefOr::<Schema>::Ref(Ref::from_schema_name("Problem")))).build();
    let answer = operation.responses.responses.entry(status.to_string());
    let answer = answer.or_insert_with(|| ResponseBuilder::new().description(codes.to_owned()).build().into());
    if let RefOr::T(Response { content: contents, .. }) = answer {
        contents.insert("application/problem+json".to_owned(), content.into());
    }
}

fn words(status: &str) -> &'static str {
    match status {
        "201" => "Made.",
        "202" => "Accepted: it will be done.",
        "204" => "Done; there is nothing to say.",
        _ => "The answer.",
    }
}

/// What the extractors of page sizes and waits accept.
fn bounds(parameter: &mut Parameter) {
    let (low, high) = match parameter.name.as_str() {
        "limit" => (1, 200),
        "wait" => (0, 25),
        "after" => (0, i64::MAX >> 10),
        _ => return,
    };
    if let (ParameterIn::Query, Some(RefOr::T(Schema::Object(object)))) = (&parameter.parameter_in, &mut parameter.schema) {
        object.minimum = Some(utoipa::Number::Int(low as isize));
        object.maximum = Some(utoipa::Number::Int(high as isize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_lists_its_answers_and_every_own_problem_belongs_to_one() {
        let document = crate::document();
        let operations: Vec<&Operation> =
            document.paths.paths.values().flat_map(|i| [&i.get, &i.post, &i.put, &i.patch, &i.delete]).flatten().collect();
        for operation in &operations {
            let answers = &operation.responses.responses;
            assert!(!answers.contains_key("default") && answers.contains_key("500"), "{:?}", operation.operation_id);
            assert!(answers.values().all(|a| matches!(a, RefOr::T(a) if !a.description.is_empty())), "{:?}", operation.operation_id);
        }
        for (id, _) in OWN {
            assert!(operations.iter().any(|o| operation_id(o) == *id), "{id}");
        }
    }
}
