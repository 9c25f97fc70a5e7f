//! `ledgerline serve`: a DataStorage service until it is told to stop.
//!
//! Invariant: it says where it listens before it waits, and stops listening only after requests
//! under way are answered or their time is over. Limit: SQLite storage, on a local disk.

use anyhow::Context as _;
use ledgerline_server::{Config, Server, Storage};

use crate::Exit;
use crate::args::ServeArgs;
use crate::signals::Interrupt;

/// Runs the command.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<Exit> {
    let mut config = Config::new(Storage::Sqlite { path: args.storage.0.clone() });
    config.listen = args.listen;
    config.health_listen = Some(args.health_listen);
    config.metrics_listen = Some(args.metrics_listen);
    // Requests under way have no accounts to say: the second signal ends it.
    let interrupt = Interrupt::watch(|| std::process::exit(Exit::Failed as i32))?;
    let server = Server::start(config).context("the service doesn't start")?;
    println!("api http://{}", server.addr());
    println!("health http://{}", server.health_addr());
    println!("metrics http://{}", server.metrics_addr());
    interrupt.wait();
    server.shutdown(args.shutdown_timeout).context("the service didn't stop in order")?;
    Ok(Exit::Delivered)
}
