//! Clients at work in the background of a test.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::eventually;

/// What the clients have done so far.
#[derive(Default)]
pub struct Load {
    end: AtomicBool,
    done: AtomicUsize,
    failed: AtomicUsize,
}

impl Load {
    /// Has so many clients do `round` over and over, each in a thread with what `start` made for it, while `meanwhile` runs. The rounds
    /// that failed come back.
    pub fn run<S, E: Send>(
        clients: usize,
        start: impl Fn(usize) -> S + Sync,
        round: impl Fn(&mut S, usize) -> Result<(), E> + Sync,
        meanwhile: impl FnOnce(&Self),
    ) -> Vec<E> {
        let load = Self::default();
        let client = |number: usize| {
            let (mut state, mut failed) = (start(number), Vec::new());
            while !load.end.load(Ordering::Relaxed) {
                match round(&mut state, number) {
                    Ok(()) => load.done.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        failed.push(error);
                        load.failed.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
            failed
        };
        let failed: Vec<E> = thread::scope(|scope| {
            let client = &client;
            let clients: Vec<_> = (0..clients)
                .map(|number| scope.spawn(move || client(number)))
                .collect();
            let ends = Ends(&load);
            meanwhile(&load);
            drop(ends);
            let ended = clients.into_iter().map(|c| c.join().expect("a client"));
            ended.flatten().collect()
        });
        let done = load.done.into_inner();
        println!("{done} rounds done, {} failed", failed.len());
        failed
    }

    /// Waits until so many more rounds are done.
    pub fn wait_for_done(&self, count: usize) {
        Self::wait_for(&self.done, count, "work goes on");
    }

    /// Waits until so many more rounds have failed.
    pub fn wait_for_failed(&self, count: usize) {
        Self::wait_for(&self.failed, count, "rounds that fail");
    }

    fn wait_for(counter: &AtomicUsize, count: usize, what: &str) {
        let before = counter.load(Ordering::Relaxed);
        eventually(what, || {
            (counter.load(Ordering::Relaxed) >= before + count).then_some(())
        });
    }
}

/// Ends the clients' loops, also where the test has failed.
struct Ends<'a>(&'a Load);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end.store(true, Ordering::Relaxed);
    }
}
