//! When an event is tried again.

use std::time::Duration;

use contract::DeliveryId;

use super::settings::Settings;

/// How long after its so-manieth attempt a delivery is tried again. `None`: no more.
pub fn pause(settings: &Settings, delivery: DeliveryId, attempts: i32, asked: Option<Duration>) -> Option<Duration> {
    let index = usize::try_from(attempts - 1).unwrap_or(0);
    let planned = Duration::from_millis(*settings.retry_after_ms.get(index)?);
    let spread = planned.mul_f64(f64::from(chance(delivery, attempts)) / f64::from(u16::MAX) / 5.0);
    let asked = asked.unwrap_or_default().min(Duration::from_millis(settings.retry_after_cap_ms));
    Some((planned + spread).max(asked))
}

/// A number that the delivery's own random bits decide.
fn chance(delivery: DeliveryId, attempts: i32) -> u16 {
    let bits = delivery.uuid().as_u128() as u64;
    let mixed = bits.wrapping_add(u64::from(attempts.unsigned_abs())).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_follow_the_schedule_spread_by_a_fifth_and_end() {
        let settings = Settings { retry_after_ms: vec![1_000, 10_000], ..Settings::default() };
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let delivery = DeliveryId::new();
            for (attempts, planned) in [(1, 1_000), (2, 10_000)] {
                let pause = pause(&settings, delivery, attempts, None).unwrap();
                assert!(pause >= Duration::from_millis(planned) && pause <= Duration::from_millis(planned * 12 / 10), "{pause:?}");
                seen.insert(pause);
            }
            assert_eq!(super::pause(&settings, delivery, 3, None), None);
        }
        assert!(seen.len() > 100, "they do not come back together");
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_pause_up_to_the_cap_and_never_for_a_shorter_one() {
        let settings = Settings { retry_after_ms: vec![1_000], retry_after_cap_ms: 60_000, ..Settings::default() };
        let pause = |asked| pause(&settings, DeliveryId::new(), 1, Some(Duration::from_secs(asked))).unwrap();
        assert_eq!((pause(30).as_secs(), pause(86_400).as_secs(), pause(0).as_secs()), (30, 60, 1));
    }
}
