//! A hash map whose copies share what they have in common.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Arc;

/// A hash map in shards behind `Arc`. To copy it is to copy a list of pointers; to change a copy is to copy the shards
/// that the change touches, a few hundred entries each, however large the map is.
#[derive(Debug, Clone)]
pub struct SharedMap<K, V> {
    shards: Vec<Arc<HashMap<K, V>>>,
    /// Chooses the shard. Each shard has its own keys, or its buckets would fill unevenly.
    hasher: RandomState,
    len: usize,
}

const SHARD_ENTRIES: usize = 256;

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { shards: Vec::new(), hasher: RandomState::new(), len: 0 }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> SharedMap<K, V> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    #[must_use]
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.get(self.shard_of(key)?)?.get(key)
    }

    /// Every value, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    /// Adds or replaces.
    pub fn insert(&mut self, key: K, value: V) {
        self.grow();
        let shard = self.shard_of(&key).expect("a map that has grown has a shard");
        let replaced = Arc::make_mut(&mut self.shards[shard]).insert(key, value);
        self.len += usize::from(replaced.is_none());
    }

    /// Takes a key out.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let shard = self.shard_of(key)?;
        // Looked at first: a shard is not copied for a key that it does not have.
        self.shards[shard].get(key)?;
        let removed = Arc::make_mut(&mut self.shards[shard]).remove(key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// The value to change, made from its default if there is none.
    pub fn entry(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.grow();
        let shard = self.shard_of(&key).expect("a map that has grown has a shard");
        match Arc::make_mut(&mut self.shards[shard]).entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.len += 1;
                entry.insert(V::default())
            }
        }
    }

    fn shard_of<Q: Hash + ?Sized>(&self, key: &Q) -> Option<usize> {
        // The number of shards is a power of two.
        let mask = self.shards.len().checked_sub(1)?;
        usize::try_from(self.hasher.hash_one(key) & mask as u64).ok()
    }

    /// Makes room for one more entry: four times the shards when they are full on average.
    fn grow(&mut self) {
        if self.len < self.shards.len() * SHARD_ENTRIES {
            return;
        }
        let count = (self.shards.len() * 4).max(1);
        let mut shards: Vec<HashMap<K, V>> = std::iter::repeat_with(HashMap::new).take(count).collect();
        // Moved where no copy of the map shares the shard.
        for (key, value) in std::mem::take(&mut self.shards).into_iter().flat_map(Arc::unwrap_or_clone) {
            let hash = self.hasher.hash_one(&key) & (count as u64 - 1);
            shards[usize::try_from(hash).expect("less than the number of shards")].insert(key, value);
        }
        self.shards = shards.into_iter().map(Arc::new).collect();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::SharedMap;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u16, u32),
        Remove(u16),
        Append(u16, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0..600_u16;
        prop_oneof![
            4 => (key.clone(), any::<u32>()).prop_map(|(k, v)| Step::Insert(k, v)),
            1 => key.clone().prop_map(Step::Remove),
            1 => (key, any::<u32>()).prop_map(|(k, v)| Step::Append(k, v)),
        ]
    }

    fn apply(map: &mut SharedMap<u16, Vec<u32>>, model: &mut HashMap<u16, Vec<u32>>, step: &Step) {
        match step {
            Step::Insert(key, value) => {
                map.insert(*key, vec![*value]);
                model.insert(*key, vec![*value]);
            }
            Step::Remove(key) => assert_eq!(map.remove(key), model.remove(key)),
            Step::Append(key, value) => {
                map.entry(*key).push(*value);
                model.entry(*key).or_default().push(*value);
            }
        }
    }

    fn assert_same(map: &SharedMap<u16, Vec<u32>>, model: &HashMap<u16, Vec<u32>>) {
        assert_eq!(map.len(), model.len());
        assert_eq!(map.values().count(), model.len());
        for key in 0..600 {
            assert_eq!(map.get(&key), model.get(&key));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn behaves_as_a_map_and_leaves_its_copies_alone(
            first in prop::collection::vec(step(), 0..1_500),
            second in prop::collection::vec(step(), 0..300),
        ) {
            let (mut map, mut model) = (SharedMap::default(), HashMap::new());
            first.iter().for_each(|step| apply(&mut map, &mut model, step));
            let (mut copy, mut copy_model) = (map.clone(), model.clone());
            second.iter().for_each(|step| apply(&mut copy, &mut copy_model, step));
            assert_same(&map, &model);
            assert_same(&copy, &copy_model);
        }
    }

    #[test]
    fn a_change_copies_one_shard() {
        let mut map = SharedMap::default();
        (0..5_000_u32).for_each(|key| map.insert(key, ()));
        let mut copy = map.clone();
        copy.remove(&17).unwrap();
        let copied = std::iter::zip(&map.shards, &copy.shards).filter(|(a, b)| !std::sync::Arc::ptr_eq(a, b)).count();
        assert_eq!(copied, 1);
        assert!(map.shards.len() > 8);
    }
}
