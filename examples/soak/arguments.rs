//! What the command line says.

use std::time::Duration;

#[derive(Clone, Copy)]
pub(crate) struct Arguments {
    pub(crate) span: Duration,
    pub(crate) seed: u64,
    pub(crate) leak: Option<Leak>,
}

/// What is held on to on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leak {
    Task,
    Handle,
    Socket,
    Heap,
}

impl Arguments {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, &'static str> {
        let mut read = Self { span: Duration::from_secs(60), seed: fastrand::u64(..1_000_000), leak: None };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            let number = || value.parse::<u64>().map_err(|_| USAGE);
            match (&*name, &*value) {
                ("--minutes", _) => read.span = Duration::from_secs(number()?.checked_mul(60).ok_or(USAGE)?),
                ("--seconds", _) => read.span = Duration::from_secs(number()?),
                ("--seed", _) => read.seed = number()?,
                ("--leak", "task") => read.leak = Some(Leak::Task),
                ("--leak", "handle") => read.leak = Some(Leak::Handle),
                ("--leak", "socket") => read.leak = Some(Leak::Socket),
                ("--leak", "heap") => read.leak = Some(Leak::Heap),
                _ => return Err(USAGE),
            }
        }
        Ok(read)
    }
}

const USAGE: &str = "usage: soak [--minutes N | --seconds N] [--seed S] [--leak task|handle|socket|heap]";
