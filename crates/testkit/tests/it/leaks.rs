//! No child outlives its test process, however that ends.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use carillon_testkit::nats::Server;
use carillon_testkit::{optional, wait};
use tokio::net::TcpStream;

use crate::SOON;

const HELPER: &str = "CARILLON_TESTKIT_ABORTS";

#[tokio::test]
async fn a_server_dies_with_a_test_process_that_aborts() {
    if std::env::var_os(HELPER).is_some() {
        let server = Server::start().await;
        println!("\nserver at {}", server.addr());
        std::process::abort();
    }
    if optional::tool(&["setpriv"]).is_none() {
        return;
    }
    let mut aborting = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "leaks::a_server_dies_with_a_test_process_that_aborts",
            "--nocapture",
        ])
        .env(HELPER, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(aborting.stdout.take().unwrap()).lines();
    let addr = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix("server at ")?.to_owned()));
    let addr = addr.expect("the helper never started its server");
    assert!(!aborting.wait().unwrap().success());
    wait::until_true("the end of the server", SOON, async || {
        TcpStream::connect(&addr).await.is_err()
    })
    .await;
}

#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let start = move || runtime().block_on(Server::start());
    let server = std::thread::spawn(start).join().unwrap();
    runtime().block_on(async {
        server.connect().await.flush().await.unwrap();
    });
    assert!(server.is_running());
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let server = Server::start().await;
    let (addr, store) = (server.addr(), server.store().to_owned());
    drop(server);
    assert!(TcpStream::connect(addr).await.is_err());
    assert!(!store.exists());
}
