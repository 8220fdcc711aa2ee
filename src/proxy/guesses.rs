//! The budget of wrong tokens: how many an address may show before they are answered with 429.
//!
//! Only wrong ones count, and only wrong ones are refused: agents share addresses behind a sidecar or a NAT, and one of
//! them that guesses must not stop the others.

use quick_cache::sync::Cache;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Addresses that are remembered; beyond it those that were not seen for longest are forgotten.
const ADDRESSES: usize = 65_536;

const MINUTE: u64 = 60_000_000_000;

/// One budget: an IPv4 address, or an IPv6 /64, which is what one machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Neighbourhood(u64, bool);

impl Neighbourhood {
    /// The one that an address is in.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u64::from(address.to_bits()), false),
            IpAddr::V6(address) => Self(u64::try_from(address.to_bits() >> 64).unwrap_or_default(), true),
        }
    }
}

/// The budgets. Each refills evenly over a minute (the generic cell rate algorithm: one number an address).
pub struct WrongTokens {
    began: Instant,
    /// When the budget will be whole again, in nanoseconds since `began`.
    whole_at: Cache<Neighbourhood, Arc<AtomicU64>>,
}

impl Default for WrongTokens {
    fn default() -> Self {
        Self { began: Instant::now(), whole_at: Cache::new(ADDRESSES) }
    }
}

impl WrongTokens {
    /// Counts a wrong token. `Err` is how long it takes until one more fits the budget of `per_minute`.
    ///
    /// # Errors
    /// When the budget is used up.
    pub fn count(&self, address: IpAddr, per_minute: u32) -> Result<(), Duration> {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.count_at(address, per_minute, now)
    }

    fn count_at(&self, address: IpAddr, per_minute: u32, now: u64) -> Result<(), Duration> {
        let key = Neighbourhood::of(address);
        let make = || Ok::<_, std::convert::Infallible>(Arc::default());
        let Ok(cell) = self.whole_at.get_or_insert_with(&key, make);
        let price = MINUTE / u64::from(per_minute.max(1));
        let mut result = Ok(());
        // Fails when the budget is used up, and then nothing is written: a flood costs its sender no more than that.
        let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole_at| {
            let next = whole_at.max(now).saturating_add(price);
            let over = next.saturating_sub(now).saturating_sub(MINUTE);
            result = if over == 0 { Ok(()) } else { Err(Duration::from_nanos(over)) };
            (over == 0).then_some(next)
        });
        result
    }

    /// How many addresses are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.whole_at.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole_at.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_budget_is_one_machine_s() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("127.0.0.1", "::1", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            // An IPv6 prefix that reads like an IPv4 address.
            ("0.0.0.1", "0:0:0:1::", false),
        ] {
            let of = |text: &str| Neighbourhood::of(text.parse().unwrap());
            assert_eq!(of(one) == of(other), same, "{one} {other}");
        }
    }

    #[test]
    fn a_used_up_budget_refills_evenly() {
        let (guesses, address) = (WrongTokens::default(), "127.0.0.1".parse().unwrap());
        for _ in 0..60 {
            assert_eq!(guesses.count_at(address, 60, 0), Ok(()));
        }
        assert_eq!(guesses.count_at(address, 60, 0), Err(Duration::from_secs(1)));
        // What is refused is not paid for.
        assert_eq!(guesses.count_at(address, 60, 0), Err(Duration::from_secs(1)));
        assert_eq!(guesses.count_at(address, 60, SECOND), Ok(()));
        assert!(guesses.count_at(address, 60, SECOND).is_err());
        for _ in 0..60 {
            assert_eq!(guesses.count_at(address, 60, 1_000 * SECOND), Ok(()));
        }
        assert!(guesses.count_at(address, 60, 1_000 * SECOND).is_err());
        assert_eq!(guesses.count_at("127.0.0.2".parse().unwrap(), 60, 0), Ok(()));
    }

    #[test]
    fn a_million_addresses_take_a_bounded_room() {
        let guesses = WrongTokens::default();
        for number in 0..500_000_u32 {
            let _ = guesses.count_at(IpAddr::V4(number.into()), 60, u64::from(number));
        }
        assert!(guesses.len() <= ADDRESSES, "{}", guesses.len());
        for number in 0..500_000_u128 {
            let _ = guesses.count_at(IpAddr::V6((number << 64).into()), 60, 0);
        }
        assert!(guesses.len() <= ADDRESSES, "{}", guesses.len());
    }

    proptest! {
        /// In any minute no more than twice the budget passes: what was saved up, and what came in.
        #[test]
        fn no_minute_has_more_than_twice_the_budget(
            per_minute in 1..200_u32,
            steps in prop::collection::vec(0..5 * SECOND, 1..400),
        ) {
            let (guesses, address) = (WrongTokens::default(), "192.0.2.1".parse().unwrap());
            let (mut now, mut passed) = (0, Vec::new());
            for step in steps {
                now += step;
                if guesses.count_at(address, per_minute, now).is_ok() {
                    passed.push(now);
                }
            }
            for (at, first) in passed.iter().enumerate() {
                let within = passed[at..].iter().take_while(|time| **time < first + MINUTE).count();
                prop_assert!(within <= 2 * per_minute as usize, "{within}");
            }
        }
    }
}
