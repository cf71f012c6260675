//! An edge that can be killed: it has a runtime of its own.

use std::net::SocketAddr;

use tokio::runtime::Runtime;

use crate::stage::Stage;

pub(crate) struct Mortal {
    pub address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Mortal {
    /// Starts an edge and waits until it is ready.
    pub(crate) async fn start(stage: &Stage) -> Self {
        let set_up = stage.set_up();
        let started = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let edge = runtime.block_on(set_up.start());
            (edge.address, runtime)
        });
        let (address, runtime) = started.await.unwrap();
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    /// Ends everything of it at once, in the middle of whatever it does.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.end();
    }
}
