//! People, from the read model.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use store::{
    chats::Named,
    contacts::{self, Contact},
    history,
    snapshot::Snapshot,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Moment, One, Page};
use crate::{
    auth::{OwnedSession, named_chat},
    extract::{Limit, Params, path_param},
    problem::{Code, Problem},
    state::AppState,
    timestamp::Timestamp,
};

/// Under a session.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one))
}

/// A person that the linked account knows.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Contact)]
struct ContactView {
    /// The LID where one is known, else the phone address.
    wa_id: String,
    lid: Option<String>,
    /// Digits.
    phone: Option<String>,
    /// The name in the account's address book.
    name: Option<String>,
    /// The name that the person uses.
    push_name: Option<String>,
    updated_at: Timestamp,
}

impl From<Contact> for ContactView {
    fn from(c: Contact) -> Self {
        Self { wa_id: c.wa_id, lid: c.lid, phone: c.phone, name: c.name, push_name: c.push_name, updated_at: c.updated_at.into() }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct List {
    /// 1 to 200, 50 where nothing is said.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The people of the chats, and the members of the groups, that the caller may see.
#[utoipa::path(get, path = "/contacts", operation_id = "listContacts", tag = "contacts", params(List),
    responses((status = 200, body = Page<ContactView>)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("contacts:read")), ("x-chat" = json!("read"))))]
async fn list(State(app): State<AppState>, owned: OwnedSession, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, cursor } = params.0;
    let after = cursor.map(|c| match named_chat(&c, "cursor")? {
        Named::Address(address) => Ok(address.to_string()),
        Named::Id(_) => Err(Problem::new(Code::InvalidParameter, "expected `next` of the page before").field("cursor")),
    });
    let after = after.transpose()?;
    let mut snapshot = Snapshot::open(&app.pool, owned.caller.tenant).await?;
    let rows = contacts::list(&mut snapshot, owned.caller.viewer(), &owned.session, after.as_deref(), limit.get() + 1).await?;
    let complete = history::complete(&mut snapshot, owned.caller.tenant, owned.session.id).await?;
    Ok(Page::read(&snapshot, complete, rows, limit.get(), |c: &Contact| c.wa_id.clone(), ContactView::from))
}

/// One person.
#[utoipa::path(get, path = "/contacts/{contact}", operation_id = "getContact", tag = "contacts",
    params(("contact" = String, Path, description = "A phone number, or a person's address.")),
    responses((status = 200, body = One<ContactView>)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("contacts:read")), ("x-chat" = json!("read"))))]
async fn one(State(app): State<AppState>, owned: OwnedSession, contact: ContactPath) -> Result<Response, Problem> {
    let moment = Moment::now(&app, owned.caller.tenant, Some(owned.session.id)).await?;
    let found = contacts::fetch(&app.pool, owned.caller.viewer(), &owned.session, &contact.0).await?;
    found.map(|c| moment.shows(ContactView::from(c))).ok_or_else(Problem::not_found)
}

/// The address in the path.
struct ContactPath(contract::Jid);

impl axum::extract::FromRequestParts<AppState> for ContactPath {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut http::request::Parts, app: &AppState) -> Result<Self, Problem> {
        let text = path_param(parts, app, "contact").await?.unwrap_or_default();
        text.parse().map(Self).map_err(|why: contract::BadJid| Problem::new(Code::InvalidId, why.to_string()).field("contact"))
    }
}
