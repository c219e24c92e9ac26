//! Who calls, and what they may touch. A handler names its rights by its extractors; what it has no extractor for, it cannot reach.

mod caller;
mod jwt;
mod link;
mod passwords;
mod refresh;
mod scope;
mod standing;

pub use caller::{Admin, Caller};
pub use jwt::{BadKeys, BadToken, Claims, LIFETIME, Tokens, install, random_key};
pub use link::{HEADER as LINK_HEADER, LinkCaller, new_token as new_link_token};
pub use passwords::{Passwords, hash as hash_password};
pub use refresh::{RefreshToken, hash_of};
pub(crate) use scope::is_session_name;
pub use scope::{AdminSession, OwnedSession, VisibleChat, WritableChat, named_chat, named_session, session_filter};
pub use standing::Standings;
