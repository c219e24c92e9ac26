//! What a stream says of itself.

use serde::{Deserialize, Serialize};

use super::fact::Example;

/// The body of `stream.gap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StreamGapBody {
    /// The cursor that was asked for.
    pub after: i64,
    /// The smallest `seq` still kept: what follows begins there.
    pub oldest: i64,
}

impl Example for StreamGapBody {
    fn example() -> Self {
        Self { after: 1200, oldest: 5821 }
    }
}

/// The body of `log.restored`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogRestoredBody {
    /// The first `seq` that may have stood for another event.
    pub from: i64,
    /// The last one: the event's own `seq` is the next.
    pub to: i64,
}

impl Example for LogRestoredBody {
    fn example() -> Self {
        Self { from: 5318, to: 5821 }
    }
}
