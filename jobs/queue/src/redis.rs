//! Connections.

use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};

use crate::bus::Bus;

/// Redis did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It cannot be reached, or refused.
    #[error("redis: {0}")]
    Redis(#[from] ::redis::RedisError),
    /// Postgres, where a step needs it.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// It may throw keys away.
    #[error("redis: maxmemory-policy is {0}, expected noeviction")]
    Evicts(String),
}

/// A process's Redis: a connection for commands, one for renewals alone, one for messages. All reconnect by themselves; while Redis is away
/// calls fail within about two seconds.
#[derive(Clone)]
pub struct Redis {
    cmd: ConnectionManager,
    renewals: ConnectionManager,
    pub(crate) bus: Bus,
}

pub(crate) fn patient() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_response_timeout(Some(Duration::from_secs(2)))
        .set_connection_timeout(Some(Duration::from_secs(1)))
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(200))
}

impl Redis {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// Where the URL does not parse.
    pub async fn connect(url: &str) -> Result<Self, QueueError> {
        let client = ::redis::Client::open(url)?;
        Ok(Self {
            cmd: ConnectionManager::new_lazy_with_config(client.clone(), patient())?,
            renewals: ConnectionManager::new_lazy_with_config(client, patient())?,
            bus: Bus::connect(url)?,
        })
    }

    pub(crate) fn commands(&self) -> ConnectionManager {
        self.cmd.clone()
    }

    pub(crate) fn renewals(&self) -> ConnectionManager {
        self.renewals.clone()
    }

    /// Whether it answers and keeps what it is given.
    ///
    /// # Errors
    /// [`QueueError`] says what is wrong.
    pub async fn check(&self) -> Result<(), QueueError> {
        let info: String = ::redis::cmd("INFO").arg("memory").query_async(&mut self.commands()).await?;
        let policy = info.lines().find_map(|l| l.strip_prefix("maxmemory_policy:")).unwrap_or("unknown").trim();
        if policy == "noeviction" { Ok(()) } else { Err(QueueError::Evicts(policy.to_owned())) }
    }
}
