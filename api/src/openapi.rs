//! The OpenAPI document: written by the handlers' annotations, completed here.

use contract::string_schema;
use utoipa::openapi::{
    Info, License, OpenApi, OpenApiBuilder, Required,
    path::{Operation, ParameterBuilder, ParameterIn, PathItem},
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};
use utoipa::{PartialSchema, ToSchema};

use crate::{
    auth::{KeyNeed, Rule},
    problem::ProblemBody,
};

/// Where the session routes are mounted with a session named.
pub const NAMED: &str = "/api/sessions/{session}";

/// The document before the routes.
pub fn base() -> OpenApi {
    let mut info = Info::new("Zaguan", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "A WhatsApp gateway for several tenants. Lists are {items, next}; every failure is a problem with a stable code.\n\n\
             What happens is told as events, on five transports: the AsyncAPI document is [/asyncapi.json](/asyncapi.json)."
            .into(),
    );
    info.license = Some(License::new("Apache-2.0"));
    OpenApiBuilder::new().info(info).build()
}

/// A picture.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct Picture(pub Vec<u8>);

/// A file to be kept.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct File(pub Vec<u8>);

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// Completes what the annotations cannot say: the session routes are mounted twice, so the path parameter has to be declared and each
/// `operationId` made unique; every operation may answer a problem; those with roles want a token.
pub fn complete(doc: &mut OpenApi) {
    let components = doc.components.get_or_insert_default();
    components.schemas.insert("Problem".into(), ProblemBody::schema());
    let mut nested = Vec::new();
    ProblemBody::schemas(&mut nested);
    components.schemas.extend(nested);
    components.schemas.extend(crate::catalogue::schemas());
    components.security_schemes.insert(
        "accessToken".into(),
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build()).into(),
    );
    let key = ApiKeyValue::with_description("X-Api-Key", "An API key, `zgk_…`; `Authorization: Bearer` takes it too.");
    components.security_schemes.insert("apiKey".into(), SecurityScheme::ApiKey(ApiKey::Header(key)).into());
    for (path, item) in &mut doc.paths.paths {
        let named = path.strip_prefix(NAMED).is_some_and(|rest| rest.starts_with('/'));
        for operation in operations(item) {
            if named {
                name_the_session(operation);
            }
            require_token(operation);
            crate::answers::complete(operation);
        }
    }
}

fn name_the_session(operation: &mut Operation) {
    let session = ParameterBuilder::new()
        .name("session")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The session's id or name."))
        .schema(Some(string_schema("^(ses_[0-9a-hjkmnp-tv-z]{26}|[a-z0-9-]{1,40})$")))
        .build();
    operation.parameters.get_or_insert_default().insert(0, session.into());
    operation.operation_id = operation.operation_id.take().map(|id| {
        let (first, rest) = id.split_at(1.min(id.len()));
        format!("session{}{rest}", first.to_uppercase())
    });
}

fn require_token(operation: &mut Operation) {
    let Some(rule) = Rule::of(operation).filter(|rule| !rule.is_public()) else { return };
    let schemes = match rule.key {
        KeyNeed::Person => &["accessToken"][..],
        KeyNeed::None | KeyNeed::Scope(_) | KeyNeed::OwnOr(_) => &["accessToken", "apiKey"],
    };
    operation.security = Some(schemes.iter().map(|name| SecurityRequirement::new(*name, Vec::<String>::new())).collect());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::{Value, json};

    use crate::auth::{KeyNeed, Rules};

    fn document() -> Value {
        serde_json::to_value(crate::document()).unwrap()
    }
    fn operations(doc: &Value) -> Vec<(String, &Value)> {
        let paths = doc["paths"].as_object().unwrap();
        let methods = paths.iter().flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(m, o)| (format!("{m} {path}"), o)));
        methods.collect()
    }

    #[test]
    fn every_operation_says_who_may_call_it() {
        let doc = document();
        let rules = Rules::of(&crate::document());
        for (name, operation) in operations(&doc) {
            let (method, path) = name.split_once(' ').unwrap();
            let rule = rules.get(path, &method.to_uppercase().parse().unwrap());
            let rule = rule.unwrap_or_else(|| panic!("{name}: x-roles, x-scope or x-chat says nothing that is enforced"));
            assert_eq!(rule.is_public(), operation["security"].is_null(), "{name}: roles without a token, or a token for nobody");
            assert!(!rule.is_public() || rule.key == KeyNeed::None, "{name}: a scope that nobody is asked for");
        }
    }

    #[test]
    fn every_operation_id_is_unique_and_every_path_parameter_declared() {
        let doc = document();
        let mut ids = HashSet::new();
        for (name, operation) in operations(&doc) {
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{name}");
            let declared: HashSet<_> = operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "path").collect();
            assert_eq!(declared.len(), name.matches('{').count(), "{name}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let doc = document();
        let text = doc.to_string();
        for target in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(doc.pointer(target).is_some(), "{target}");
        }
        assert_eq!(doc["openapi"], json!("3.1.0"));
    }

    #[test]
    fn the_committed_document_is_the_one_that_is_served() {
        let committed: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
        assert!(committed == document(), "api/openapi.json is out of date: write it with `zaguan-api openapi`");
    }
}
