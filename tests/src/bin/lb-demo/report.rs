//! What the demo prints: progress with timings, commands, and what holds or does not.

use std::process::ExitCode;
use std::time::Instant;

/// Collects what did not hold.
#[derive(Debug)]
pub struct Report {
    start: Instant,
    failures: Vec<String>,
    checks: usize,
}

impl Report {
    /// Starts the clock.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            failures: Vec::new(),
            checks: 0,
        }
    }

    /// A new act.
    pub fn act(&self, title: &str) {
        println!("\n[{:5.1} s] {title}", self.start.elapsed().as_secs_f64());
    }

    /// A line of an act.
    pub fn line(&self, text: impl AsRef<str>) {
        for line in text.as_ref().lines() {
            println!("          {line}");
        }
    }

    /// States something and whether it holds.
    pub fn check(&mut self, holds: bool, what: impl Into<String>) {
        let what = what.into();
        self.checks += 1;
        println!("          {}  {what}", mark(holds));
        if !holds {
            self.failures.push(what);
        }
    }

    /// The last words and the exit code.
    pub fn conclude(&self) -> ExitCode {
        let seconds = self.start.elapsed().as_secs_f64();
        println!();
        for failure in &self.failures {
            println!("did not hold: {failure}");
        }
        let held = self.checks - self.failures.len();
        println!("{held} of {} checks held, in {seconds:.1} s", self.checks);
        if self.failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// A word for whether something holds.
pub fn mark(holds: bool) -> &'static str {
    if holds { "ok " } else { "OFF" }
}
