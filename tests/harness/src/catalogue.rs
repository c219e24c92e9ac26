//! Every event that a test sees is what its type says.

use contract::{Event, EventType, Fact, event::Erased};
use serde_json::{Value, json};

/// Checks an envelope: read as what its type says and written again it is the same, so nothing is missing, wrong or undocumented.
///
/// # Panics
/// Where it is not.
pub fn check(envelope: &Value) {
    let (kind, data) = (EventType::from(envelope["type"].as_str().unwrap_or_default().to_owned()), &envelope["data"]);
    if envelope["seq"].is_i64() {
        let event: Event = serde_json::from_value(envelope.clone()).unwrap_or_else(|why| panic!("no envelope: {why}: {envelope}"));
        assert_eq!(json!(event), *envelope, "the envelope has more or less than it should");
    }
    if Erased::is(data) {
        return;
    }
    match Fact::read(&kind, data) {
        Ok(Some(fact)) => assert_eq!(fact.data(), *data, "a body of {kind:?} has more or less than its type says"),
        Ok(None) => {}
        Err(why) => panic!("not what {kind:?} says: {why}: {envelope}"),
    }
}
