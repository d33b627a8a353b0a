//! Contents that many share, kept once and counted.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Numbers for contents; what nobody has any more is forgotten, and its number given again.
#[derive(Debug)]
pub struct Pool<T: ?Sized> {
    numbers: HashMap<Arc<T>, u32>,
    slots: Vec<(Option<Arc<T>>, u32)>,
    free: Vec<u32>,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), slots: Vec::new(), free: Vec::new() }
    }
}

impl<T: ?Sized + Hash + Eq> Pool<T> {
    /// The content's number, for one user more.
    pub fn acquire<'a>(&mut self, content: &'a T) -> u32
    where
        Arc<T>: From<&'a T>,
    {
        if let Some(number) = self.numbers.get(content) {
            self.slots[*number as usize].1 += 1;
            return *number;
        }
        let shared = Arc::<T>::from(content);
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push((None, 0));
            // Four thousand million different contents do not fit into any agent's memory.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.slots[number as usize] = (Some(shared.clone()), 1);
        self.numbers.insert(shared, number);
        number
    }

    /// The number of a content that somebody has.
    pub fn find(&self, content: &T) -> Option<u32> {
        self.numbers.get(content).copied()
    }

    /// What has this number.
    pub fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize).and_then(|(content, _)| content.as_deref())
    }

    /// One user less. The content, if that was the last one.
    pub fn release(&mut self, number: u32) -> Option<Arc<T>> {
        let (content, users) = self.slots.get_mut(number as usize)?;
        *users = users.saturating_sub(1);
        if *users > 0 {
            return None;
        }
        let content = content.take()?;
        self.numbers.remove(&*content);
        self.free.push(number);
        Some(content)
    }

    /// Bytes of its tables, without those of the contents.
    #[cfg(test)]
    pub fn table_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<(Option<Arc<T>>, u32)>()
            + self.free.capacity() * 4
            + (self.numbers.capacity() * 8 / 7).next_power_of_two() * (size_of::<(Arc<T>, u32)>() + 1)
    }

    /// All contents.
    #[cfg(test)]
    pub fn contents(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|(content, _)| content.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::Pool;

    #[test]
    fn a_content_lives_as_long_as_somebody_has_it() {
        let mut pool = Pool::<str>::default();
        let (a, b) = (pool.acquire("a"), pool.acquire("b"));
        assert_eq!((pool.acquire("a"), pool.contents().count()), (a, 2));
        assert!(pool.release(a).is_none());
        assert_eq!((pool.get(a), pool.find("a")), (Some("a"), Some(a)));
        assert_eq!(pool.release(a).as_deref(), Some("a"));
        assert_eq!((pool.get(a), pool.find("a")), (None, None));
        assert_eq!((pool.acquire("c"), pool.get(b)), (a, Some("b")));
    }
}
