//! Places of sidecar.toml that cannot all be what they are given as: taken twice, or leading back to ourselves.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::config::document::Place;
use crate::config::reader::Reader;
use crate::config::upstream::Placed;
use crate::proxy::settings::Address;

/// Something that listens or is connected to, its key and its place.
pub(in crate::config) struct At<T> {
    pub what: T,
    pub key: String,
    pub place: Place,
}

/// Two listeners of ours on one port.
pub(in crate::config) fn listeners(reader: &Reader<'_>, listeners: &[At<SocketAddr>]) {
    for (index, later) in listeners.iter().enumerate() {
        if let Some(first) = listeners[..index].iter().find(|first| collide(first.what, later.what)) {
            let message = format!("`{}` listens where `{}` does", later.key, first.key);
            reader.problem(later.place, message, "give each listener a port of its own");
        }
    }
}

/// What is connected to must not be one of our own listeners.
pub(in crate::config) fn own_listener(reader: &Reader<'_>, listeners: &[At<SocketAddr>], target: &At<(&str, u16)>) {
    let (host, port) = target.what;
    let address = match host {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        host => host.parse().ok(),
    };
    let Some(address) = address.map(|ip: IpAddr| SocketAddr::new(ip, port)) else { return };
    let ours = |at: &&At<SocketAddr>| at.what == address || (address.ip().is_loopback() && collide(at.what, address));
    if let Some(listener) = listeners.iter().find(ours) {
        let message = format!("`{}` leads back to `{}`", target.key, listener.key);
        reader.problem(target.place, message, "give the address of the server behind this one");
    }
}

/// Two names for one server: the same place, path and headers. A limit per server would count as two.
pub(in crate::config) fn upstreams(reader: &Reader<'_>, upstreams: &[Placed], control: Option<&At<PathBuf>>) {
    for (index, later) in upstreams.iter().enumerate() {
        let same = |first: &&Placed| {
            let (a, b) = (&first.upstream, &later.upstream);
            a.address == b.address && a.path == b.path && a.headers == b.headers
        };
        if let Some(first) = upstreams[..index].iter().find(same) {
            let message = format!("`upstreams.{}` is the same server as `upstreams.{}`", later.name, first.name);
            reader.problem(later.place, message, "keep one: servers of the policy may share an upstream");
        }
        if let (Some(control), Address::Unix(path)) = (control, &later.upstream.address)
            && control.what == *path
        {
            let message = format!("`upstreams.{}` is the control socket", later.name);
            reader.problem(later.place, message, "give the executor's socket: executor.socket in executor.toml");
        }
    }
}

fn collide(first: SocketAddr, later: SocketAddr) -> bool {
    let any = first.ip().is_unspecified() || later.ip().is_unspecified();
    let same_kind = first.is_ipv4() == later.is_ipv4();
    first.port() != 0 && first.port() == later.port() && (first.ip() == later.ip() || (any && same_kind))
}
