//! One test binary; a file a promise, names are sentences. What runs real browsers lies in `browser_…` modules (see `.config/nextest.toml`).

mod accept_faults;
mod api_keys;
mod audit;
mod authorization;
mod bad_input;
mod browser_accounts;
mod browser_catalogue;
mod browser_clocks;
mod browser_control;
mod browser_cuts;
mod browser_death;
mod browser_docs;
mod browser_failover;
mod browser_faults;
mod browser_full_disk;
mod browser_identity;
mod browser_least_rights;
mod browser_link_page;
mod browser_messages;
mod browser_odd_text;
mod browser_receipts;
mod browser_recycling;
mod browser_snapshots;
mod browser_tenant;
mod chats;
mod company;
mod cors;
mod database;
mod everything;
mod exports;
mod firehose;
mod grants;
mod jobs;
mod lambda;
mod limits;
mod link_pages;
mod master_key;
mod objects_in_s3;
mod once;
mod placement;
mod privacy;
mod reliability_page;
mod restored;
mod sessions;
mod sockets;
mod sockets_end;
mod staff;
mod strangers;
mod streams;
mod tenants_apart;
mod tokens;
mod webhooks_api;
mod webhooks_sent;
mod webhooks_whole;
mod worker;

use std::time::Duration;

/// Long enough for a browser to start on a busy machine.
const SOON: Duration = Duration::from_secs(40);

/// The phones of these stories.
const OURS: &str = "5511999990000";
const PEER: &str = "5511888880000";
