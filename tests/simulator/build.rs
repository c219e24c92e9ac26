//! Lists the page's scripts in the order of `page/ORDER`.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=page");
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("page");
    let order = fs::read_to_string(folder.join("ORDER")).expect("page/ORDER is readable");
    let entries: String = order
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|name| format!("({name:?}, include_str!({:?})),", folder.join(name).display().to_string()))
        .collect();
    let text = format!("/// The page's scripts: name and text.\npub static SCRIPTS: &[(&str, &str)] = &[{entries}];\n");
    fs::write(Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("scripts.rs"), text).expect("OUT_DIR is writable");
}
