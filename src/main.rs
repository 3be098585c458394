//! The `pgbraid` command: arguments, configuration, tracing, signals. What a subcommand does is in `cli/`.

mod cli;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use pgbraid::{demo, server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Points any PostgreSQL client at many PostgreSQL servers as if they were one
#[derive(Parser)]
#[command(name = "pgbraid", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer clients until SIGTERM or Ctrl-C; SIGHUP reloads the configuration and the shards' catalogs
    Serve(ConfigFile),
    /// Check the configuration, reach every shard, compare their schemas; exit status 1 when something must be mended
    Check(ConfigFile),
    /// Compare the shards with each other and with the configuration, rows included, and name what mends each difference; exit
    /// status 1 with differences, 2 when the shards cannot be looked at
    Doctor {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        arguments: cli::doctor::Arguments,
    },
    /// Write a first configuration by looking at the shards
    Init(cli::init::Arguments),
    /// Print how a statement would run, or all statements of a file, without running any
    Plan {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        arguments: cli::plan::Arguments,
    },
    /// Run statements on a reference server and through pgbraid and compare the answers; exit status 1 with differences, 2 when nothing
    /// can be compared
    Verify {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        arguments: cli::verify::Arguments,
    },
    /// Show it all on this machine, with throwaway PostgreSQL servers
    Demo(demo::Options),
    /// Ask a running pgbraid for its health; exit status 1 when it is not well
    Health(Health),
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long = "config", short, value_name = "FILE", env = "PGBRAID_CONFIG")]
    path: PathBuf,
}

#[derive(Args)]
struct Health {
    /// server.http of the running pgbraid
    #[arg(long, default_value = "127.0.0.1:9632")]
    address: String,
    /// What to ask: /readyz (statements can be answered) or /livez (the process runs)
    #[arg(long, default_value = "/readyz")]
    path: String,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 5)]
    timeout: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before there are threads: it takes variables out of the environment.
    let inherited = match arguments.command {
        Command::Serve(_) => server::Inherited::take(),
        _ => Ok(server::Inherited::default()),
    };
    let inherited = match inherited {
        Ok(inherited) => inherited,
        Err(error) => return cli::fail(&format!("a socket it was started with: {error}")),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Only what is used of it takes memory.
        .thread_stack_size(pgbraid::sql::STACK_BYTES)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return cli::fail(&format!("cannot start: {error}")),
    };
    runtime.block_on(run(arguments.command, inherited))
}

async fn run(command: Command, inherited: server::Inherited) -> ExitCode {
    match command {
        Command::Serve(config) => cli::serve::run(&config.path, inherited).await,
        Command::Check(config) => cli::check::run(&config.path).await,
        Command::Doctor { config, arguments } => cli::doctor::run(&config.path, arguments).await,
        Command::Init(arguments) => cli::init::run(arguments).await,
        Command::Plan { config, arguments } => cli::plan::run(&config.path, arguments).await,
        Command::Verify { config, arguments } => cli::verify::run(&config.path, arguments).await,
        Command::Health(health) => {
            let limit = Duration::from_secs(health.timeout);
            cli::health::run(&health.address, &health.path, limit).await
        }
        Command::Demo(options) => match demo::run(&options).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => cli::fail(&error.to_string()),
        },
    }
}
