//! `exportChat`: a chat becomes a file of JSON Lines, its first line about itself, then its messages, the oldest first. It is sealed piece by
//! piece on its way to the object store, so that neither memory nor a disk ever holds all of it.

use std::time::Duration;

use contract::{EXPORT_FORMAT, ExportChat, ExportFact, ExportHead, Failure, FailureCode, JobResult, MessageView, Outcome, Progress};
use ring::digest::{Context, SHA256};
use serde::Serialize;
use service::{
    objects::Upload,
    seal::{Purpose, stream::Sealing},
};
use store::{
    background_jobs::{self, Begun, Claim},
    cursor::Cursor,
    exports::making::{self, Made, Recorded, Summary},
    messages::{self, Span},
};
use uuid::Uuid;

use super::Step;
use crate::tasks::{Failed, Tools};

/// Messages that are read at once.
const PAGE: i64 = 500;
/// Chats that are merged while they are exported begin again so often at once; then after a while.
const TRIES: usize = 3;
/// That while.
const SETTLES_IN: Duration = Duration::from_secs(30);
/// The folder of the object store.
pub const FOLDER: &str = "exports";

/// Does it.
///
/// # Errors
/// [`Failed`]: it is begun again.
pub async fn run(tools: &Tools, begun: &Begun, asked: &ExportChat) -> Result<Step, Failed> {
    let claim = &begun.claim;
    // The one before was cut off between the row and the job's end.
    if let Some(made) = making::of_job(&tools.pool, claim.tenant(), claim.job()).await? {
        return Ok(succeeded(&made));
    }
    for _ in 0..TRIES {
        let Some(chat) = making::begin(&tools.pool, claim.tenant(), asked.chat, asked.since).await? else {
            return Ok(Step::Done(Box::new(Outcome::Failed(Failure::new(FailureCode::ChatNotFound, "the chat is gone")).into())));
        };
        let Some(made) = write(tools, claim, asked, &chat).await? else { return Ok(Step::Lost) };
        let _ = contract::fault_point!("worker.export.written", "job" => claim.job());
        let recorded = making::record(&tools.pool, claim, &chat, &made, tools.exports_kept).await;
        match recorded {
            Ok(Recorded::Done(summary)) => return Ok(succeeded(&summary)),
            Ok(Recorded::Moved) => forget(tools, &made.object).await,
            Ok(Recorded::Lost) => {
                forget(tools, &made.object).await;
                return Ok(Step::Lost);
            }
            // It may have been recorded: then whoever begins again finds it, else it is swept.
            Err(why) => return Err(why.into()),
        }
    }
    Ok(Step::Wait(SETTLES_IN))
}

fn succeeded(made: &Summary) -> Step {
    let result = JobResult::Exported {
        export: made.id,
        chat: made.chat,
        size: made.size,
        sha256: made.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        messages: made.messages,
        expires_at: made.expires_at.into(),
    };
    Step::Done(Box::new(Outcome::Succeeded { evidence: None, result: Some(result) }.into()))
}

/// An object that no row names (any more). One that stays is swept.
pub async fn forget(tools: &Tools, object: &str) {
    if let Err(why) = tools.objects.remove(object).await {
        tracing::warn!(cause = %why, "an export's object is left to be swept");
    }
}

/// Writes the whole file. `None`: the claim has lapsed.
async fn write(tools: &Tools, claim: &Claim, asked: &ExportChat, begun: &making::Begun) -> Result<Option<Made>, Failed> {
    // A name of its own for each attempt: what one that was cut off left is never taken for this one's.
    let object = format!("{FOLDER}/{}/{}.{}", claim.tenant(), asked.export, Uuid::now_v7().simple());
    let (key, sealing) = tools.sealer.stream(Purpose::Export, asked.export.uuid().as_bytes())?;
    let mut file = File::new(tools.objects.create(&object).await?, sealing);
    let written = fill(tools, claim, asked, begun, &mut file).await;
    let messages = match written {
        Ok(Some(messages)) => messages,
        Ok(None) => {
            file.upload.abort().await;
            return Ok(None);
        }
        Err(why) => {
            file.upload.abort().await;
            return Err(why);
        }
    };
    let (size, sha256) = file.finish().await?;
    Ok(Some(Made { id: asked.export, since: asked.since, object, key, size, sha256, messages }))
}

/// Answers how many messages it wrote.
async fn fill(tools: &Tools, claim: &Claim, asked: &ExportChat, begun: &making::Begun, file: &mut File) -> Result<Option<u64>, Failed> {
    file.line(&ExportHead {
        export: ExportFact {
            id: asked.export,
            format: EXPORT_FORMAT,
            snapshot_at: begun.snapshot_at.into(),
            since: asked.since.map(Into::into),
            session: begun.session.clone(),
            account: begun.account.clone(),
        },
        chat: begun.chat.clone().into(),
    })
    .await?;
    let span = Span { since: asked.since, recorded_by: begun.snapshot_at };
    let (mut done, mut after, total) = (0, None, begun.total.unsigned_abs());
    loop {
        // What retention removes meanwhile is not missed.
        if !background_jobs::note(&tools.pool, claim, Progress { done, total: total.max(done) }, None).await? {
            return Ok(None);
        }
        let page = messages::oldest_first(&tools.pool, claim.tenant(), begun.chat.id, span, after, PAGE).await?;
        let _ = contract::fault_point!("worker.export.page", "job" => claim.job(), "done" => done);
        let Some(last) = page.last() else { return Ok(Some(done)) };
        after = Some(Cursor { at: last.sent_at, id: last.id.uuid() });
        for message in page {
            file.line(&MessageView::from(message)).await?;
            done += 1;
        }
    }
}

/// A file on its way: what is written to it, sealed.
struct File {
    upload: Upload,
    sealing: Sealing,
    digest: Context,
    size: u64,
    line: Vec<u8>,
    sealed: Vec<u8>,
}

impl File {
    fn new(upload: Upload, sealing: Sealing) -> Self {
        Self { upload, sealing, digest: Context::new(&SHA256), size: 0, line: Vec::new(), sealed: Vec::new() }
    }

    async fn line(&mut self, what: &impl Serialize) -> Result<(), Failed> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, what).map_err(Failed::Unwritable)?;
        self.line.push(b'\n');
        self.digest.update(&self.line);
        self.size += self.line.len() as u64;
        self.sealing.write(&self.line, &mut self.sealed)?;
        if !self.sealed.is_empty() {
            self.upload.write(&self.sealed).await?;
            self.sealed.clear();
        }
        Ok(())
    }

    /// Answers its size and digest.
    async fn finish(mut self) -> Result<(u64, Vec<u8>), Failed> {
        self.sealing.finish(&mut self.sealed)?;
        self.upload.write(&self.sealed).await?;
        self.upload.finish().await?;
        Ok((self.size, self.digest.finish().as_ref().to_vec()))
    }
}
