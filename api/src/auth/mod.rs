//! Who calls, and what they may touch. A handler names its rights by its extractors; what it has no extractor for, it cannot reach.

pub mod address;
mod caller;
mod jwt;
mod link;
mod passwords;
mod rule;
mod scope;
mod secret;
mod standing;
mod table;
pub mod throttle;
mod ticket;

pub use caller::{Admin, Caller, Credential, Shown};
pub use jwt::{BadKeys, BadToken, Claims, LIFETIME, Tokens, install, random_key};
pub use link::{HEADER as LINK_HEADER, LinkCaller, new_token as new_link_token};
pub use passwords::{LONGEST as LONGEST_PASSWORD, Passwords, acceptable as acceptable_password, hash as hash_password};
pub use rule::{ChatNeed, KeyNeed, Rule, Rules, Scopes, guard, note, surely};
pub(crate) use scope::is_session_name;
pub use scope::{AdminSession, OwnedSession, VisibleChat, WritableChat, chat_filter, named_chat, named_session, session_filter};
pub use secret::{ApiKey, Kind, Secret, hash_of, link_url};
pub use standing::Standings;
pub use table::table;
pub use ticket::TICKET_LIFETIME;
