//! `zaguan-stack run`.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use harness::{Host, Options, Ports, Process, Signal, Stack, free_port, free_port_near, procs};
use tokio::signal::unix::{SignalKind, signal};

use crate::record::{Record, clear, replace};

/// How long session hosts may drain before they are killed; a second Ctrl-C does not wait.
const DRAINS_WITHIN: Duration = Duration::from_secs(10);

/// Starts everything, says so in `.run/env`, and ends it when told to.
pub async fn run(run: &Path, hosts: u8) -> ExitCode {
    let mut stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => return fail(&error),
    };
    if let Err(error) = take(run) {
        return fail(&error);
    }
    // From here on `.run` is ours, and told so however this ends; a part that does not start panics.
    let ours = Ours(run);
    let started = tokio::select! {
        started = start(run, hosts) => started,
        () = stop.asked() => return ExitCode::SUCCESS,
    };
    let (stack, hosts) = match started {
        Ok(started) => started,
        Err(error) => return fail(&error),
    };
    tokio::select! {
        () = stop.asked() => (),
        () = watch(&stack, &hosts) => (),
    }
    say("\nstopping …");
    let _ = fs::remove_file(run.join("env"));
    tokio::select! {
        () = drain(&hosts) => (),
        () = stop.asked() => (),
    }
    drop(hosts);
    drop(stack);
    drop(ours);
    ExitCode::SUCCESS
}

/// `.run` while we live.
struct Ours<'a>(&'a Path);

impl Drop for Ours<'_> {
    fn drop(&mut self) {
        clear(self.0);
    }
}

/// Makes `.run` ours: refuses while another run lives, ends what a killed one left.
fn take(run: &Path) -> io::Result<()> {
    if let Some(earlier) = Record::read(run) {
        if earlier.stack.lives() {
            return Err(io::Error::other(format!("already running (pid {}): make stop", earlier.stack.pid)));
        }
        earlier.kill();
    }
    clear(run);
    let _ = fs::remove_dir_all(run.join("logs"));
    fs::create_dir_all(run.join("logs"))?;
    Record::new()?.write(run)
}

async fn start(run: &Path, hosts: u8) -> io::Result<(Stack, Vec<Host>)> {
    say("starting Postgres, Redis, the simulator, the API …");
    let options = Options {
        timings: serde_json::json!({}),
        logs: Some(fs::canonicalize(run.join("logs"))?),
        api_ports: [free_port_near(8080), free_port_near(9090)],
        simulator_ports: Ports { control: free_port_near(8081), page: free_port_near(8443), page_legacy: free_port_near(8444) },
        faults: false,
        ..Options::default()
    };
    let stack = Stack::start_with(options).await;
    let mut started = Vec::new();
    for number in 1..=hosts {
        say(&format!("starting session host {number} …"));
        let metrics = if number == 1 { free_port_near(9091) } else { free_port() };
        started.push(stack.host_with(|host| host.metrics_port = metrics).await);
    }
    let mut record = Record::new()?;
    record.processes.extend(stack.processes().into_iter().map(|process| (process.name().to_owned(), process.id())));
    for host in &started {
        record.processes.push((format!("{}-guard", host.name()), host.guard()));
        record.processes.extend(host.proper().map(|proper| (host.name().to_owned(), proper)));
    }
    record.write(run)?;
    replace(&run.join("env"), &env(&stack))?;
    say(&banner(&stack, &started));
    Ok((stack, started))
}

/// The names that scripts rely on.
fn env(stack: &Stack) -> String {
    let simulator = stack.sim.addresses();
    let lines = [
        ("API_URL", stack.api.http().base()),
        ("SIMULATOR_URL", &simulator.control),
        ("SIMULATOR_PAGE", &simulator.page),
        ("SIMULATOR_PAGE_LEGACY", &simulator.page_legacy),
        ("SIMULATOR_SPKI", &simulator.spki),
        ("METRICS_URL", stack.api.metrics_url()),
        ("DATABASE_URL", &stack.settings().database_url),
        ("REDIS_URL", &stack.settings().redis_url),
        ("ADMIN_EMAIL", &stack.tenant.email),
        ("ADMIN_PASSWORD", &stack.tenant.password),
    ];
    lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn banner(stack: &Stack, hosts: &[Host]) -> String {
    let (api, simulator, tenant) = (stack.api.http().base(), stack.sim.addresses(), &stack.tenant);
    let hosts: Vec<String> = hosts.iter().map(|host| format!("{} {}", host.name(), host.metrics_url())).collect();
    format!(
        "
Zaguan is up.

  API         {api}    OpenAPI {api}/openapi.json
  metrics     {metrics}    {hosts}
  simulator   {control}/control
  e-mail      {email}
  password    {password}
  names       .run/env    pids .run/pids    logs .run/logs

Log in:

  curl -s {api}/api/auth/login -H 'content-type: application/json' -d '{{\"email\":\"{email}\",\"password\":\"{password}\"}}'

The README goes on from there: link a phone, send, follow the job, read the events. Ctrl-C ends everything.",
        metrics = stack.api.metrics_url(),
        hosts = hosts.join("    "),
        control = simulator.control,
        email = tenant.email,
        password = tenant.password,
    )
}

/// Says when a process ends that nobody asked to end. The rest goes on: losing one is something to try here.
async fn watch(stack: &Stack, hosts: &[Host]) {
    let mut watched: Vec<&Process> = stack.processes();
    watched.extend(hosts.iter().filter_map(Host::process));
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        watched.retain(|process| match process.ended() {
            None => true,
            Some(status) => {
                say(&format!("{} ended: {status}; its log is {}", process.name(), process.log().display()));
                false
            }
        });
    }
}

async fn drain(hosts: &[Host]) {
    let running: Vec<_> = hosts.iter().filter_map(Host::process).filter(|process| process.ended().is_none()).collect();
    for process in &running {
        process.signal(Signal::TERM);
    }
    let ids: Vec<_> = running.iter().map(|process| process.id()).collect();
    let _ = tokio::task::spawn_blocking(move || procs::wait_gone(&ids, DRAINS_WITHIN)).await;
}

/// Ctrl-C, `make stop`, a closed terminal.
struct Stop {
    signals: [tokio::signal::unix::Signal; 3],
}

impl Stop {
    fn listen() -> io::Result<Self> {
        let [int, term, hup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self { signals: [int?, term?, hup?] })
    }

    async fn asked(&mut self) {
        let [int, term, hup] = &mut self.signals;
        tokio::select! {
            _ = int.recv() => (),
            _ = term.recv() => (),
            _ = hup.recv() => (),
        }
    }
}

fn say(text: &str) {
    // A closed pipe at the other end is no reason to end.
    let _ = writeln!(io::stdout(), "{text}");
}

fn fail(error: &io::Error) -> ExitCode {
    eprintln!("zaguan-stack: {error}");
    ExitCode::FAILURE
}
