//! docs/reliability.md names a test for every fault point; this holds it to that.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of every Rust source of ours.
fn sources() -> Vec<String> {
    let mut folders: Vec<_> = ["jobs", "api", "session-host", "tests"].map(|folder| repository().join(folder)).into();
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it is readable").map(|entry| entry.expect("it is readable").path()) {
            if entry.is_dir() && !entry.ends_with("node_modules") {
                folders.push(entry);
            } else if entry.extension().is_some_and(|kind| kind == "rs") {
                texts.push(fs::read_to_string(entry).expect("it is text"));
            }
        }
    }
    texts
}

/// What stands between backquotes in a cell.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The tests that a row names: in its last cell, or in a wide table in every cell but the first.
fn tests<'a>(row: &[&'a str]) -> Vec<&'a str> {
    let first = if row.len() > 4 { 1 } else { row.len() - 1 };
    row[first..].iter().flat_map(|cell| quoted(cell)).collect()
}

#[test]
fn every_row_of_the_reliability_page_names_tests_that_exist_and_every_fault_point_has_a_row() {
    let page = fs::read_to_string(repository().join("docs/reliability.md")).expect("the page is there");
    let sources = sources();
    let rows: Vec<Vec<&str>> =
        page.lines().filter(|line| line.starts_with("| ")).map(|line| line.trim_matches('|').split('|').collect()).collect();
    let rows: Vec<_> = rows.into_iter().filter(|row| !tests(row).is_empty()).collect();
    assert!(rows.len() > 20, "the tables are found");
    for row in &rows {
        for test in tests(row) {
            let declared = format!("fn {test}(");
            assert!(sources.iter().any(|source| source.contains(&declared)), "docs/reliability.md names {test}, which no source declares");
        }
    }
    let named: Vec<&str> = rows.iter().flat_map(|row| quoted(row[0])).collect();
    for source in &sources {
        // The name follows the macro's opening, on its line or the next.
        for rest in source.split(concat!("fault_point", "!(")).skip(1) {
            let Some(point) = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) else { continue };
            assert!(named.contains(&point), "docs/reliability.md has no row for the fault point {point}");
        }
    }
}
