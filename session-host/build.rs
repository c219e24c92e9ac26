//! Hands the page's scripts to `include_str!`. Never runs npm: `make page` does.
use std::{env, fs, path::Path};

#[expect(clippy::disallowed_methods, reason = "this is how cargo tells a build script where it is")]
fn main() {
    println!("cargo::rerun-if-changed=page/dist"); // a committed .gitkeep keeps the folder: a missing path would re-run this for ever
    let out = env::var("OUT_DIR").expect("set by cargo");
    for name in ["gate.js", "driver.js"] {
        let text = fs::read_to_string(Path::new("page/dist").join(name)).unwrap_or_default();
        if text.is_empty() {
            let help = format!("session-host/page/dist/{name} is missing: run `make page` (node 20+ and npm)");
            match env::var("PROFILE").as_deref() {
                Ok("release") => println!("cargo::error={help}"),
                _ => println!("cargo::warning={help}; this build cannot start sessions"),
            }
        }
        fs::write(Path::new(&out).join(name), text).expect("OUT_DIR is writable");
    }
}
