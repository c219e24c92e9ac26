//! Browsers and their drivers among all processes.

use std::path::Path;

use harness::process;

fn says(pid: u32, part: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(part))
}

/// The chromedrivers of a host proper.
pub(super) fn drivers(host: u32) -> Vec<u32> {
    process::children(host).into_iter().filter(|pid| says(*pid, "chromedriver")).collect()
}

/// The renderers below a browser.
pub(super) fn renderers(browser: u32) -> Vec<u32> {
    let (mut tree, mut next) = (vec![browser], 0);
    while let Some(parent) = tree.get(next) {
        tree.extend(process::children(*parent));
        next += 1;
    }
    tree.retain(|pid| says(*pid, "--type=renderer"));
    tree
}

/// What still runs on the hosts' directory.
pub(super) fn below(data: &Path) -> Vec<String> {
    let all = process::with_argument(&data.display().to_string());
    all.into_iter().map(|pid| format!("process {pid} on {}", data.display())).collect()
}
