//! New rules for edges that run, when the settings file changes or on SIGHUP.

use std::path::{Path, PathBuf};

use carillon_service::reload::{self, Reload as Cause};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::service::Reload;

/// Reads the file again whenever that is asked for; settings that are wrong change nothing.
pub(crate) fn follow(path: PathBuf, edges: Vec<Reload>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut causes = reload::watch(&path, shutdown)?;
    tokio::spawn(async move {
        while let Some(cause) = causes.recv().await {
            let cause = match cause {
                Cause::Signal => "SIGHUP",
                Cause::Changed => "the file changed",
            };
            match apply(&path, &edges) {
                Ok(()) => tracing::info!(cause, "the rules are loaded again"),
                Err(reason) => {
                    tracing::error!(
                        cause,
                        reason,
                        "the settings are wrong, the rules stay as they were"
                    );
                }
            }
        }
    });
    Ok(())
}

/// The checks come before anything is changed, so that all edges have the same rules.
fn apply(path: &Path, edges: &[Reload]) -> Result<(), String> {
    let loaded = config::load(Some(path)).map_err(|problems| problems.to_string())?;
    for edge in edges {
        if let Err(mistakes) = edge.reload(&loaded.value.namespaces) {
            let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            return Err(mistakes.join("; "));
        }
    }
    Ok(())
}
