//! Who calls, and what they may touch. A handler names its rights by its extractors; what it has no extractor for, it cannot reach.

mod caller;
mod jwt;
mod passwords;
mod refresh;
mod scope;
mod standing;
mod ticket;

pub use caller::{Admin, Caller};
pub use jwt::{BadKeys, BadToken, Claims, LIFETIME, Tokens, install, random_key};
pub use passwords::{Passwords, hash as hash_password};
pub use refresh::{RefreshToken, hash_of};
pub(crate) use scope::is_session_name;
pub use scope::{AdminSession, OwnedSession, VisibleChat, WritableChat, chat_filter, named_chat, named_session, session_filter};
pub use standing::Standings;
pub use ticket::{TICKET_LIFETIME, TicketCaller};
