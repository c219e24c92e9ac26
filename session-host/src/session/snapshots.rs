//! Profiles that outlive their machine: taken of a browser that has closed cleanly, sealed, put into the object store, and made count by a row.

use std::{sync::Arc, time::Duration};

use contract::{ProfileId, fault_point};
use futures::StreamExt;
use ring::digest::{Context, SHA256};
use service::{objects::ObjectsError, seal::Sealer};
use store::{
    Held,
    profiles::{self, Refused, Snapshot, SnapshotId, Uploaded},
    sealed,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{Services, Shared, recorder::until_known};
use crate::{
    browser::ProfileDir,
    snapshot::{self, Packed, Scratch, Unusable},
};

/// What is read and written at once.
const PART: usize = 1024 * 1024;
/// Pauses before an object store that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_AGAIN_AT_MOST: Duration = Duration::from_secs(30);

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Why a snapshot cannot be used here.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRestored {
    /// Nowhere: it will not be tried again.
    #[error("refused: {}", .0.as_str())]
    Refused(Refused),
    /// Here, as things are: another host, or another configuration, may be able to.
    #[error("not restored here: {0}")]
    Here(Failed),
}

fn here(why: impl Into<Failed>) -> NotRestored {
    NotRestored::Here(why.into())
}

fn scratch(services: &Services) -> std::io::Result<Scratch> {
    Scratch::new(&services.browsers.config().data_dir)
}

/// Takes a snapshot of a directory whose browser has closed cleanly. `None`: there is none, and the log says why; the session is not held up
/// for it any longer.
pub(super) async fn take(shared: &Shared, profile: &Arc<ProfileDir>, marker: &str) -> Option<SnapshotId> {
    let began = Instant::now();
    let taken = tokio::select! {
        taken = tokio::time::timeout(shared.services.timings.snapshot_within(), take_once(shared, profile, marker)) => taken,
        () = shared.lease.fenced() => return None,
        () = shared.gone.cancelled() => return None,
    };
    let why: Failed = match taken {
        Ok(Ok((id, size, plain))) => {
            let took = began.elapsed();
            metrics::histogram!("zaguan_snapshot_seconds").record(took.as_secs_f64());
            metrics::histogram!("zaguan_snapshot_bytes").record(size as f64);
            tracing::info!(session = %shared.session(), epoch = id.epoch, n = id.n, size, plain, took_ms = took.as_millis() as u64, "snapshot taken");
            return Some(id);
        }
        Ok(Err(why)) => why,
        Err(_) => "it takes too long".into(),
    };
    metrics::counter!("zaguan_snapshots_failed_total").increment(1);
    tracing::error!(session = %shared.session(), error = %why, "no snapshot taken");
    None
}

async fn take_once(shared: &Shared, profile: &Arc<ProfileDir>, marker: &str) -> Result<(SnapshotId, u64, u64), Failed> {
    let (services, held) = (&shared.services, shared.lease.held());
    let object = format!("snapshots/{}/{}/{}-{}", held.tenant(), held.session(), held.epoch(), contract::EventId::new());
    if !store::within(profiles::begin_upload(&services.pool, held, &object)).await? {
        return Err("no longer the owner".into());
    }
    let (data_key, sealer) = data_key(services, held).await?;
    let (directory, file, session) = (profile.clone(), scratch(services)?, *held.session().uuid().as_bytes());
    // Holds the directory until it is through, whoever stops waiting for it: no browser may write there meanwhile.
    let packing = move || snapshot::pack(directory.path(), file, &sealer, &session);
    let packed = tokio::task::spawn_blocking(packing).await??;
    upload(services, held, &object, &packed).await?;
    fault_point!("snapshot.uploaded", "session" => held.session());
    let uploaded = Uploaded {
        profile: profile.id().parse()?,
        object: &object,
        digest: &packed.digest,
        size: i64::try_from(packed.size)?,
        data_key,
        object_key: &packed.key,
        browser_major: i32::try_from(services.browsers.major())?,
        marker,
    };
    let added = until_known(shared, || profiles::add(&services.pool, held, &uploaded)).await.ok().flatten();
    Ok((added.ok_or("no longer the owner")?, packed.size, packed.plain))
}

/// The tenant's data key: its id, and what seals with it. Made where there is none yet.
async fn data_key(services: &Services, held: &Held) -> Result<(uuid::Uuid, Sealer), Failed> {
    let (pool, tenant) = (&services.pool, held.tenant());
    let name = *tenant.uuid().as_bytes();
    let mut found = store::within(sealed::data_key(pool, tenant)).await?;
    if found.is_none() {
        store::within(sealed::keep_data_key(pool, tenant, &services.sealer.new_data_key(&name)?)).await?;
        found = store::within(sealed::data_key(pool, tenant)).await?;
    }
    let key = found.ok_or("the tenant is gone")?;
    Ok((key.id, services.sealer.with_data_key(&name, &key.sealed)?))
}

async fn upload(services: &Services, held: &Held, object: &str, packed: &Packed) -> Result<(), Failed> {
    let mut file = tokio::fs::File::open(packed.file()).await?;
    let mut upload = services.objects.create(object).await?;
    let mut part = vec![0; PART];
    loop {
        let read = file.read(&mut part).await?;
        if read == 0 {
            break;
        }
        if let Err(why) = upload.write(&part[..read]).await {
            upload.abort().await;
            return Err(why.into());
        }
    }
    if fault_point!("snapshot.uploading", "session" => held.session()) == contract::fault::Verdict::Fail {
        upload.abort().await;
        return Err("a fault".into());
    }
    Ok(upload.finish().await?)
}

/// Makes a new directory of a snapshot.
pub(super) async fn restore(shared: &Shared, snapshot: &Snapshot) -> Result<Arc<ProfileDir>, NotRestored> {
    let (services, held, began) = (&shared.services, shared.lease.held(), Instant::now());
    // Here only: a host with another master key says nothing about the snapshot.
    let sealer = services.sealer.with_data_key(held.tenant().uuid().as_bytes(), &snapshot.data_key).map_err(here)?;
    let file = scratch(services).map_err(here)?;
    download(shared, snapshot, file.path()).await?;
    let data = &services.browsers.config().data_dir;
    let profile = ProfileDir::open(data, &ProfileId::new().to_string()).await.map_err(here)?;
    let (directory, session, snapshot) = (profile.clone(), *held.session().uuid().as_bytes(), snapshot.clone());
    let unpack = move || snapshot::unpack(file.path(), &snapshot.digest, &sealer, &session, &snapshot.object_key, directory.path());
    let why = match tokio::task::spawn_blocking(unpack).await.map_err(here)? {
        Ok(()) => {
            let took = began.elapsed();
            metrics::histogram!("zaguan_restore_seconds").record(took.as_secs_f64());
            tracing::info!(session = %shared.session(), profile = profile.id(), took_ms = took.as_millis() as u64, "profile restored");
            return Ok(profile);
        }
        Err(Unusable::Corrupt) => NotRestored::Refused(Refused::Corrupt),
        Err(Unusable::Sealed) => NotRestored::Refused(Refused::Sealed),
        Err(Unusable::Io(why)) => here(why),
    };
    remove(services, profile).await;
    Err(why)
}

/// Deletes a directory that is of no use.
pub(super) async fn remove(services: &Services, profile: Arc<ProfileDir>) {
    let (data, id) = (services.browsers.config().data_dir.clone(), profile.id().to_owned());
    drop(profile);
    let removed = tokio::task::spawn_blocking(move || crate::browser::remove_profile(&data, &id)).await;
    if !matches!(removed, Ok(Ok(()))) {
        tracing::warn!(?removed, "a directory that is of no use stays for now");
    }
}

/// Brings the object here. A store that does not answer is asked again for as long as the session is ours: it is no reason to give a link up.
async fn download(shared: &Shared, snapshot: &Snapshot, to: &std::path::Path) -> Result<(), NotRestored> {
    let mut pause = ASK_AGAIN;
    loop {
        match download_once(shared, snapshot, to).await {
            Ok(Some(digest)) if digest == snapshot.digest => return Ok(()),
            Ok(_) => return Err(NotRestored::Refused(Refused::Corrupt)),
            Err(Broken::Store(why)) if why.is_missing() => return Err(here(why)),
            Err(Broken::Store(why)) => tracing::warn!(session = %shared.session(), error = %why, "a snapshot cannot be read yet"),
            Err(Broken::Disk(why)) => return Err(here(why)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_AGAIN_AT_MOST);
    }
}

enum Broken {
    Store(ObjectsError),
    Disk(std::io::Error),
}

/// The digest of what came. `None`: more than there can be, and the disk is not filled with it.
async fn download_once(shared: &Shared, snapshot: &Snapshot, to: &std::path::Path) -> Result<Option<Vec<u8>>, Broken> {
    let mut parts = shared.services.objects.read(&snapshot.object).await.map_err(Broken::Store)?;
    let mut file =
        tokio::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to).await.map_err(Broken::Disk)?;
    let (mut digest, mut left) = (Context::new(&SHA256), u64::try_from(snapshot.size).unwrap_or(0));
    while let Some(part) = parts.next().await {
        let part = part.map_err(Broken::Store)?;
        let Some(rest) = left.checked_sub(part.len() as u64) else { return Ok(None) };
        left = rest;
        digest.update(&part);
        file.write_all(&part).await.map_err(Broken::Disk)?;
    }
    file.flush().await.map_err(Broken::Disk)?;
    Ok(Some(digest.finish().as_ref().to_vec()))
}
