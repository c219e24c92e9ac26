//! session-host
