use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::app::Plan;
use crate::executor::Listen;
use crate::proxy::settings::{AccessLog, AccessLogFormat, Address};

impl Plan {
    /// Makes this a plan for one process alone: a loopback port that the system chooses, no admin listener, no control
    /// socket, no way to the site, nothing on standard output. An executor in the plan is asked over a socket in
    /// `scratch`; its place among the upstreams is wherever identities are sent.
    pub fn alone(&mut self, scratch: &Path) {
        let Some(sidecar) = &mut self.sidecar else { return };
        if let Some(executor) = &mut self.executor {
            let socket = scratch.join("executor.sock");
            for upstream in sidecar.proxy.upstreams.values_mut().filter(|upstream| upstream.identity) {
                upstream.key = None;
                upstream.address = Address::Unix(socket.clone());
            }
            executor.executor.listen = Listen::Unix(socket);
            // It is there for one client, not for everybody's tasks.
            if let Some(queue) = &mut executor.queue_worker {
                queue.inside = false;
            }
        }
        let proxy = &mut sidecar.proxy;
        proxy.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        proxy.server_names = Vec::new();
        proxy.cms = None;
        proxy.threads = 1;
        proxy.timeouts.ready_lag = Duration::from_millis(1);
        proxy.timeouts.drain = Duration::from_secs(2);
        proxy.access_log = AccessLog { format: AccessLogFormat::Off, path: None };
        sidecar.admin.listen = None;
        sidecar.admin.control = None;
    }
}
