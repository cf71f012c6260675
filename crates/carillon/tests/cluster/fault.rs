//! What is done to a part of the cluster.

use std::fmt;
use std::time::Duration;

use crate::stage::{Nats, Service, Stage};

/// The stream whose leader is killed.
const EVENTS: &str = "RT_EVENTS";

/// Who is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Service(Service),
    /// The only nats-server.
    Nats,
    /// The node that leads the stream of events.
    Leader,
    /// Any node of the three.
    NatsNode,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after so many seconds.
    Pause(u64),
    /// SIGTERM, and the wait for its end.
    Stop,
}

/// A kind of fault; its text is the row in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) victim: Victim,
    pub(crate) blow: Blow,
}

/// One fault of a schedule.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) fault: Fault,
    /// Which of them.
    pub(crate) index: usize,
    /// How long it stays away before it is started again.
    pub(crate) away: Duration,
}

impl Step {
    /// Strikes, and brings back what was struck; a text tells what was not as it should be.
    pub(crate) async fn strike(&self, stage: &mut Stage) -> Result<(), String> {
        match self.fault.victim {
            Victim::Service(service) => self.strike_service(stage, service).await,
            Victim::Nats | Victim::Leader | Victim::NatsNode => self.strike_nats(&mut stage.nats).await,
        }
    }

    async fn strike_service(&self, stage: &mut Stage, service: Service) -> Result<(), String> {
        let nodes = stage.of_mut(service);
        let node = &mut nodes[self.index % nodes.len()];
        let mut orderly = true;
        match self.fault.blow {
            Blow::Kill => node.process.kill9(),
            Blow::Stop => orderly = node.terminate().await,
            Blow::Pause(seconds) => {
                node.process.pause();
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                node.process.resume();
                return Ok(());
            }
        }
        tokio::time::sleep(self.away).await;
        node.process.restart();
        if orderly {
            Ok(())
        } else {
            Err(format!("{} did not end with code 0", node.name))
        }
    }

    async fn strike_nats(&self, nats: &mut Nats) -> Result<(), String> {
        match nats {
            Nats::One(server) => {
                match self.fault.blow {
                    Blow::Kill => server.kill(),
                    Blow::Stop => server.stop().await,
                    Blow::Pause(seconds) => {
                        server.pause();
                        tokio::time::sleep(Duration::from_secs(seconds)).await;
                        server.resume();
                        return Ok(());
                    }
                }
                tokio::time::sleep(self.away).await;
                server.restart().await;
            }
            Nats::Three(cluster) => {
                let node = match self.fault.victim {
                    Victim::Leader => cluster.wait_stream_leader(EVENTS).await,
                    _ => self.index % 3,
                };
                match self.fault.blow {
                    Blow::Kill => cluster.kill_node(node),
                    Blow::Stop => cluster.stop_node(node).await,
                    Blow::Pause(seconds) => {
                        cluster.node(node).pause();
                        tokio::time::sleep(Duration::from_secs(seconds)).await;
                        cluster.node(node).resume();
                        return Ok(());
                    }
                }
                tokio::time::sleep(self.away).await;
                cluster.restart_node(node).await;
                // A second node must not fall before this one has caught up: that is beyond three replicas.
                cluster.wait_stream_current(EVENTS).await;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.victim {
            Victim::Service(service) => write!(f, "{service}")?,
            Victim::Nats => f.write_str("nats-server")?,
            Victim::Leader => f.write_str("stream leader")?,
            Victim::NatsNode => f.write_str("nats node")?,
        }
        match self.blow {
            Blow::Kill => f.write_str(" SIGKILL"),
            Blow::Pause(seconds) => write!(f, " SIGSTOP {seconds} s"),
            Blow::Stop => f.write_str(" SIGTERM"),
        }
    }
}
