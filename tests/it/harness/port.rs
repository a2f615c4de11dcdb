//! Ports for servers that another program will run, or that nobody will.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::net::TcpSocket;

/// What is held, until this program ends.
static HELD: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());

/// A port of loopback at which nobody listens, and which the kernel gives to nobody else meanwhile: a socket that is
/// bound and does not listen holds it. Connecting to it is refused; who asks for it by number and allows the reuse of
/// addresses, as servers do, gets it.
pub fn vacant() -> SocketAddr {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("the reuse of an address");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = socket.local_addr().expect("is bound");
    HELD.lock().expect("no holder panicked").push(socket);
    address
}
