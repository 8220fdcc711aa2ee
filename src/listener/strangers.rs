//! Connections that have not shown a valid token yet: so many and no more.
//!
//! When there is no room, a new one takes the place of the oldest of the address that has the most. An agent shows its
//! token with its first request and is a stranger for a moment only, so it gets in however many idle connections
//! somebody else piles up.

use crate::proxy::Closing;
use crate::proxy::guesses::Neighbourhood;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Weak};

/// All of them. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Strangers(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    next: u64,
    /// Oldest first. Weak, because a connection's [`Closing`] keeps its [`Place`].
    all: BTreeMap<u64, (Neighbourhood, Weak<Closing>)>,
    by_address: HashMap<Neighbourhood, BTreeSet<u64>>,
}

/// One connection's place; given back when dropped.
struct Place {
    strangers: Strangers,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.strangers.0.lock().remove(self.number);
    }
}

impl Places {
    fn remove(&mut self, number: u64) -> Option<Weak<Closing>> {
        let (address, closing) = self.all.remove(&number)?;
        if let Some(numbers) = self.by_address.get_mut(&address) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_address.remove(&address);
            }
        }
        Some(closing)
    }

    /// The oldest of the address that has the most; of equals the oldest.
    fn victim(&self) -> Option<u64> {
        let fullest =
            self.by_address.values().max_by_key(|numbers| (numbers.len(), std::cmp::Reverse(numbers.first())));
        fullest?.first().copied()
    }
}

impl Strangers {
    /// Enters a connection until its caller is known or it ends. Gives how many others were closed for it.
    pub(super) fn enter(&self, client: IpAddr, closing: &Arc<Closing>, limit: usize) -> usize {
        let address = Neighbourhood::of(client);
        let mut victims = Vec::new();
        let number = {
            let mut places = self.0.lock();
            while places.all.len() >= limit.max(1)
                && let Some(victim) = places.victim()
            {
                victims.extend(places.remove(victim));
            }
            places.next += 1;
            let number = places.next;
            places.all.insert(number, (address, Arc::downgrade(closing)));
            places.by_address.entry(address).or_default().insert(number);
            number
        };
        closing.stranger(Box::new(Place { strangers: self.clone(), number }));
        for victim in victims.iter().filter_map(Weak::upgrade) {
            victim.at_once();
        }
        victims.len()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().all.len()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use futures_util::FutureExt as _;

    fn enter(strangers: &Strangers, address: &str, limit: usize) -> Arc<Closing> {
        let closing = Arc::<Closing>::default();
        strangers.enter(address.parse().unwrap(), &closing, limit);
        closing
    }

    fn is_closed(closing: &Closing) -> bool {
        closing.cut().now_or_never().is_some()
    }

    #[test]
    fn the_fullest_address_makes_room() {
        let strangers = Strangers::default();
        let alone = enter(&strangers, "192.0.2.1", 4);
        let crowd: Vec<_> = (0..3).map(|_| enter(&strangers, "192.0.2.2", 4)).collect();
        let new = enter(&strangers, "192.0.2.3", 4);
        assert_eq!([&alone, &new].map(|closing| is_closed(closing)), [false; 2]);
        assert_eq!(crowd.iter().map(|closing| is_closed(closing)).collect::<Vec<_>>(), [true, false, false]);
        // Its own newest, too.
        let more = enter(&strangers, "192.0.2.2", 4);
        assert!(is_closed(&crowd[1]) && !is_closed(&more) && !is_closed(&alone));
        assert_eq!(strangers.len(), 4);
    }

    #[test]
    fn among_equals_the_oldest_makes_room() {
        let strangers = Strangers::default();
        let all: Vec<_> = (0..4).map(|n| enter(&strangers, &format!("192.0.2.{n}"), 4)).collect();
        let new = enter(&strangers, "192.0.2.9", 4);
        assert_eq!(all.iter().map(|closing| is_closed(closing)).collect::<Vec<_>>(), [true, false, false, false]);
        assert!(!is_closed(&new));
    }

    #[test]
    fn who_is_known_or_gone_takes_no_place() {
        let strangers = Strangers::default();
        let known = enter(&strangers, "192.0.2.1", 2);
        known.known();
        assert_eq!(strangers.len(), 0);
        let gone = enter(&strangers, "192.0.2.1", 2);
        assert_eq!(strangers.len(), 1);
        drop(gone);
        assert_eq!(strangers.len(), 0);
        let crowd: Vec<_> = (0..10).map(|_| enter(&strangers, "192.0.2.1", 2)).collect();
        assert!(!is_closed(&known));
        assert_eq!(crowd.iter().filter(|closing| !is_closed(closing)).count(), 2);
        drop(crowd);
        assert!(strangers.0.lock().by_address.is_empty());
    }
}
