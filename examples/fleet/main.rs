//! A hundred thousand users' tokens live through two hours without their identity provider, in virtual time.
//!
//! ```sh
//! cargo run --release --example fleet                    # about a minute; draws target/fleet.svg
//! cargo run --example fleet -- --sources 2000            # some seconds
//! cargo run --release --example fleet -- --svg load.svg --seed 7
//! ```
//!
//! Users come every five minutes on the average, and each time four requests need a token. Tokens live for an hour. The provider
//! serves 2,000 exchanges a second (in proportion, for a smaller fleet) and turns the rest away. It is down from 1:00 to 3:00.
//! Three ways to bear that:
//!
//! - *per caller*: a request without a token gets one, and tries three times, a second apart;
//! - *single flight*: the requests of one user share that;
//! - *steadfast*: this crate's registry, provider and monitors, the real ones, over a source that sleeps.
//!
//! The same seed prints the same. The exit code says whether the promises hold.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]
#![allow(clippy::disallowed_methods, reason = "it lives on a virtual clock")]
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a simulation that cannot go on has failed")]

mod callers;
mod idp;
mod lazy;
mod plot;
mod report;
mod steadfast_fleet;
#[path = "../support/terminal.rs"]
mod terminal;

use std::{path::PathBuf, process::ExitCode};

use report::Scene;
use terminal::{Paint, hanging};

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(usage) => {
            eprintln!("{}", hanging("fleet: ", &usage));
            return ExitCode::from(2);
        }
    };
    let scene = Scene { sources: arguments.sources, seed: arguments.seed };
    println!("{}", report::intro(&scene).trim_end());
    let fleet = steadfast_fleet::run(&scene, arguments.help);
    let records = [lazy::run(&scene, lazy::Sharing::None), lazy::run(&scene, lazy::Sharing::PerSource), fleet.record];
    print!("{}", report::tables(Paint::of_stdout(), &records));
    if let Some(path) = arguments.svg.parent() {
        let _ = std::fs::create_dir_all(path);
    }
    if let Err(error) = std::fs::write(&arguments.svg, plot::svg(&scene, &records)) {
        eprintln!("fleet: {}: {error}", arguments.svg.display());
        return ExitCode::FAILURE;
    }
    println!("\n{}\n", hanging("", &format!("The load over time is drawn in {}", arguments.svg.display())));
    let mut broken = report::broken_promises(&scene, &records[2], &fleet.end);
    let small = Scene { sources: 500, ..scene };
    if steadfast_fleet::run(&small, true).record != steadfast_fleet::run(&small, true).record {
        broken.push("the same seed came to something else".into());
    }
    print!("{}", Paint::of_stdout().verdict(&broken, report::HELD));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Arguments {
    sources: u32,
    seed: u64,
    svg: PathBuf,
    /// The registry knows the provider, and tells its sources when it has healed.
    help: bool,
}

impl Arguments {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut read = Self { sources: 100_000, seed: 1, svg: "target/fleet.svg".into(), help: true };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--sources" => read.sources = number(&value()?)?,
                "--seed" => read.seed = number(&value()?)?,
                "--svg" => read.svg = value()?.into(),
                "--without-help" => read.help = false,
                _ => return Err(format!("{name}? write [--sources N] [--seed N] [--svg PATH] [--without-help]")),
            }
        }
        Ok(read)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}
