//! How many connections there may be at a time: of all together, and of one source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of others than the node at a time.
const ALL: usize = 64;

/// Those of one source. A pod has an address of each family.
const OF_A_SOURCE: usize = 4;

/// Those of the node itself.
const OF_THE_NODE: usize = 32;

/// Who has how many. `None` is the node itself.
#[derive(Debug, Default)]
pub struct Places(Mutex<HashMap<Option<IpAddr>, usize>>);

/// A place that is taken; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    source: Option<IpAddr>,
}

impl Place {
    /// Takes a place for a connection from `source`, `None` for the node itself. `None` where there is none left.
    pub fn take(places: &Arc<Places>, source: Option<IpAddr>) -> Option<Self> {
        let mut taken = places.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others: usize = taken.iter().filter(|(it, _)| it.is_some()).map(|(_, count)| count).sum();
        let count = taken.get(&source).copied().unwrap_or(0);
        let is_free = match source {
            None => count < OF_THE_NODE,
            Some(_) => count < OF_A_SOURCE && others < ALL,
        };
        if !is_free {
            return None;
        }
        taken.insert(source, count + 1);
        drop(taken);
        Some(Self { places: Arc::clone(places), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>, source: Option<u8>, count: usize) -> Vec<Place> {
        let source = source.map(|number| IpAddr::from([10, 244, 1, number]));
        (0..count).map_while(|_| Place::take(places, source)).collect()
    }

    #[test]
    fn a_source_has_a_few_places_and_gets_them_back() {
        let places = Arc::new(Places::default());
        let held = take(&places, Some(1), 400);
        assert_eq!((held.len(), take(&places, Some(2), 400).len()), (OF_A_SOURCE, OF_A_SOURCE));
        drop(held);
        assert_eq!(take(&places, Some(1), 400).len(), OF_A_SOURCE);
        assert!(places.0.lock().unwrap().is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn all_others_together_leave_the_node_its_own() {
        let places = Arc::new(Places::default());
        let held: Vec<Place> = (0..=255).flat_map(|number| take(&places, Some(number), 400)).collect();
        assert_eq!((held.len(), take(&places, None, 400).len()), (ALL, OF_THE_NODE));
    }
}
