//! What single statements promise, against a Postgres of each test's own.

mod background_jobs;
mod catalogue;
mod contacts;
mod erasures;
mod exports;
mod history;
mod identity;
mod profiles;
mod receipts;
mod sessions;
mod support;
mod tenants;
