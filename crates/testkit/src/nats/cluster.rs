use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use super::{Options, Server};
use crate::{net, wait};

const ELECTION_LIMIT: Duration = Duration::from_secs(60);
const REQUEST_LIMIT: Duration = Duration::from_secs(2);

/// Three servers that are one cluster with JetStream, for streams with three replicas.
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts three servers and waits until JetStream has a leader that answers through each of them.
    pub async fn three() -> Self {
        Self::three_with(Options::default()).await
    }

    /// Like [`Cluster::three`], with options for each of the servers.
    pub async fn three_with(options: Options) -> Self {
        let routes: Vec<SocketAddr> = (0..3).map(|_| net::free_addr()).collect();
        let all = routes
            .iter()
            .map(|addr| format!("\"nats://{addr}\""))
            .collect::<Vec<_>>()
            .join(", ");
        let mut nodes: Vec<Server> = routes
            .iter()
            .enumerate()
            .map(|(i, addr)| {
                let extra = format!(
                    "{}\ncluster {{ name: \"test\", listen: \"{addr}\", routes: [{all}] }}\n",
                    options.extra
                );
                Server::new(
                    &node_name(i),
                    Options {
                        extra,
                        ..options.clone()
                    },
                )
            })
            .collect();
        nodes.iter_mut().for_each(Server::launch);
        join_all(nodes.iter().map(Server::ready)).await;
        let cluster = Self { nodes };
        join_all((0..3).map(|i| cluster.answers(i))).await;
        cluster
    }

    /// The addresses of all three, as `nats.url` takes them.
    pub fn url(&self) -> String {
        self.nodes.iter().map(Server::url).collect::<Vec<_>>().join(",")
    }

    /// One of the servers.
    pub fn node(&self, i: usize) -> &Server {
        &self.nodes[i]
    }

    /// A client that knows all three addresses.
    pub async fn connect(&self) -> async_nats::Client {
        let servers: Vec<String> = self.nodes.iter().map(Server::url).collect();
        let client = async_nats::connect(servers).await;
        client.unwrap_or_else(|e| panic!("cannot connect to {}: {e}", self.url()))
    }

    /// Kills a node with SIGKILL.
    pub fn kill_node(&mut self, i: usize) {
        self.nodes[i].kill();
    }

    /// Stops a node gracefully.
    pub async fn stop_node(&mut self, i: usize) {
        self.nodes[i].stop().await;
    }

    /// Starts a node again and waits until it has caught up and takes part.
    pub async fn restart_node(&mut self, i: usize) {
        self.nodes[i].restart().await;
        self.answers(i).await;
    }

    /// The node that leads this stream now, if there is one.
    pub async fn stream_leader(&self, stream: &str) -> Option<usize> {
        let info = self
            .api(self.any_node()?, &format!("STREAM.INFO.{stream}"))
            .await?;
        self.position(info.pointer("/cluster/leader")?.as_str()?)
    }

    /// Waits until the stream has a leader that is a running node.
    pub async fn wait_stream_leader(&self, stream: &str) -> usize {
        wait::until(
            format_args!("a leader of stream {stream}"),
            ELECTION_LIMIT,
            async || {
                let leader = self.stream_leader(stream).await?;
                self.nodes[leader].is_running().then_some(leader)
            },
        )
        .await
    }

    /// Waits until all replicas of the stream are online and current.
    pub async fn wait_stream_current(&self, stream: &str) {
        let node = self.any_node().unwrap_or_else(|| panic!("no node runs"));
        wait::until_true(
            format_args!("current replicas of {stream}"),
            ELECTION_LIMIT,
            async || {
                let Some(info) = self.api(node, &format!("STREAM.INFO.{stream}")).await else {
                    return false;
                };
                let replicas = info.pointer("/cluster/replicas").and_then(Value::as_array);
                info.pointer("/cluster/leader").is_some()
                    && replicas.is_some_and(|all| {
                        all.iter()
                            .all(|one| one["current"] == true && one["offline"] != true)
                    })
            },
        )
        .await;
    }

    async fn answers(&self, i: usize) {
        wait::until(
            format_args!("jetstream at {}", node_name(i)),
            ELECTION_LIMIT,
            async || {
                let info = self.api(i, "INFO").await?;
                info.get("error").is_none().then_some(())
            },
        )
        .await;
    }

    async fn api(&self, node: usize, what: &str) -> Option<Value> {
        let client = async_nats::connect(self.nodes[node].url()).await.ok()?;
        let request = client.request(format!("$JS.API.{what}"), "".into());
        let reply = tokio::time::timeout(REQUEST_LIMIT, request).await.ok()?.ok()?;
        serde_json::from_slice(&reply.payload).ok()
    }

    fn any_node(&self) -> Option<usize> {
        self.nodes.iter().position(Server::is_running)
    }

    fn position(&self, name: &str) -> Option<usize> {
        (0..self.nodes.len()).find(|&i| node_name(i) == name)
    }
}

fn node_name(i: usize) -> String {
    format!("nats-{i}")
}
