//! The migrations are compiled in; a new file must rebuild them.
fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
}
