//! What a person sees while something takes time.
//!
//! On a terminal each running step is a line with a spinner and its elapsed time; when it ends it stays as one plain
//! line. Elsewhere (CI, a pipe) only those plain lines appear, and steps that take longer than half a minute say every
//! half minute that they are still at it. Everything goes to standard error: standard output belongs to results.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use owo_colors::{OwoColorize as _, Stream};

/// The display of one run of the program.
#[derive(Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
    start: Instant,
    quiet: bool,
}

impl Progress {
    /// `quiet` shows nothing at all (for `-o json`).
    pub fn new(quiet: bool) -> Self {
        Self {
            bars: (!quiet && std::io::stderr().is_terminal()).then(MultiProgress::new),
            start: Instant::now(),
            quiet,
        }
    }

    /// Time since the program started.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Begin a step.
    pub fn step(&self, what: impl Into<String>) -> Step {
        let what = what.into();
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {elapsed:>4} {msg}") {
                bar.set_style(style);
            }
            bar.set_message(what.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let over = Arc::new(AtomicBool::new(false));
        let step = Step {
            what: Arc::new(Mutex::new(what)),
            bar,
            start: Instant::now(),
            progress: self.clone(),
            over: Arc::clone(&over),
        };
        if !self.quiet && self.bars.is_none() {
            let words = Arc::clone(&step.what);
            let start = step.start;
            std::thread::spawn(move || remind(&words, start, &over));
        }
        step
    }

    /// Do something as a step: its line tells the time it took, or that it failed.
    pub fn run<T>(
        &self,
        what: &str,
        work: impl FnOnce(&Step) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let step = self.step(what);
        match work(&step) {
            Ok(value) => {
                step.done();
                Ok(value)
            }
            Err(error) => {
                step.failed();
                Err(error)
            }
        }
    }

    /// A line between steps.
    pub fn say(&self, line: &str) {
        if self.quiet {
            return;
        }
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(line);
            }
            None => eprintln!("{line}"),
        }
    }

    fn line(&self, sign: &str, took: Duration, what: &str) {
        self.say(&format!("  {sign} {:>6.1} s  {what}", took.as_secs_f64()));
    }
}

fn remind(words: &Mutex<String>, start: Instant, over: &AtomicBool) {
    let every = Duration::from_secs(30);
    let mut next = every;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(500));
        if start.elapsed() >= next && !over.load(Ordering::Relaxed) {
            let what = words.lock().map(|w| w.clone()).unwrap_or_default();
            eprintln!("  … {:>6.1} s  {what}", start.elapsed().as_secs_f64());
            next += every;
        }
    }
}

/// One running step.
pub struct Step {
    what: Arc<Mutex<String>>,
    bar: Option<ProgressBar>,
    start: Instant,
    progress: Progress,
    over: Arc<AtomicBool>,
}

impl Step {
    /// Change the words.
    pub fn now(&self, what: impl Into<String>) {
        let what = what.into();
        if let Some(bar) = &self.bar {
            bar.set_message(what.clone());
        }
        if let Ok(mut words) = self.what.lock() {
            *words = what;
        }
    }

    /// It went well.
    pub fn done(self) {
        let sign = "✓"
            .if_supports_color(Stream::Stderr, |s| s.green())
            .to_string();
        self.end(&sign);
    }

    /// It did not; the error itself is printed by `main`.
    pub fn failed(self) {
        let sign = "✗"
            .if_supports_color(Stream::Stderr, |s| s.red())
            .to_string();
        self.end(&sign);
    }

    fn end(self, sign: &str) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let what = self.what.lock().map(|w| w.clone()).unwrap_or_default();
        self.progress.line(sign, self.start.elapsed(), &what);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
