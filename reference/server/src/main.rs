//! Serves a provider, a cluster, a relay or a whole federation.

mod config;
mod init;
mod log;
mod serve;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anstream::eprintln;
use anyhow::Result;
use clap::{Parser, Subcommand};
use fusion_settings::Mistake;
use serde_json::json;

use crate::config::{Process, RoleName};
use crate::log::{Format, LogLevel};

/// Serves a provider, a cluster, a media relay or a whole federation.
///
/// An independent implementation of stack fusion for research, simulation and
/// conformance testing.
///
/// Examples:
///   stack-fusion init target/local
///   stack-fusion serve --role all --config target/local/federation.toml
///   stack-fusion serve --role cluster --config target/local/cluster-a.toml
///   stack-fusion example-config cluster
///
/// Exit codes: 0 ended by SIGTERM or Ctrl-C, 1 it could not serve, 2 an argument
/// or a file is wrong.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until SIGTERM or Ctrl-C
    ///
    /// Once everything is served, one line is written to standard output:
    /// {"ready":[{"role":"cluster","name":"a","address":"127.0.1.2:8443"}]}
    #[command(verbatim_doc_comment)]
    Serve {
        /// What the process is for
        #[arg(long, value_enum)]
        role: RoleName,
        /// The configuration file; with --role all: a file that lists those of its parts
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// No TLS on loopback addresses, to and from
        #[arg(long)]
        insecure_loopback: bool,
        /// Where log lines are appended to, instead of where the file says
        #[arg(long, value_name = "FILE")]
        log_file: Option<PathBuf>,
        /// How log lines look, instead of how the file says
        #[arg(long, value_enum)]
        log_format: Option<Format>,
        /// The least level that is logged, instead of what the file says
        #[arg(long, value_enum)]
        log_level: Option<LogLevel>,
    },
    /// Writes a federation for this machine: configuration, certificates, keys, target file
    ///
    /// Every process listens at an address of its own, 127.0.1.N. Done again in the same folder, it keeps
    /// topology, keys and stores.
    Init {
        /// Where to
        folder: PathBuf,
        /// The port that every process listens on
        #[arg(long, default_value_t = 8443)]
        port: u16,
        /// A file that says which orgs and clusters there are [default: two companies, each with a
        /// cluster, and the consumer org]
        #[arg(long, value_name = "FILE")]
        topology: Option<PathBuf>,
    },
    /// Prints a configuration file in which every key is explained
    ExampleConfig {
        /// Of what
        #[arg(value_enum, default_value_t = Example::Cluster)]
        role: Example,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Example {
    Provider,
    Cluster,
    Relay,
}

fn main() -> ExitCode {
    match run(Line::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Mistake>() { 2 } else { 1 })
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve { role, config, insecure_loopback, log_file, log_format, log_level } => {
            let mut processes = config::read(&config, role)?;
            for Process { network, log, .. } in &mut processes {
                network.insecure_loopback |= insecure_loopback;
                log.file = log_file.clone().or_else(|| log.file.take());
                log.format = log_format.unwrap_or(log.format);
                log.level = log_level.unwrap_or(log.level);
            }
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(serve::serve(processes))
        }
        Command::Init { folder, port, topology } => {
            let written = init::init(&folder, port, topology.as_deref())?;
            print(&format!(
                "{}\n",
                json!({"federation": written.all, "target": written.target, "processes": written.processes})
            ));
            Ok(())
        }
        Command::ExampleConfig { role } => {
            print(role.text());
            Ok(())
        }
    }
}

impl Example {
    fn text(self) -> &'static str {
        match self {
            Self::Provider => include_str!("examples/provider.toml"),
            Self::Cluster => include_str!("examples/cluster.toml"),
            Self::Relay => include_str!("examples/relay.toml"),
        }
    }
}

/// A reader that has gone is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
