//! A pool of worker threads that takes jobs in order and delivers their results in the same order.
//!
//! The amount of work in flight is bounded: a job is in flight from the moment a thread takes it
//! until its result has been consumed. A worker that panics ends the whole run with an error.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::{Error, Result};

/// How many threads work, and how much may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderedPool {
    /// Worker threads; 0 counts as 1.
    pub threads: usize,
    /// No thread takes another job while the costs in flight add up to this or more. The unit is
    /// the caller's. 0 counts as 1, so that there is always one job to wait for.
    pub in_flight: u64,
}

/// A job and what it adds to the work in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job<J> {
    /// In the unit of [`OrderedPool::in_flight`].
    pub cost: u64,
    /// What the worker gets.
    pub work: J,
}

impl OrderedPool {
    /// Gives each job to one of the workers, and their results to `consume`, on the calling thread
    /// and in the order of the jobs.
    ///
    /// Each thread makes its own worker with `make_worker`, which gets the thread's number. The
    /// first error ends the run: the worker's, `consume`'s, or that of `make_worker`.
    pub fn map<J, T, W>(
        self,
        jobs: impl Iterator<Item = Job<J>> + Send,
        make_worker: impl Fn(usize) -> Result<W> + Sync,
        mut consume: impl FnMut(T) -> Result<()>,
    ) -> Result<()>
    where
        T: Send,
        W: FnMut(J) -> Result<T>,
    {
        let shared = Shared {
            state: Mutex::new(PoolState::new(jobs)),
            changed: Condvar::new(),
            in_flight: self.in_flight.max(1),
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads.max(1))
                .map(|number| {
                    let (shared, make_worker) = (&shared, &make_worker);
                    scope.spawn(move || shared.work(|| make_worker(number)))
                })
                .collect();
            // Also when `consume` panics: otherwise the scope would wait for threads that wait.
            let stop = StopOnDrop(&shared);
            let result = shared.deliver(&mut consume);
            drop(stop);
            // A panic that nobody takes from its thread would make the scope panic, too.
            let panicked = threads
                .into_iter()
                .fold(false, |panicked, thread| thread.join().is_err() | panicked);
            match result {
                Ok(()) if panicked => Err(panic_error()),
                other => other,
            }
        })
    }
}

fn panic_error() -> Error {
    Error::new("a worker thread panicked; this is a bug in adamant")
        .hint("report it with the message above")
}

/// What the threads share.
struct Shared<I, T> {
    state: Mutex<PoolState<I, T>>,
    /// Signalled at every change of the state.
    changed: Condvar,
    in_flight: u64,
}

struct PoolState<I, T> {
    /// Jobs that no thread has taken yet.
    jobs: I,
    /// Number of jobs taken so far, which is the next job's number.
    taken: u64,
    /// Costs of jobs that were taken and not yet consumed.
    in_flight: u64,
    /// Results that wait for their turn, by job number, each with the job's cost.
    done: BTreeMap<u64, (u64, Result<T>)>,
    /// There are no more jobs.
    exhausted: bool,
    /// No thread takes another job.
    stop: bool,
    /// A worker panicked: the result of its job never comes.
    panicked: bool,
}

impl<I, T> PoolState<I, T> {
    fn new(jobs: I) -> PoolState<I, T> {
        PoolState {
            jobs,
            taken: 0,
            in_flight: 0,
            done: BTreeMap::new(),
            exhausted: false,
            stop: false,
            panicked: false,
        }
    }
}

impl<I, T> Shared<I, T> {
    /// A panic cannot leave the state half changed, but in `jobs`, which is not asked again.
    fn lock(&self) -> MutexGuard<'_, PoolState<I, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, PoolState<I, T>>) -> MutexGuard<'s, PoolState<I, T>> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread: takes jobs until there are no more.
    fn work<J, W>(&self, make_worker: impl FnOnce() -> Result<W>)
    where
        I: Iterator<Item = Job<J>>,
        W: FnMut(J) -> Result<T>,
    {
        let _watch = PanicWatch(self);
        let mut worker = match make_worker() {
            Ok(worker) => worker,
            Err(error) => {
                // The error takes the place of the next job's result.
                if let Some((number, job)) = self.take() {
                    self.finish(number, job.cost, Err(error));
                }
                return;
            }
        };
        while let Some((number, job)) = self.take() {
            let result = worker(job.work);
            self.finish(number, job.cost, result);
        }
    }

    /// Waits until there is room for a job, and takes it with its number.
    fn take<J>(&self) -> Option<(u64, Job<J>)>
    where
        I: Iterator<Item = Job<J>>,
    {
        let mut state = self.lock();
        while !state.stop && !state.exhausted && state.in_flight >= self.in_flight {
            state = self.wait(state);
        }
        if state.stop || state.exhausted {
            return None;
        }
        let Some(job) = state.jobs.next() else {
            state.exhausted = true;
            drop(state);
            self.changed.notify_all();
            return None;
        };
        let number = state.taken;
        state.taken += 1;
        state.in_flight = state.in_flight.saturating_add(job.cost);
        Some((number, job))
    }

    fn finish(&self, number: u64, cost: u64, result: Result<T>) {
        self.lock().done.insert(number, (cost, result));
        self.changed.notify_all();
    }

    /// Gives the results to `consume`, in order.
    fn deliver(&self, consume: &mut dyn FnMut(T) -> Result<()>) -> Result<()> {
        for number in 0.. {
            let mut state = self.lock();
            let (cost, result) = loop {
                if let Some(done) = state.done.remove(&number) {
                    break done;
                }
                if state.panicked {
                    return Err(panic_error());
                }
                if state.exhausted && state.taken == number {
                    return Ok(());
                }
                state = self.wait(state);
            };
            drop(state);
            consume(result?)?;
            let mut state = self.lock();
            state.in_flight = state.in_flight.saturating_sub(cost);
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }
}

/// Ends the threads.
struct StopOnDrop<'a, I, T>(&'a Shared<I, T>);

impl<I, T> Drop for StopOnDrop<'_, I, T> {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.changed.notify_all();
    }
}

/// Tells the other threads when this one panics, since they would wait for its result forever.
struct PanicWatch<'a, I, T>(&'a Shared<I, T>);

impl<I, T> Drop for PanicWatch<'_, I, T> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut state = self.0.lock();
            (state.panicked, state.stop) = (true, true);
            drop(state);
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// What a worker does with a job of the property tests.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        Succeed,
        Sleep,
        Fail,
        Panic,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            20 => Just(Action::Succeed),
            5 => Just(Action::Sleep),
            1 => Just(Action::Fail),
            1 => Just(Action::Panic),
        ]
    }

    fn perform(action: Action) -> Result<()> {
        match action {
            Action::Succeed => Ok(()),
            Action::Sleep => {
                thread::sleep(std::time::Duration::from_micros(300));
                Ok(())
            }
            Action::Fail => Err(Error::new("failed as asked")),
            // Without the message that a panic hook prints.
            Action::Panic => std::panic::resume_unwind(Box::new("as asked")),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn results_come_in_order_and_the_work_in_flight_is_bounded(
            jobs in prop::collection::vec((action(), 0u64..10), 0..60),
            threads in 0usize..6,
            limit in 0u64..20,
            stop_after in 0usize..80,
        ) {
            let (in_flight, largest) = (AtomicU64::new(0), AtomicU64::new(0));
            let costs = jobs.iter().enumerate().map(|(number, (action, cost))| {
                let before = in_flight.fetch_add(*cost, Ordering::SeqCst);
                largest.fetch_max(before, Ordering::SeqCst);
                Job { cost: *cost, work: (number, *action, *cost) }
            });
            let mut seen = Vec::new();
            let result = OrderedPool { threads, in_flight: limit }.map(
                costs,
                |_| Ok(|(number, action, cost): (usize, Action, u64)| perform(action).map(|()| (number, cost))),
                |(number, cost)| {
                    if seen.len() == stop_after {
                        return Err(Error::new("consumer stops"));
                    }
                    seen.push(number);
                    in_flight.fetch_sub(cost, Ordering::SeqCst);
                    Ok(())
                },
            );
            // In order, without a gap.
            prop_assert!(seen.iter().copied().eq(0..seen.len()));
            // A job is taken only while less than the limit is in flight.
            prop_assert!(largest.load(Ordering::SeqCst) < limit.max(1));
            let bad = jobs.iter().position(|(action, _)| matches!(action, Action::Fail | Action::Panic));
            match result {
                Ok(()) => prop_assert!(bad.is_none() && seen.len() == jobs.len() && seen.len() <= stop_after),
                Err(error) if error.message() == "consumer stops" => prop_assert_eq!(seen.len(), stop_after),
                Err(error) if error.message() == "failed as asked" => {
                    prop_assert_eq!(jobs[seen.len()].0, Action::Fail);
                }
                // A panic may overtake results of jobs before it, but never comes after it.
                Err(error) => {
                    prop_assert!(error.message().contains("panicked"), "{}", error);
                    let first = jobs.iter().position(|(action, _)| *action == Action::Panic);
                    prop_assert!(first.is_some_and(|first| seen.len() <= first));
                }
            }
        }
    }

    #[test]
    fn an_error_of_making_a_worker_ends_the_run_with_its_remedy() {
        let jobs = (0..10u64).map(|work| Job { cost: 1, work });
        let make = |number: usize| match number {
            0 => Ok(Ok::<u64, Error>),
            _ => Err(Error::new("no memory").hint("buy some")),
        };
        let alone = OrderedPool {
            threads: 1,
            in_flight: 2,
        };
        let mut sum = 0;
        alone
            .map(jobs.clone(), make, |n| {
                sum += n;
                Ok(())
            })
            .unwrap();
        assert_eq!(sum, 45);
        let none = |_: usize| Err::<fn(u64) -> Result<u64>, _>(make(1).err().unwrap());
        let error = alone.map(jobs, none, |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "no memory\n  buy some");
    }

    #[test]
    fn a_consumer_that_panics_does_not_leave_threads_waiting() {
        let jobs = (0..1000u64).map(|work| Job { cost: 1, work });
        let pool = OrderedPool {
            threads: 3,
            in_flight: 4,
        };
        let panic = std::panic::catch_unwind(|| {
            pool.map(
                jobs,
                |_| Ok(Ok::<u64, Error>),
                |_| std::panic::resume_unwind(Box::new("consumer")),
            )
        });
        assert!(panic.is_err());
    }
}
