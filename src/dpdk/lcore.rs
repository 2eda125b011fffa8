//! Worker threads that the EAL made and pinned.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::{DpdkError, check};
use super::ffi;

/// An idle worker lcore. Launching consumes it, joining gives it back.
#[derive(Debug, PartialEq, Eq)]
pub struct Lcore {
    id: u32,
}

impl Lcore {
    pub(super) fn new(id: u32) -> Self {
        Self { id }
    }

    /// Runs `job` on this lcore until it returns.
    pub fn launch<T: Send + 'static>(
        self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<RunningLcore<T>, DpdkError> {
        let task: Box<Task<T>> = Box::new(Task { job: Some(Box::new(job)), outcome: None });
        let task = Box::into_raw(task);
        // SAFETY: `task` is a valid, uniquely owned allocation that lives until `join` takes it back,
        // and the lcore only touches it between launch and wait.
        let code = unsafe { ffi::rte_eal_remote_launch(Some(run::<T>), task.cast(), self.id) };
        if let Err(error) = check(code, || format!("launching a worker on lcore {}", self.id)) {
            // SAFETY: the launch failed, so nobody else has the pointer.
            drop(unsafe { Box::from_raw(task) });
            return Err(error);
        }
        Ok(RunningLcore { id: self.id, task })
    }
}

/// A job on its way. Must be joined; dropping it waits for the job.
#[derive(Debug)]
pub struct RunningLcore<T> {
    id: u32,
    task: *mut Task<T>,
}

impl<T> RunningLcore<T> {
    /// Waits for the job. `Err` carries the panic message.
    pub fn join(mut self) -> (Lcore, Result<T, String>) {
        let outcome = self.wait().unwrap_or_else(|| Err("the worker did not run".into()));
        (Lcore::new(self.id), outcome)
    }

    fn wait(&mut self) -> Option<Result<T, String>> {
        if self.task.is_null() {
            return None;
        }
        // SAFETY: the lcore was launched by us; waiting is allowed from the thread that owns this value.
        unsafe { ffi::rte_eal_wait_lcore(self.id) };
        // SAFETY: the job has returned, so this is the only pointer to the task again; it came from
        // Box::into_raw in `launch`, and null afterwards prevents a second take.
        let task = unsafe { Box::from_raw(self.task) };
        self.task = std::ptr::null_mut();
        task.outcome
    }
}

impl<T> Drop for RunningLcore<T> {
    fn drop(&mut self) {
        let _ = self.wait();
    }
}

struct Task<T> {
    job: Option<Box<dyn FnOnce() -> T + Send>>,
    outcome: Option<Result<T, String>>,
}

unsafe extern "C" fn run<T>(task: *mut c_void) -> c_int {
    // SAFETY: `launch` passed a valid Task<T> that nobody else touches while the job runs.
    let task = unsafe { &mut *task.cast::<Task<T>>() };
    let Some(job) = task.job.take() else { return -1 };
    // A panic must not unwind into C; it is reported to whoever joins.
    task.outcome = Some(catch_unwind(AssertUnwindSafe(job)).map_err(|payload| panic_text(&*payload)));
    0
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".into())
}
