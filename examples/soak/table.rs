//! What is printed: a row for each rest, and the verdict.

use std::{fmt, time::Duration};

use crate::{reading::Reading, terminal::Paint};

pub(crate) struct Row {
    pub(crate) at: Duration,
    pub(crate) upstream: u64,
    pub(crate) served: u64,
    pub(crate) failed: u64,
    pub(crate) without_token: u64,
    pub(crate) hung_up: u64,
    pub(crate) reading: Reading,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, upstream, served, failed, without_token, hung_up, reading } = self;
        let files = reading.files.map_or_else(|| "-".to_owned(), |files| files.to_string());
        write!(
            f,
            "{:>6} s{upstream:>10}{served:>9}{failed:>8}{without_token:>10}{hung_up:>9}{files:>7}{:>7}{:>8} KiB",
            at.as_secs(),
            reading.tasks,
            reading.heap / 1024,
        )
    }
}

pub(crate) fn verdict(broken: &[String]) {
    let held = "Nothing piled up, and everybody was served when it was quiet. No refresh token was sent again outside the \
                grace, no expired token was sent, and no two exchanges of one login were in flight at once";
    print!("{}", Paint::of_stdout().verdict(broken, held));
}

pub(crate) const HEAD: &str = "    time  upstream   served  failed  no token  hung up  files  tasks        heap";
