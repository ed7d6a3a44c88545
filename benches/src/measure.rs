//! Wall time, CPU time, resident memory, and what several rounds say together.

use anyhow::{Context as _, Result};
pub(crate) use fusion_sim::meter::{Cost, Meter};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Several rounds of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rounds {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    count: usize,
}

impl Rounds {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let (count, last) = (sorted.len(), sorted.len().saturating_sub(1));
        Self { median: (at(last / 2) + at(last.div_ceil(2))) / 2.0, least: at(0), most: at(last), count }
    }

    /// For the conditions of a row.
    pub(crate) fn range(&self) -> String {
        format!("median of {} ({:.4} to {:.4})", self.count, self.least, self.most)
    }
}

/// The slope of a straight line through (log x, log y): how y grows with x.
pub(crate) fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / n;
    let (mean_x, mean_y) = (mean(|p| p.0), mean(|p| p.1));
    let over: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    over / logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}

/// Resident memory of a process in kilobytes, of 1,000 bytes.
pub(crate) fn resident_kb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} cannot be looked into"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1.024)
}

/// Memory that a new process can have without swapping, in kilobytes, of 1,000 bytes.
pub(crate) fn available_kb() -> Result<f64> {
    let told = std::fs::read_to_string("/proc/meminfo").context("how much memory is free is not told")?;
    let line = told.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1.024)
}

/// CPU time of a process so far, all its threads, in seconds.
pub(crate) fn cpu_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} cannot be looked into"))?;
    // The second field is the name in brackets and may hold anything.
    let (_, rest) = stat.rsplit_once(')').context("no process name")?;
    let ticks: Vec<f64> = rest.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    Ok(ticks.iter().sum::<f64>() / rustix::param::clock_ticks_per_second() as f64)
}

/// The cores that this process may run on.
pub(crate) fn cores() -> Vec<usize> {
    let all = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect()
}

/// Keeps this thread, and the threads and processes that it starts from now on, on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("core {core} cannot be had"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(Rounds::of([3.0, 1.0, 2.0]).median, 2.0);
        let even = Rounds::of([4.0, 1.0, 2.0, 3.0]);
        assert_eq!((even.median, even.least, even.most), (2.5, 1.0, 4.0));
    }

    #[test]
    fn a_square_has_the_exponent_two() {
        let points: Vec<_> = [1.0, 10.0, 100.0].map(|x: f64| (x, 3.0 * x * x)).to_vec();
        assert!((exponent(&points) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn this_very_process_has_memory_and_has_used_its_core() {
        let pid = std::process::id();
        let meter = Meter::start();
        let mut sum = 0_u64;
        while meter.elapsed().cpu_s < 0.03 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0 && resident_kb(pid).unwrap() > 500.0);
        assert!(cpu_s(pid).unwrap() > 0.0);
    }
}
