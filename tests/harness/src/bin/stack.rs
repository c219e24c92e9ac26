//! `zaguan-stack`: what `make run`, `make stop` and `make sqlx` start.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use harness::{
    Error, Folder, Settings, Stack, Tenant, User,
    client::ApiClient,
    postgres::Postgres,
    process, random_word,
    services::{Host, Worker},
};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// How long a host may take to close its browsers.
const LEAVE_WITHIN: Duration = Duration::from_secs(20);

/// The whole of Zaguan on this machine, with private servers and a simulated WhatsApp.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs everything in the foreground; Ctrl-C ends it.
    Run {
        /// How many session hosts.
        #[arg(long, default_value_t = 1)]
        hosts: usize,
    },
    /// Ends what `run` started in this folder, and waits for it.
    Stop,
    /// Runs a command beside an installation of its own whose default session is linked: `API_URL`, `ACCESS_TOKEN`, `ADMIN_EMAIL`,
    /// `ADMIN_PASSWORD`, `PEER` (a phone to write to) and `SIMULATOR_URL` are set.
    Linked {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// Runs a command with `DATABASE_URL` of a private, migrated Postgres.
    Postgres {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Run { hosts } => run(hosts).await,
        Command::Stop => stop().await,
        Command::Linked { command } => linked(&command).await,
        Command::Postgres { command } => with_postgres(&command).await,
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("zaguan-stack: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_folder() -> PathBuf {
    PathBuf::from(".run")
}

async fn run(hosts: usize) -> Result<ExitCode, Error> {
    let here = run_folder();
    if let Some(pid) = running(&here) {
        return Err(format!("it runs already (process {pid}): `make stop` ends it").into());
    }
    // What a killed run left is files: its processes ended with it, and the folder they ran on goes when the next one is made.
    let _ = fs::remove_dir_all(&here);
    fs::create_dir_all(here.join("pids"))?;
    fs::create_dir_all(here.join("logs"))?;
    note(&here, "stack", std::process::id())?;
    let ours = Ours(&here);
    let mut stop = Stop::listen()?;
    let (mut stack, mut all, mut worker) = tokio::select! {
        started = start(&here, hosts) => started?,
        () = stop.asked() => return Ok(ExitCode::SUCCESS),
    };
    tokio::select! {
        () = stop.asked() => {}
        () = watch(&mut stack, &mut all, &mut worker) => {}
    }
    eprintln!("stopping");
    let _ = fs::remove_file(here.join("env"));
    tokio::select! {
        () = leave(&mut stack, &mut all, &mut worker) => {}
        () = stop.asked() => {}
    }
    drop((all, worker));
    drop(stack);
    drop(ours);
    Ok(ExitCode::SUCCESS)
}

/// What `.run` says of us, for as long as we live. The logs stay.
struct Ours<'a>(&'a Path);

impl Drop for Ours<'_> {
    fn drop(&mut self) {
        clear(self.0);
    }
}

/// Removes what says that something runs.
fn clear(here: &Path) {
    let _ = fs::remove_dir_all(here.join("pids"));
    for file in ["env", "started"] {
        let _ = fs::remove_file(here.join(file));
    }
}

/// Hosts first, for they need the others to leave in order; a second Ctrl-C does not wait for them.
async fn leave(stack: &mut Stack, hosts: &mut [Host], worker: &mut Worker) {
    for host in hosts.iter() {
        host.process.signal(Signal::TERM);
    }
    for host in hosts {
        host.process.wait(LEAVE_WITHIN).await;
    }
    worker.process.stop(Duration::from_secs(5)).await;
    stack.api.process.stop(Duration::from_secs(5)).await;
}

/// Ctrl-C, `make stop`, a closed terminal.
struct Stop([tokio::signal::unix::Signal; 3]);

impl Stop {
    fn listen() -> io::Result<Self> {
        let [int, term, hup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([int?, term?, hup?]))
    }

    async fn asked(&mut self) {
        let [int, term, hup] = &mut self.0;
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    }
}

/// Everything up, and everything said.
async fn start(here: &Path, hosts: usize) -> Result<(Stack, Vec<Host>, Worker), Error> {
    let settings =
        Settings { timings: "{}".into(), faults: false, logs: Some(fs::canonicalize(here.join("logs"))?), ..Settings::default() };
    let mut stack = Stack::with(settings).await?;
    let (email, password) = ("admin@zaguan.example", random_word(10));
    stack.make_tenant("Demo", email, &password)?;
    let mut all = Vec::new();
    for _ in 0..hosts.max(1) {
        all.push(stack.try_host(8).await?);
    }
    let worker = stack.try_worker("{}").await?;
    note(here, "api", stack.api.process.pid())?;
    note(here, worker.process.name(), worker.process.pid())?;
    note(here, "simulator", stack.sim.process.pid())?;
    note(here, "redis", stack.redis.process().pid())?;
    note(here, "postgres", stack.postgres.process().pid())?;
    for host in &all {
        note(here, host.process.name(), host.proper())?;
        note(here, &format!("{}-guard", host.process.name()), host.process.pid())?;
    }
    let (api, sim) = (stack.api.url(), &stack.sim);
    let env = format!(
        "API_URL={api}\nSIMULATOR_URL={}\nSIMULATOR_PAGE={}\nSIMULATOR_PAGE_LEGACY={}\nSIMULATOR_SPKI={}\nMETRICS_URL={}\n\
         DATABASE_URL={}\nREDIS_URL={}\nMASTER_KEY={}\nADMIN_EMAIL={email}\nADMIN_PASSWORD={password}\n",
        sim.url,
        sim.page,
        sim.page_legacy,
        sim.spki,
        stack.api.metrics_url(),
        stack.postgres.url(),
        stack.redis.url(),
        stack.master_key()
    );
    // Scripts wait for this file: it is there when all is ready, and never half.
    fs::write(here.join("env.new"), env)?;
    fs::rename(here.join("env.new"), here.join("env"))?;
    #[expect(clippy::print_stdout, reason = "the banner is what the command is for")]
    {
        println!("{}", banner(&api, &sim.url, email, &password));
        let _ = io::Write::flush(&mut io::stdout());
    }
    Ok((stack, all, worker))
}

fn banner(api: &str, simulator: &str, email: &str, password: &str) -> String {
    format!(
        "\nZaguan is up. Ctrl-C (or `make stop`) ends it. Addresses and credentials are in .run/env, logs in .run/logs.\n\n  \
         API        {api}   (/openapi.json)\n  simulator  {simulator}/control\n  ADMIN      {email} / {password}\n\nTry:\n\n\
         curl -s {api}/api/auth/login -H 'content-type: application/json' -d '{{\"email\":\"{email}\",\"password\":\"{password}\"}}'\n\n\
         The README goes on from here: link a simulated phone, send, read the log.\n"
    )
}

/// Says when something ends that nobody asked to end. The rest goes on: to lose a part is something to try here.
async fn watch(stack: &mut Stack, hosts: &mut [Host], worker: &mut Worker) {
    let mut said = std::collections::HashSet::new();
    loop {
        let mut all =
            vec![&mut stack.api.process, &mut worker.process, &mut stack.sim.process, stack.redis.process(), stack.postgres.process()];
        all.extend(hosts.iter_mut().map(|h| &mut h.process));
        for process in all {
            if let Some(status) = process.ended()
                && said.insert(process.name().to_owned())
            {
                eprintln!("{0} has ended ({status}): see .run/logs/{0}.log", process.name());
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// A pid file: the process, and when it started, so that nobody else is ever meant.
fn note(here: &Path, name: &str, pid: u32) -> io::Result<()> {
    fs::write(here.join("pids").join(format!("{name}.pid")), format!("{pid}\n"))?;
    if name == "stack" {
        fs::write(here.join("started"), process::started(pid).unwrap_or_default())?;
    }
    Ok(())
}

fn running(here: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(here.join("pids/stack.pid")).ok()?.trim().parse().ok()?;
    let started = fs::read_to_string(here.join("started")).ok()?;
    (process::started(pid)? == started.trim()).then_some(pid)
}

async fn stop() -> Result<ExitCode, Error> {
    let here = run_folder();
    let Some(pid) = running(&here) else {
        // A killed run could not take its word back. Without a start time one is just beginning: not ours to touch.
        if here.join("started").exists() {
            clear(&here);
        }
        eprintln!("nothing runs");
        return Ok(ExitCode::SUCCESS);
    };
    process::send(pid, Signal::TERM);
    harness::until_true("the stack's end", LEAVE_WITHIN * 3, || async { running(&here).is_none() }).await;
    Ok(ExitCode::SUCCESS)
}

async fn linked(command: &[String]) -> Result<ExitCode, Error> {
    const PEER: &str = "5511888880000";
    let mut stack = Stack::with(Settings { faults: false, ..Settings::default() }).await?;
    let (_host, _worker) = (stack.try_host(2).await?, stack.worker().await);
    let (email, password) = ("admin@zaguan.example", random_word(10));
    let made = stack.make_tenant("Linked", email, &password)?;
    let text = |field: &str| made[field].as_str().unwrap_or_default().to_owned();
    let client = ApiClient::login(&stack.api.url(), email, &password).await;
    let tenant = Tenant { client, id: text("tenant"), session: text("session"), password: password.to_owned() };
    stack.sim.account(PEER).await;
    tenant.link(&stack.sim, "5511999990000").await;
    let mut child = tokio::process::Command::new(&command[0]);
    child.args(&command[1..]).env("API_URL", stack.api.url()).env("ACCESS_TOKEN", tenant.client.token()).env("PEER", PEER);
    child.env("ADMIN_EMAIL", email).env("ADMIN_PASSWORD", password).env("SIMULATOR_URL", &stack.sim.url);
    let status = child.status().await?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn with_postgres(command: &[String]) -> Result<ExitCode, Error> {
    let user = User::find()?;
    let folder = Folder::new(user)?;
    let postgres = Postgres::start(user, &folder, folder.path()).await?;
    let mut child = tokio::process::Command::new(&command[0]);
    let status = child.args(&command[1..]).env("DATABASE_URL", postgres.url()).status().await?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
