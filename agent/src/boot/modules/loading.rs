//! Loads several modules at the same time, because most of the time is spent waiting for hardware
//! and checking signatures.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;

use super::Module;

/// Most threads.
const THREADS: usize = 4;
/// Stack size of a thread, bytes.
const STACK: usize = 64 << 10;

/// The result of loading a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadOutcome {
    /// It was loaded.
    Loaded,
    /// It was loaded before, or is built in.
    ThereBefore,
    /// Its hardware does not exist, such as a processor's SHA instructions or another hypervisor's
    /// bus; or a module that it depends on is absent.
    Absent,
    /// The kernel refused it.
    Failed(Errno),
}

struct LoadQueue<'a> {
    /// For each module, whether a thread has started to load it.
    started: Vec<bool>,
    /// For each module, the result once it is known.
    outcomes: Vec<Option<LoadOutcome>>,
    /// Names of modules for hardware that this machine does not have.
    absent: &'a mut BTreeSet<String>,
}

/// Runs `load` for each module, after the modules that it depends on or follows. Returns the
/// results.
pub fn load_in_order(
    modules: &[Module],
    absent: &mut BTreeSet<String>,
    load: &(dyn Fn(&Module) -> LoadOutcome + Sync),
) -> Vec<LoadOutcome> {
    let state = Mutex::new(LoadQueue {
        started: vec![false; modules.len()],
        outcomes: vec![None; modules.len()],
        absent,
    });
    let changed = Condvar::new();
    let work = || {
        // A thread that panics ends the boot. The state is consistent even then, because each
        // change is a single step.
        let mut now = state.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(first) = now.started.iter().position(|started| !started) {
            // If all of them wait for each other, the list has a loop; then the first module is
            // tried.
            let ready = (first..modules.len())
                .find(|&index| now.is_ready(modules, index))
                .or_else(|| (!now.is_anything_being_loaded()).then_some(first));
            let Some(index) = ready else {
                now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            now.started[index] = true;
            let module = &modules[index];
            // Loading it would only make the kernel log each missing symbol.
            let outcome = if module
                .needs
                .iter()
                .any(|needed| now.absent.contains(needed))
            {
                LoadOutcome::Absent
            } else {
                drop(now);
                let outcome = load(module);
                now = state.lock().unwrap_or_else(PoisonError::into_inner);
                outcome
            };
            now.outcomes[index] = Some(outcome);
            if !matches!(outcome, LoadOutcome::Loaded | LoadOutcome::ThereBefore) {
                now.absent.insert(module.name.clone());
            }
            changed.notify_all();
        }
    };
    thread::scope(|scope| {
        // If a thread can't be started, the other threads do its work.
        let others: Vec<_> = (1..THREADS.min(modules.len()))
            .filter_map(|_| {
                thread::Builder::new()
                    .stack_size(STACK)
                    .spawn_scoped(scope, work)
                    .ok()
            })
            .collect();
        work();
        for other in others {
            let _ = other.join();
        }
    });
    let outcomes = state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .outcomes;
    outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or(LoadOutcome::Absent))
        .collect()
}

impl LoadQueue<'_> {
    fn is_ready(&self, modules: &[Module], index: usize) -> bool {
        let module = &modules[index];
        let is_done = |name: &String| {
            (0..modules.len())
                .all(|other| modules[other].name != *name || self.outcomes[other].is_some())
        };
        !self.started[index] && module.needs.iter().chain(&module.after).all(is_done)
    }

    fn is_anything_being_loaded(&self) -> bool {
        self.started
            .iter()
            .zip(&self.outcomes)
            .any(|(started, outcome)| *started && outcome.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(lines: &[&str]) -> Vec<Module> {
        lines
            .iter()
            .filter_map(|line| Module::parse(line))
            .collect()
    }

    fn order(
        modules: &[Module],
        absent: &mut BTreeSet<String>,
        fails: &[&str],
    ) -> (Vec<String>, Vec<LoadOutcome>) {
        let order = Mutex::new(Vec::new());
        let outcomes = load_in_order(modules, absent, &|module| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            order.lock().unwrap().push(module.name.clone());
            if fails.contains(&module.name.as_str()) {
                LoadOutcome::Absent
            } else {
                LoadOutcome::Loaded
            }
        });
        (order.into_inner().unwrap(), outcomes)
    }

    #[test]
    fn loads_each_module_after_its_dependencies() {
        let lines = [
            "/m/a.ko",
            "/m/b.ko a",
            "/m/c-1.ko ~b",
            "/m/d.ko",
            "/m/e.ko c_1 d",
            "/m/f.ko ~not_in_the_list gone",
        ];
        let modules = modules(&lines);
        for _ in 0..20 {
            let (order, outcomes) = order(&modules, &mut BTreeSet::new(), &[]);
            let place = |name: &str| order.iter().position(|other| other == name).unwrap();
            assert!(
                place("a") < place("b")
                    && place("b") < place("c_1")
                    && place("c_1") < place("e")
                    && place("d") < place("e"),
                "{order:?}"
            );
            assert_eq!(outcomes, [LoadOutcome::Loaded; 6]);
        }
    }

    #[test]
    fn skips_modules_with_absent_dependencies() {
        let modules = modules(&["/m/a.ko", "/m/b.ko a", "/m/c.ko b", "/m/d.ko ~a"]);
        let mut absent = BTreeSet::new();
        let (order, outcomes) = order(&modules, &mut absent, &["a"]);
        assert_eq!(order, ["a", "d"]);
        assert_eq!(
            outcomes,
            [
                LoadOutcome::Absent,
                LoadOutcome::Absent,
                LoadOutcome::Absent,
                LoadOutcome::Loaded
            ]
        );
        assert_eq!(absent.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn ends_with_a_list_that_has_a_dependency_loop() {
        let modules = modules(&["/m/a.ko b", "/m/b.ko a", "/m/c.ko ~c"]);
        assert_eq!(
            order(&modules, &mut BTreeSet::new(), &[]).1,
            [LoadOutcome::Loaded; 3]
        );
        assert_eq!(
            load_in_order(&[], &mut BTreeSet::new(), &|_| LoadOutcome::Loaded),
            []
        );
    }
}
