//! Each variable may also be given as `NAME_FILE`, the path of a file that holds it, as orchestrators mount secrets.

use std::{ffi::OsString, fs};

use clap::{Command, error::ErrorKind};

/// `args` (the program's name first) with one argument more for each `NAME_FILE` in the environment whose `NAME` the command, or the
/// subcommand that `args` lead to, reads.
///
/// # Errors
/// A file that cannot be read, and a variable that is given both ways.
pub fn with_files(
    command: &Command,
    mut args: Vec<OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<OsString>, clap::Error> {
    let mut read = Vec::new();
    for argument in leaf(command, args.get(1..).unwrap_or_default()).get_arguments() {
        let (Some(name), Some(long)) = (argument.get_env().and_then(|n| n.to_str()), argument.get_long()) else { continue };
        let Some(path) = env(&format!("{name}_FILE")) else { continue };
        let fail = |why: String| command.clone().error(ErrorKind::InvalidValue, why);
        if env(name).is_some() {
            return Err(fail(format!("{name} and {name}_FILE are both set")));
        }
        let value = fs::read_to_string(&path).map_err(|why| fail(format!("{name}_FILE: {}: {why}", path.display())))?;
        read.push(format!("--{long}={}", value.trim_end_matches(['\r', '\n'])).into());
    }
    args.append(&mut read);
    Ok(args)
}

fn leaf<'a>(command: &'a Command, args: &[OsString]) -> &'a Command {
    let mut found = command;
    for arg in args {
        match arg.to_str().and_then(|a| found.find_subcommand(a)) {
            Some(next) => found = next,
            None => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn read(env: &[(&str, &str)]) -> Result<Vec<OsString>, clap::Error> {
        let command = Command::new("x").subcommand(Command::new("serve").arg(Arg::new("redis").long("redis-url").env("REDIS_URL")));
        with_files(&command, ["x", "serve"].map(OsString::from).to_vec(), |n| {
            env.iter().find(|(name, _)| *name == n).map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn a_secret_may_lie_in_a_file_but_not_in_two_places() {
        let file = std::env::temp_dir().join(format!("zaguan-arguments-{}", std::process::id()));
        fs::write(&file, "redis://from-file\n").unwrap();
        let path = file.to_str().unwrap();
        assert_eq!(read(&[("REDIS_URL_FILE", path)]).unwrap().last().unwrap(), "--redis-url=redis://from-file");
        let why = read(&[("REDIS_URL_FILE", path), ("REDIS_URL", "x")]).unwrap_err().to_string();
        assert!(why.contains("REDIS_URL_FILE"), "{why}");
        fs::remove_file(&file).unwrap();
        assert!(read(&[("REDIS_URL_FILE", path)]).unwrap_err().to_string().contains("REDIS_URL_FILE"));
    }

    #[test]
    fn a_file_for_what_another_command_reads_is_left_alone() {
        assert_eq!(read(&[("OTHER_FILE", "/nowhere")]).unwrap().len(), 2);
    }
}
