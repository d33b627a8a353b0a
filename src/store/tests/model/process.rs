//! The commands in short: what they do with the store, and with a kernel that is a map.

use super::super::super::{Record, StoreError, StoreGuard};
use super::super::*;
use super::Bench;
use super::law::{ATTACHED, Answer, DIFFERENT, EXHAUSTED};
use super::step::{Command, Pod};
use crate::store::AttachmentLock;

/// The container id of a pod.
pub fn container(pod: Pod) -> String {
    format!("pod-{pod}")
}

/// An execution of the plugin.
pub struct Process<'a> {
    pub bench: &'a Bench,
    /// Its steps, and the moment of its death.
    pub env: &'a Arc<TestEnv>,
}

impl Process<'_> {
    /// Runs a command.
    ///
    /// # Errors
    /// What the store says where it is not to answer so: it is broken, or the process dead.
    pub fn run(&self, command: &Command) -> Result<Answer, StoreError> {
        let env = Arc::clone(self.env) as Arc<dyn Env>;
        let store = Store::open_in(env, &self.bench.scratch.data_dir(), &network())?;
        match command {
            Command::Add(pod) => self.add(&store, *pod),
            Command::Del(pod) => self.del(&store, *pod),
            Command::Check(pod) => {
                Ok(if self.stands(&store, *pod)? { Answer::Done } else { Answer::Refused(DIFFERENT) })
            }
            Command::Gc(valid) => self.gc(&store, valid),
        }
    }

    fn add(&self, store: &Store, pod: Pod) -> Result<Answer, StoreError> {
        let key = key(&container(pod));
        let mut outcome = self.allocate(&mut self.lock(store)?, pod);
        if let Err(StoreError::AlreadyAttached { .. }) = outcome {
            if let Some(_hold) = store.hold(&key, PATIENCE)? {
                if self.stands(store, pod)? {
                    return Ok(Answer::Refused(ATTACHED));
                }
                self.unlink(pod)?;
                self.lock(store)?.release(&key)?;
            }
            outcome = self.allocate(&mut self.lock(store)?, pod);
        }
        if let Err(StoreError::Exhausted { .. }) = outcome {
            outcome = self.allocate_from_the_dead(store, pod)?;
        }
        match outcome {
            Ok((record, _hold)) => {
                self.change()?;
                self.bench.kernel.lock().unwrap().links.insert(pod);
                Ok(Answer::Given(record.addresses))
            }
            Err(StoreError::AlreadyAttached { .. }) => Ok(Answer::Refused(ATTACHED)),
            Err(StoreError::Exhausted { .. }) => Ok(Answer::Refused(EXHAUSTED)),
            Err(error) => Err(error),
        }
    }

    fn allocate_from_the_dead(
        &self,
        store: &Store,
        pod: Pod,
    ) -> Result<Result<(Record, AttachmentLock), StoreError>, StoreError> {
        let mut waited_for = BTreeSet::new();
        loop {
            store.discard_previous_boots(&self.bench.boot(), PATIENCE)?;
            let (mut dead, mut busy) = (Vec::new(), Vec::new());
            for other in Pod::all() {
                let key = key(&container(other));
                let Some(record) = store.find(&key)?.filter(|record| self.is_dead(record, other)) else {
                    continue;
                };
                match store.try_hold(&key)? {
                    Some(hold) if store.find(&key)?.as_ref() == Some(&record) => dead.push(hold),
                    _ => busy.push(other),
                }
            }
            let mut locked = self.lock(store)?;
            for hold in dead {
                locked.release(hold.key())?;
            }
            let outcome = self.allocate(&mut locked, pod);
            drop(locked);
            let Err(StoreError::Exhausted { .. }) = outcome else { return Ok(outcome) };
            let Some(busy) = busy.into_iter().find(|pod| waited_for.insert(*pod)) else { return Ok(outcome) };
            drop(store.hold(&key(&container(busy)), PATIENCE)?);
        }
    }

    fn del(&self, store: &Store, pod: Pod) -> Result<Answer, StoreError> {
        let key = key(&container(pod));
        loop {
            store.discard_previous_boots(&self.bench.boot(), PATIENCE)?;
            let hold = store.hold(&key, PATIENCE)?;
            self.unlink(pod)?;
            let mut locked = self.lock(store)?;
            // An ADD that began meanwhile is not to lose what it uses.
            if hold.is_some() || store.find(&key)?.is_none() {
                locked.release(&key)?;
                return Ok(Answer::Done);
            }
        }
    }

    fn gc(&self, store: &Store, valid: &BTreeSet<Pod>) -> Result<Answer, StoreError> {
        store.discard_previous_boots(&self.bench.boot(), PATIENCE)?;
        let mut doomed = Vec::new();
        for pod in Pod::all().filter(|pod| !valid.contains(pod)) {
            if let Some(hold) = store.try_hold(&key(&container(pod)))? {
                self.unlink(pod)?;
                doomed.push(hold);
            }
        }
        let mut locked = self.lock(store)?;
        for hold in &doomed {
            locked.release(hold.key())?;
        }
        assert_eq!(locked.repair()?, super::super::super::Repairs::default());
        Ok(Answer::Done)
    }

    fn lock<'store>(&self, store: &'store Store) -> Result<StoreGuard<'store>, StoreError> {
        store.lock(&self.bench.boot(), PATIENCE)
    }

    fn allocate(
        &self,
        locked: &mut StoreGuard<'_>,
        pod: Pod,
    ) -> Result<(Record, AttachmentLock), StoreError> {
        let mut claim = claim(&container(pod));
        let ino = self.bench.kernel.lock().unwrap().namespaces[&pod];
        claim.netns.as_mut().unwrap().ino = ino;
        locked.allocate(claim, &self.bench.sets(), &[])
    }

    /// The pod is attached, and was never cut short.
    fn stands(&self, store: &Store, pod: Pod) -> Result<bool, StoreError> {
        let Some(record) = store.find(&key(&container(pod)))? else { return Ok(false) };
        Ok(!self.is_dead(&record, pod) && self.bench.kernel.lock().unwrap().links.contains(&pod))
    }

    fn is_dead(&self, record: &Record, pod: Pod) -> bool {
        let ino = record.netns.as_ref().map(|netns| netns.ino);
        !record.is_from(&self.bench.boot())
            || self.bench.kernel.lock().unwrap().namespaces.get(&pod).copied() != ino
    }

    fn unlink(&self, pod: Pod) -> Result<(), StoreError> {
        self.change()?;
        self.bench.kernel.lock().unwrap().links.remove(&pod);
        Ok(())
    }

    /// A change of the kernel, before which a process may die as before any other.
    fn change(&self) -> Result<(), StoreError> {
        let step = super::super::FaultPoint { operation: "change link", changes: true };
        self.env.admit(step).map_err(|error| StoreError::io("change", Path::new("link"), error))
    }
}
