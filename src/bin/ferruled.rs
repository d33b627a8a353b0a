//! `ferruled`: the node agent ([`ferrule::agent`]). Wires settings, log and loop together.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use ferrule::agent::event_loop::Agent;
use ferrule::agent::settings::Settings;
use ferrule::agent::uninstall;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tracing::{error, info};

fn main() -> ExitCode {
    let settings = Settings::parse();
    if let Err(reason) = ferrule::agent::serve::log::start(&settings.log_level) {
        // There is no log to say it in.
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "ferruled: {reason}");
        return ExitCode::from(2);
    }
    if settings.uninstall {
        return if uninstall::uninstall(&settings) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // One thread: what the agent waits for is the kernel and the API server, and memory counts on every node.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(reason) => {
            error!(%reason, "tokio runtime not started");
            return ExitCode::FAILURE;
        }
    };
    if settings.idle {
        return runtime.block_on(idle());
    }
    info!(version = env!("CARGO_PKG_VERSION"), node = settings.node_name, network = %settings.network, "agent started");
    let ended = LocalSet::new().block_on(&runtime, async {
        let agent = Agent::new(settings).map_err(|reason| reason.to_string())?;
        agent.run().await.map_err(|reason| reason.to_string())
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            error!(reason, "agent failed");
            ExitCode::FAILURE
        }
    }
}

/// As the first process of a container it ends on a signal only if it asks for it.
async fn idle() -> ExitCode {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return ExitCode::FAILURE };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return ExitCode::FAILURE };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    ExitCode::SUCCESS
}
