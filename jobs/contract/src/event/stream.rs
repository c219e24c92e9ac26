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
