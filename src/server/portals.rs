//! The portals of a session. The unnamed one, which most statements use, costs neither a copy of its name nor a look-up.

use std::sync::Arc;

use hashbrown::HashMap;

use super::cursors::Aside;
use super::prepared::Prepared;
use crate::backend::connections::Connections;
use crate::backend::pool::Lease;
use crate::executor::{Execution, Parameters};
use crate::protocol::messages::ColumnDescription;

/// A bound statement, perhaps half read.
pub struct Portal {
    pub prepared: Arc<Prepared>,
    pub parameters: Arc<Parameters>,
    /// Result columns in the formats the Bind asked for.
    pub columns: Option<Arc<[ColumnDescription]>>,
    pub running: Option<Execution>,
    /// The merge session it is suspended on.
    pub merge: Option<Lease>,
    pub done: bool,
    /// Rows of a FETCH that are still to go out.
    pub aside: Option<Aside>,
    /// Its rows are read in batches.
    pub batched: bool,
}

impl Portal {
    /// Bound, not yet executed.
    pub fn new(
        prepared: Arc<Prepared>,
        parameters: Arc<Parameters>,
        columns: Option<Arc<[ColumnDescription]>>,
    ) -> Self {
        Self {
            prepared,
            parameters,
            columns,
            running: None,
            merge: None,
            done: false,
            aside: None,
            batched: false,
        }
    }

    /// It has been executed and has more rows to give.
    pub fn is_suspended(&self) -> bool {
        self.running.is_some()
    }

    /// Has the shards close what they hold for it.
    pub fn abandon(self, connections: &mut Connections) {
        // With a merge session of its own, closing that session ends its transaction and portal.
        if let (Some(mut execution), None) = (self.running, self.merge) {
            execution.close(connections);
        }
    }
}

/// All portals of a session by name. They are boxed because each Execute takes its portal out and puts it back.
#[derive(Default)]
pub struct Portals {
    unnamed: Option<Box<Portal>>,
    named: HashMap<String, Box<Portal>, foldhash::fast::RandomState>,
}

impl Portals {
    pub fn get(&self, name: &str) -> Option<&Portal> {
        match name {
            "" => self.unnamed.as_deref(),
            name => self.named.get(name).map(|p| &**p),
        }
    }

    /// Takes a portal out.
    pub fn take(&mut self, name: &str) -> Option<Box<Portal>> {
        match name {
            "" => self.unnamed.take(),
            name => self.named.remove(name),
        }
    }

    pub fn put(&mut self, name: &str, portal: Box<Portal>) {
        match name {
            "" => self.unnamed = Some(portal),
            name => drop(self.named.insert(name.to_owned(), portal)),
        }
    }

    /// True when one of them is half read.
    pub fn any_suspended(&self) -> bool {
        let named = self.named.values();
        named.chain(&self.unnamed).any(|p| p.is_suspended())
    }

    /// How many have a name.
    pub fn named(&self) -> usize {
        self.named.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Portal> {
        let named = self.named.values().map(|p| &**p);
        self.unnamed.as_deref().into_iter().chain(named)
    }

    /// Takes all of them out.
    pub fn drain(&mut self) -> impl Iterator<Item = Portal> {
        let named = self.named.drain().map(|(_, portal)| *portal);
        self.unnamed.take().map(|p| *p).into_iter().chain(named)
    }

    /// Forgets all of them: the transaction that held them is over.
    pub fn clear(&mut self) {
        self.unnamed = None;
        if !self.named.is_empty() {
            self.named.clear();
        }
    }
}
