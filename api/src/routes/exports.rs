//! Chats as files: asking for one, which is a job of a worker, and downloading it. Whoever may make an export may read it; nobody else knows of
//! it.

use std::io;

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use contract::{AuditAction, ChatId, Command, ExportChat, ExportId, JobId, Principal, SessionId};
use futures::{Stream, TryStreamExt, stream, stream::BoxStream};
use http::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use service::{
    objects::ObjectsError,
    seal::{Purpose, stream::Opening},
};
use store::{
    accept::{Accepted, IdempotencyKey as StoredKey, NewJob},
    audit::Act,
    exports::{self, Export, Filter},
    snapshot::Snapshot,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Page,
    jobs::{JobView, accepted, finished},
    send::{commit, replayed},
};
use crate::{
    auth::{Caller, VisibleChat, chat_filter, note, session_filter, surely},
    extract::{IdempotencyKey, Limit, Params, PathId, Prefer},
    limits,
    once::key_reused,
    problem::{Code, Problem},
    state::AppState,
    timestamp::Timestamp,
};

/// One JSON text a line.
const JSON_LINES: &str = "application/x-ndjson";

/// Under a session.
pub fn content() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create))
}
/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one)).routes(routes!(download)).routes(routes!(delete))
}

/// A chat that was written into a file.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Export)]
struct ExportView {
    id: ExportId,
    session: SessionId,
    chat: ChatId,
    /// The job that made it.
    job: JobId,
    /// The user or key that asked for it.
    created_by: Principal,
    /// `application/x-ndjson`: one JSON text a line. Other types may come.
    content_type: &'static str,
    /// What the download is called.
    file_name: String,
    /// Bytes of the download.
    size: i64,
    /// Their digest, in hexadecimal digits.
    sha256: String,
    /// Messages in it.
    messages: i64,
    /// Messages from before are not in it, because whoever asked does not see them; null: all that was kept is in it.
    since: Option<Timestamp>,
    /// The moment that it shows: what came later is not in it.
    snapshot_at: Timestamp,
    created_at: Timestamp,
    /// Until when it can be downloaded.
    expires_at: Timestamp,
}

impl From<Export> for ExportView {
    fn from(x: Export) -> Self {
        Self {
            id: x.id,
            session: x.session,
            chat: x.chat,
            job: x.job,
            created_by: x.created_by,
            content_type: JSON_LINES,
            file_name: file_name(x.id),
            size: x.size,
            sha256: hex(&x.sha256),
            messages: x.messages,
            since: x.since.map(Timestamp),
            snapshot_at: x.snapshot_at.into(),
            created_at: x.created_at.into(),
            expires_at: x.expires_at.into(),
        }
    }
}

/// It tells nothing of who is in it: downloads lie about.
fn file_name(id: ExportId) -> String {
    format!("zaguan-{id}.jsonl")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a chat into a file: JSON Lines, the first about the chat and the export, each other one a message as `GET …/messages` shows it, the
/// oldest first. The answer is a job of kind `exportChat`, which a worker does whatever the session does: `progress` says how far it has come,
/// `result` what to download. What comes while it runs is not in it.
#[utoipa::path(post, path = "/chats/{chat}/exports", operation_id = "exportChat", tag = "exports",
    params(("chat" = String, Path, description = "A chat's id, a phone number, or any address."),
        ("Idempotency-Key" = Option<String>, Header), ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds.")),
    responses((status = 200, body = JobView, description = "Waited for, and succeeded."),
        (status = 202, body = JobView, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("export")), ("x-chat" = json!("read"))))]
async fn create(State(app): State<AppState>, chat: VisibleChat, key: IdempotencyKey, prefer: Prefer) -> Result<Response, Problem> {
    let (caller, wait) = (chat.caller, prefer.get());
    let _place = limits::wait(&app, &caller, wait).await?;
    // Ids and not what was called, which may be a number: nothing would find it where the person is erased.
    let path = format!("/api/sessions/{}/chats/{}/exports", chat.session.id, chat.chat.id);
    let (principal, method) = (caller.principal.uuid(), Method::POST.to_string());
    let key = key.0.map(|key| StoredKey { principal, method, path, key, body_hash: [0; 32] });
    let (id, repeated) = match replayed(&app, caller.tenant, key.as_ref()).await? {
        Some(job) => (job, true),
        None => accept(&app, &chat, key).await?,
    };
    let job = finished(&app, &caller, id, wait).await?.ok_or_else(Problem::not_found)?;
    Ok(accepted(job, wait.is_some(), repeated))
}

/// The job, and whether an earlier request made it. It is of no chat: who sees a chat does not see that it is exported.
async fn accept(app: &AppState, chat: &VisibleChat, key: Option<StoredKey>) -> Result<(JobId, bool), Problem> {
    let (caller, of) = (chat.caller, chat.chat.id);
    if exports::is_full(&app.pool, caller.tenant).await? {
        let why = "the tenant has as many exports as it may have: DELETE one, or wait until one expires; see GET /api/limits";
        return Err(Problem::new(Code::QuotaExceeded, why).retry_after(3600));
    }
    let export = ExportId::new();
    let job = NewJob {
        id: JobId::new(),
        tenant: caller.tenant,
        session: chat.session.id,
        command: Command::ExportChat(ExportChat { export, chat: of, since: chat.access.since }),
        chat: None,
        message: None,
        resend_of: None,
        reference: None,
        created_by: caller.principal.uuid(),
        expires_in: app.timings.job_expires_in(),
        queue_when_down: false,
    };
    let (id, task) = (job.id, app.clone());
    let done = surely(app, async move {
        let accepted = commit(&task, job, key, None).await?;
        if let Accepted::New { .. } = accepted {
            let act = Act::new(caller.principal, AuditAction::ExportCreated, export, json!({"chat": of, "job": id}));
            note(&task, caller.tenant, &act).await;
        }
        Ok::<_, Problem>(accepted)
    });
    match done.await?? {
        Accepted::New { .. } => Ok((id, false)),
        Accepted::Replayed { job } => Ok((job, true)),
        Accepted::KeyReused => Err(key_reused()),
        // It writes to no chat and waits in no lane.
        Accepted::NewChatCap { .. } | Accepted::LaneFull => Err(Problem::internal()),
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
    #[param(value_type = Option<String>)]
    cursor: Option<ExportId>,
    /// Exports of this session (id or name) only.
    session: Option<String>,
    /// Exports of this chat only: its id; or any address, which is looked for in the session given, or in the default one.
    chat: Option<String>,
}

/// The exports that can be downloaded, newest first.
#[utoipa::path(get, path = "/exports", operation_id = "listExports", tag = "exports", params(List), responses((status = 200, body = Page<ExportView>)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("export")), ("x-chat" = json!("read"))))]
async fn list(State(app): State<AppState>, caller: Caller, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, cursor, session, chat } = params.0;
    let chat = match chat {
        Some(chat) => Some(chat_filter(&app, &caller, session.as_deref(), &chat).await?),
        None => None,
    };
    let session = session_filter(&app, &caller, session.as_deref()).await?;
    let mut snapshot = Snapshot::open(&app.pool, caller.tenant).await?;
    let rows = exports::list(&mut snapshot, caller.viewer(), Filter { session, chat, before: cursor }, limit.get() + 1).await?;
    Ok(Page::of(&snapshot, rows, limit.get(), |x| x.id.to_string(), ExportView::from))
}

/// One export.
#[utoipa::path(get, path = "/exports/{id}", operation_id = "getExport", tag = "exports", params(("id" = ExportId, Path)),
    responses((status = 200, body = ExportView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("export")), ("x-chat" = json!("read"))))]
async fn one(State(app): State<AppState>, caller: Caller, id: PathId<ExportId>) -> Result<Json<ExportView>, Problem> {
    Ok(Json(found(&app, &caller, id.0).await?.into()))
}

async fn found(app: &AppState, caller: &Caller, id: ExportId) -> Result<Export, Problem> {
    exports::fetch(&app.pool, caller.viewer(), id).await?.ok_or_else(Problem::not_found)
}

/// The file. `ETag` is its SHA-256; a download that ends before `Content-Length` is not whole.
#[utoipa::path(get, path = "/exports/{id}/content", operation_id = "downloadExport", tag = "exports", params(("id" = ExportId, Path)),
    responses((status = 200, content((inline(crate::openapi::File) = "application/x-ndjson")),
        headers(("Content-Disposition" = String), ("Content-Length" = u64), ("ETag" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("export")), ("x-chat" = json!("read"))))]
async fn download(State(app): State<AppState>, caller: Caller, id: PathId<ExportId>) -> Result<Response, Problem> {
    let export = found(&app, &caller, id.0).await?;
    let away = |why: ObjectsError| Problem::new(Code::Unavailable, "the object store does not give it out").retry_after(5).because(why);
    let sealed = app.objects.read(&export.object).await.map_err(away)?;
    let opening = app.sealer.open_stream(Purpose::Export, export.id.uuid().as_bytes(), &export.key);
    let opening = opening.map_err(|why| Problem::internal().because(why))?;
    let act = Act::new(caller.principal, AuditAction::ExportDownloaded, export.id, json!({"chat": export.chat}));
    note(&app, caller.tenant, &act).await;
    let headers = [
        (header::CONTENT_TYPE, JSON_LINES.to_owned()),
        (header::CONTENT_LENGTH, export.size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", file_name(export.id))),
        (header::ETAG, format!("\"{}\"", hex(&export.sha256))),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(opened(Download { app, caller, sealed, opening }))).into_response())
}

/// A file on its way out.
struct Download {
    app: AppState,
    caller: Caller,
    sealed: BoxStream<'static, Result<Bytes, ObjectsError>>,
    opening: Opening,
}

/// What is proved of the file, as it comes. An error cuts the connection short of its `Content-Length`: nothing else can be said by then.
fn opened(download: Download) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(Some(download), move |download| async move {
        let Some(mut download) = download else { return Ok(None) };
        let mut plain = Vec::new();
        while let Some(bytes) = download.sealed.try_next().await.map_err(io::Error::other)? {
            download.opening.write(&bytes, &mut plain).map_err(io::Error::other)?;
            if plain.is_empty() {
                continue;
            }
            // Whoever was let out since gets no more of it.
            let caller = download.caller.recheck(&download.app).await;
            download.caller = caller.map_err(|refused| io::Error::other(refused.code.as_str()))?;
            return Ok(Some((plain.into(), Some(download))));
        }
        download.opening.finish(&mut plain).map_err(io::Error::other)?;
        Ok(Some((plain.into(), None)))
    })
    .inspect_err(|why: &io::Error| tracing::warn!(cause = %why, "the download of an export was cut off"))
}

/// Deletes an export before its time. Nobody can read its bytes any more, wherever copies of them are.
#[utoipa::path(delete, path = "/exports/{id}", operation_id = "deleteExport", tag = "exports", params(("id" = ExportId, Path)),
    responses((status = 204)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("export")), ("x-chat" = json!("read"))))]
async fn delete(State(app): State<AppState>, caller: Caller, id: PathId<ExportId>) -> Result<StatusCode, Problem> {
    let export = found(&app, &caller, id.0).await?;
    let act = Act::new(caller.principal, AuditAction::ExportDeleted, export.id, json!({"chat": export.chat}));
    let object = exports::delete(&app.pool, caller.tenant, export.id, &act).await?.ok_or_else(Problem::not_found)?;
    if let Err(why) = app.objects.remove(&object).await {
        tracing::warn!(cause = %why, "an export's object is left to be swept");
    }
    Ok(StatusCode::NO_CONTENT)
}
