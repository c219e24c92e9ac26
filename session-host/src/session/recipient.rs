//! Whom a job is for, by every name that the page has for them.

use contract::{MessageId, WaKey};
use store::lane_jobs::LaneJob;

use super::{Shared, messages, recorder};
use crate::browser::ResolvedChat;

/// Whether the page means the person that the job was accepted for: a number that belongs to another by now gets nothing that was meant for
/// the one before. All names of the recipient are known from here on. `None`: not to be found out now, or not by us.
pub(super) async fn is_same(shared: &Shared, job: &LaneJob, resolved: &ResolvedChat) -> Option<bool> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    let names = messages::names([Some(&resolved.chat), resolved.lid.as_ref(), resolved.phone.as_ref()]);
    if names.is_empty() {
        return Some(true);
    }
    let unknown = |error: &store::StoreError| tracing::warn!(session = %shared.session(), job = %job.id, %error, "recipient not looked up");
    let Some(observed) = store::aliases::observe(pool, held, &names, None).await.inspect_err(unknown).ok()? else {
        shared.gone.cancel();
        return None;
    };
    recorder::publish(shared, observed.events).await;
    let Some(chat) = job.chat else { return Some(true) };
    let meant = store::aliases::survivor(pool, held.tenant(), chat).await.inspect_err(unknown).ok()?;
    Some(meant.is_none_or(|meant| meant == observed.chat))
}

/// Every key that an attempt may have had: the chat under each of its names, with and without us in it.
pub(super) fn other_keys(resolved: &ResolvedChat, message: MessageId) -> Vec<String> {
    let chats = [Some(&resolved.chat), resolved.lid.as_ref(), resolved.phone.as_ref()].into_iter().flatten();
    let key = |chat: &String, me: Option<&String>| WaKey::ours(chat, message, me.cloned()).to_string();
    chats.flat_map(|chat| std::iter::once(key(chat, None)).chain(resolved.mine.iter().map(move |me| key(chat, Some(me))))).collect()
}
